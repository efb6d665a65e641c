"""What a chat may ask for besides its messages."""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from aim_sdk.chat.messages import History
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.selection.base import Selector
from aim_sdk.selection.registry import get_selector
from aim_sdk.types import Mode

COOLEST: Final = 1e-3
"""The lowest temperature of a draw: below, it is greedy in all but name, and numbers overflow."""
_ELSEWHERE: Final = {
    "stream": "pieces come from another method. Next: pipe.chat_stream(messages, ...)",
    "max_completion_tokens": "it is called max_tokens here",
    "model": "the pipeline is the model; leave it out",
    "demonstrations": "the messages bring them; leave it out",
}


def _stops(given: object) -> object:
    if not isinstance(given, str | list | tuple):
        raise ValueError("expected a string, or a list of them")
    return (given,) if isinstance(given, str) else tuple(given)


def _schema(given: object) -> object:
    return given.model_json_schema() if isinstance(given, type) and issubclass(given, BaseModel) else given


def _selector(given: object) -> object:
    return get_selector(given) if isinstance(given, str) else given


class ChatOptions(BaseModel):
    """Options by OpenAI's names, and what is shown before the query.

    Answers are greedy unless ``temperature`` (above 0) or ``top_p`` is given.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, strict=True, allow_inf_nan=False
    )

    max_tokens: int = Field(default=256, ge=1, description="of one answer")
    n: int = Field(default=1, ge=1, le=16, description="answers to the query; more than one are drawn")
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops)] = Field(
        default=(), max_length=4, description="strings before which an answer is cut"
    )
    seed: int | None = Field(default=None, ge=0, lt=1 << 63, description="of the draw")
    temperature: float | None = Field(default=None, ge=0, le=100, description="0, or none of the two: greedy")
    top_p: float | None = Field(default=None, gt=0, le=1, description="the share of probability that is drawn from")
    logprobs: bool = Field(default=False, description="fill `ChatAnswer.log_probs`")
    history: History = Field(
        default="demonstrations", description="what the turns before the last one are: demonstrations, or ignored"
    )
    shots: int | None = Field(
        default=None, ge=0, description="of the bank's demonstrations, if the messages bring none; none: up to 8"
    )
    mode: Mode = Field(default="aim", description="how demonstrations are shown")
    selector: Annotated[Selector | None, BeforeValidator(_selector)] = Field(
        default=None, description="chooses the bank's, by name or as an object; none: the pipeline's"
    )
    schema_: Annotated[dict[str, Any] | None, BeforeValidator(_schema)] = Field(
        default=None, alias="schema", description="each answer is JSON of this JSON schema, or of a pydantic model's"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> ChatOptions:
        if any(not text for text in self.stop):
            raise ValueError("stop: an empty string ends every answer before it begins")
        if self.n > 1 and not self.draws:
            raise ValueError(f"n={self.n}: greedy answers are all the same. Next: temperature=1")
        if self.seed is not None and not self.draws:
            raise ValueError("seed: greedy answers are not drawn. Next: temperature=1, or no seed")
        if self.temperature == 0 and self.top_p not in (None, 1):
            raise ValueError(f"top_p={self.top_p}: greedy answers are not drawn. Next: temperature=1, or no top_p")
        if self.temperature and self.temperature < COOLEST:
            raise ValueError(f"temperature={self.temperature}: expected 0 (greedy), or at least {COOLEST}")
        if self.selector is not None and (self.shots == 0 or self.mode == "zero-shot"):
            raise ValueError("selector: no demonstration is shown, so none is chosen; leave it out")
        if self.shots and self.mode == "zero-shot":
            raise ValueError(f"shots={self.shots}: mode 'zero-shot' shows none; leave one of the two out")
        if self.mode == "nearest":
            raise ValueError("mode 'nearest' has no prompt: the demonstrations vote. Next: pipe.nearest(...)")
        return self

    @property
    def draws(self) -> bool:
        """Whether answers are drawn."""
        return self.temperature != 0 if self.temperature is not None else self.top_p is not None

    @property
    def generation(self) -> dict[str, Any]:
        """The backend's options."""
        if not self.draws:
            return {}
        given = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {"do_sample": True, **{name: value for name, value in given.items() if value is not None}}

    def check_streams(self) -> None:
        """Refuse what a stream does not have.

        Raises:
            InputError: several answers or log-probabilities are wanted.
        """
        if self.n > 1 or self.logprobs:
            raise InputError("a stream has one answer and no log-probabilities; leave n and logprobs out.")

    @classmethod
    def of(cls, options: dict[str, Any]) -> ChatOptions:
        """Check options by name and value; None stands for a default.

        Raises:
            InputError: one does not exist, or cannot be what it is.
        """
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in options:
            if name in _ELSEWHERE:
                raise InputError(f"{name}: {_ELSEWHERE[name]}.")
            if name not in known:
                raise InputError(unknown("chat option", name, known))
        given = {name: one.item() if isinstance(one, np.generic) else one for name, one in options.items()}
        try:
            return cls(**{name: one for name, one in given.items() if one is not None})
        except ValidationError as error:
            raise InputError(f"{problem(error)}.") from error
