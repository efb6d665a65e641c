"""What a chat may ask for besides its messages."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from aim_sdk.chat.few_shot import History
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.selection.base import Selector
from aim_sdk.types import Mode

_Stops = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given or ())]


class ChatOptions(BaseModel):
    """Options by OpenAI's names, and what is shown before the query.

    Answers are greedy unless ``temperature`` (above 0) or ``top_p`` is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    max_tokens: int = Field(default=256, ge=1, description="of one answer")
    n: int = Field(default=1, ge=1, le=16, description="answers to the query; more than one are drawn")
    stop: _Stops = Field(default=(), max_length=4, description="strings before which an answer is cut")
    seed: int | None = Field(default=None, ge=0, lt=1 << 63, description="of the draw")
    temperature: float | None = Field(default=None, ge=0, le=100, description="0, or none of the two: greedy")
    top_p: float | None = Field(default=None, gt=0, le=1, description="the share of probability that is drawn from")
    logprobs: bool = Field(default=False, description="fill `ChatAnswer.log_probs`")
    history: History = Field(
        default="demonstrations", description="what the turns before the last one are: demonstrations, or ignored"
    )
    shots: int | None = Field(
        default=None, ge=0, description="demonstrations of the bank, if the messages bring none; of the messages, all"
    )
    mode: Mode = Field(default="aim", description="how demonstrations are shown")
    selector: str | Selector | None = Field(
        default=None, description="chooses them from the bank; none: the pipeline's"
    )

    @model_validator(mode="after")
    def _has_effect(self) -> ChatOptions:
        if any(not text for text in self.stop):
            raise ValueError("stop: an empty string ends every answer before it begins")
        if self.n > 1 and not self.draws:
            raise ValueError(f"n={self.n}: greedy answers are all the same. Next: temperature=1")
        if self.seed is not None and not self.draws:
            raise ValueError("seed: greedy answers are not drawn. Next: temperature=1, or no seed")
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

    @classmethod
    def of(cls, options: dict[str, Any]) -> ChatOptions:
        """Check options by name and value.

        Raises:
            InputError: one does not exist, or cannot be what it is.
        """
        for name in options:
            if name == "stream":
                raise InputError("stream: pieces come from another method. Next: pipe.chat_stream(messages, ...).")
            if name not in cls.model_fields:
                raise InputError(unknown("chat option", name, cls.model_fields))
        try:
            return cls(**options)
        except ValidationError as error:
            raise InputError(f"{problem(error)}.") from error
