"""OpenAI's chat form: what is asked, and how it is answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aim_sdk.chat.completion import ChatAnswer, ChatCompletion
from aim_sdk.chat.options import COOLEST, ChatOptions
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.serving.refusals import Refusal

IGNORED: Final = frozenset({"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"})
"""They change no answer."""
_REFUSED: Final = (
    *("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "audio", "modalities"),
    *("logit_bias", "presence_penalty", "frequency_penalty", "prediction", "web_search_options", "top_logprobs"),
    *("reasoning_effort", "verbosity"),
)
"""They would; without effect (null, 0, nothing) they are passed over."""


class StreamOptions(BaseModel):
    """Of a stream."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class JsonSchema(BaseModel):
    """A named schema."""

    model_config = ConfigDict(extra="ignore")
    name: str = ""
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What an answer is written as."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_schema", "json_object"]
    json_schema: JsonSchema | None = None


class ChatRequest(BaseModel):
    """``POST /v1/chat/completions``. The last five fields are this service's own; model names hold a bank, too."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(description="the model, or model:bank")
    messages: list[dict[str, Any]] = Field(description="pairs of turns are demonstrations, the last one is the query")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, description="256 unless it is given")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="the same by its newer name")
    n: int | None = Field(default=None, ge=1, le=16, description="more than one needs a temperature")
    stop: Annotated[list[str], Field(max_length=4)] | str | None = None
    seed: int | None = None
    temperature: float | None = Field(default=None, ge=0, le=100, description="greedy without it")
    top_p: float | None = Field(default=None, ge=0, le=1)
    logprobs: bool | None = None
    response_format: ResponseFormat | None = None
    bank: str | None = Field(default=None, description="whose demonstrations are shown, if the messages bring none")
    shots: int | None = Field(default=None, description="how many of them; none: up to 8")
    selector: str | None = Field(default=None, description="chooses them")
    mode: Literal["aim", "text-only", "interleaved", "zero-shot", "no-image"] | None = None
    history: Literal["demonstrations", "ignored"] | None = None

    @classmethod
    def of(cls, given: object) -> ChatRequest:
        """Check a request's body.

        Raises:
            InputError: it is none, or asks for what is not here.
        """
        if not isinstance(given, dict):
            raise InputError(f"the body is {type(given).__name__}; expected a JSON object with model and messages.")
        kept = {}
        for name, value in given.items():
            if name in _REFUSED:
                if value not in (None, [], {}, 0, False, "none", "auto", ["text"]):
                    raise refused(f"{name} is not supported here. Leave it out.", name)
            elif name not in IGNORED:
                if name not in cls.model_fields:
                    raise refused(unknown("field", name, cls.model_fields), name)
                kept[name] = value
        try:
            return cls.model_validate(kept)
        except ValidationError as error:
            first = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else None
            raise refused(f"{problem(error)}.", first) from error

    def options(self, most: int) -> ChatOptions:
        """The options of `AIMPipeline.chat`; what has no effect on greedy answers is passed over, as clients send it.

        Args:
            most: tokens of an answer.

        Raises:
            InputError: one cannot be what it is.
        """
        tokens = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != tokens:
            raise InputError(f"max_tokens={self.max_tokens} and max_completion_tokens={tokens}: send one of them.")
        if tokens is not None and tokens > most:
            raise InputError(f"max_tokens={tokens}; this service answers with at most {most}.")
        warm = self.temperature is None or self.temperature >= COOLEST  # below, clients mean greedy
        draws = warm and self.top_p != 0 and not (self.temperature is None and self.top_p is None)
        return ChatOptions.of(
            {
                "max_tokens": min(256, most) if tokens is None else tokens,
                "n": self.n,
                "stop": self.stop,
                "seed": abs(self.seed) if draws and self.seed is not None else None,
                "temperature": self.temperature if draws or (self.temperature or 0) < 0 else 0,
                "top_p": self.top_p if draws else None,
                "logprobs": self.logprobs,
                "history": self.history,
                "shots": self.shots,
                "mode": self.mode,
                "selector": self.selector,
                "schema": self._schema(),
            }
        )

    def _schema(self) -> dict[str, Any] | None:
        form = self.response_format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return {"type": "object"}
        if form.json_schema is None:
            raise InputError("response_format.json_schema: it is missing.")
        return form.json_schema.schema_


def refused(message: str, param: str | None) -> Refusal:
    """An error about one field."""
    return Refusal(HTTPStatus.BAD_REQUEST, "invalid_request", message, param)


class Identity:
    """What all parts of one answer have in common."""

    def __init__(self, model: str) -> None:
        self._model, self._created, self._id = model, int(time.time()), f"chatcmpl-{secrets.token_hex(12)}"

    def whole(self, made: ChatCompletion, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": number,
                    "message": {"role": "assistant", "content": answer.text, "refusal": None},
                    "logprobs": _log_probs(answer),
                    "finish_reason": answer.finish_reason,
                }
                for number, answer in enumerate(made.answers)
            ],
            "usage": usage(made),
            "aim": self.about(made, extra),
        }

    def about(self, made: ChatCompletion, extra: Mapping[str, Any]) -> dict[str, Any]:
        """What was shown, and how."""
        return {"demonstrations": list(made.demonstrations), "read": made.read, **extra}

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        """A part of a streamed answer."""
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def usage_chunk(self, made: ChatCompletion) -> dict[str, Any]:
        """The last part, if it was asked for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(made)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


def usage(made: ChatCompletion) -> dict[str, int] | None:
    """Tokens of a request; None where they are not known (a stop string ended a stream)."""
    prompt, answers = made.prompt_tokens, made.completion_tokens
    if prompt is None or answers is None:
        return None
    return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}


def _log_probs(answer: ChatAnswer) -> dict[str, Any] | None:
    """Log-probabilities by token id: what a token is as text depends on its neighbours."""
    if answer.log_probs is None or answer.token_ids is None:
        return None
    named = zip(answer.token_ids, answer.log_probs, strict=True)
    return {
        "content": [
            {"token": f"token_id:{token}", "logprob": value, "bytes": None, "top_logprobs": []}
            for token, value in named
        ],
        "refusal": None,
    }
