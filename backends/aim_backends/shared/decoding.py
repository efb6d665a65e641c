"""From a prompt that has been run to the tokens of its answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from aim_backends.shared.text import TextModel
from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.backend.constraints import Constraint
from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.support.finite import not_finite
from aim_sdk.types import Generation

_LOST: Final = -1
"""Instead of a token whose logits are NaN or infinite: it comes to the host with the tokens."""


class Sampling(BaseModel):
    """How the next token is chosen; greedy by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    do_sample: bool = False
    temperature: float = Field(default=1.0, ge=1e-6, le=1e6, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _has_effect(self) -> Sampling:
        for name in ("temperature", "top_p"):
            if not self.do_sample and (value := getattr(self, name)) != 1:
                raise ValueError(f"{name}={value} has an effect only on samples.\nNext: do_sample=True, too")
        return self

    @classmethod
    def parse(cls, options: dict[str, Any], title: str) -> Self:
        """Validate generation options by name and value."""
        for name in options:
            if name not in cls.model_fields:
                raise InputError(f"{title}: {unknown('generation option', name, cls.model_fields)}")
        try:
            return cls(**options)
        except ValidationError as error:
            raise InputError(f"{problem(error)}.") from error


class Prompts(Protocol):
    """Prompts that have been run, and how they go on."""

    @property
    def lengths(self) -> Sequence[int]:
        """Positions of each."""

    @property
    def logits(self) -> Float[Tensor, "batch vocabulary"]:
        """Of what comes next."""

    @abstractmethod
    def step(self, tokens: Sequence[int]) -> None:
        """Run one more token of each; `logits` are then those after it."""


@dataclass(frozen=True)
class Decoder:
    """Makes answers after prompts that have been run; each ends at the string ``stop``, or where its grammar says.

    Args:
        model: the tokenizer.
        prompt_format: its suffix ends an answer.
        max_new_tokens: the longest answer, in tokens; a grammar of choices has a limit of its own.
        sampling: how tokens are chosen.
        constraint: what the answers have to be.
    """

    model: TextModel
    prompt_format: PromptFormat
    max_new_tokens: int
    sampling: Sampling
    constraint: Constraint | None = None

    @cached_property
    def grammar(self) -> AnswerGrammar | None:
        if self.constraint is None:
            return None
        _, blanks, _ = self.prompt_format.pieces()
        stop, lead = self.prompt_format.stop, len(blanks)
        return AnswerGrammar(self.model.token_bytes, self.constraint, ends=self.model.end_ids, lead=lead, stop=stop)

    @property
    def limit(self) -> int:
        """The most tokens of an answer."""
        return self.max_new_tokens if self.grammar is None else self.grammar.limit(self.max_new_tokens)

    def steps(self, prompt: Prompts) -> Iterator[tuple[list[int | None], Tensor]]:
        """Yield one token per row and step (None for rows that have ended) with its logits ``(batch, vocabulary)``."""
        grammar, seed = self.grammar, self.sampling.seed
        device = prompt.logits.device
        generator = None if seed is None else torch.Generator(device).manual_seed(seed)
        rows: list[list[int]] = [[] for _ in prompt.lengths]
        ended = [False] * len(rows)
        for left in range(self.limit, 0, -1):
            logits = prompt.logits
            scores = logits.float() if grammar is None else grammar.admit(rows, logits.float())
            tokens = _choose(scores, self.sampling, generator).tolist()
            chosen = [None if over else int(token) for over, token in zip(ended, tokens, strict=True)]
            if _LOST in chosen:
                error = not_finite("the backbone's logits", logits.dtype)
                error.query = chosen.index(_LOST)
                raise error
            yield chosen, logits
            for row, token in zip(rows, chosen, strict=True):
                row += [] if token is None else [token]
            ended = list(map(self._ended, rows)) if grammar is None else grammar.over(rows)
            if all(ended) or left == 1:
                return
            prompt.step(tokens)

    def answer(self, ids: Sequence[int]) -> str:
        """The answer that some tokens are.

        Raises:
            CutAnswerError: it is not whole.
        """
        if self.grammar is not None:
            return self.grammar.answer(ids)
        return clean_answer(self.model.decode(ids), self.prompt_format.stop)

    def generation(
        self, ids: Sequence[int], prompt_tokens: int, log_probs: tuple[float, ...] | None = None
    ) -> Generation:
        """The answer that some tokens are, with all that is known of it.

        Raises:
            CutAnswerError: it is not whole.
        """
        ended = self._ended(ids) if self.grammar is None else True
        return Generation(self.answer(ids), tuple(ids), prompt_tokens, log_probs, ended=ended)

    def stream(self, prompt: Prompts) -> Generator[str, None, Generation]:
        """Yield an answer's text as soon as it is certain; return the answer."""
        ids: list[int] = []
        length, pieces = prompt.lengths[0], self._pieces(prompt, ids)
        if self.grammar is not None:
            yield from self.grammar.pieces(pieces, ids)
        else:
            yield from stream_answer(pieces, self.prompt_format.stop)
        return self.generation(ids, length)

    @torch.no_grad()
    def _pieces(self, prompt: Prompts, ids: list[int]) -> Iterator[str]:
        """Yield what is said; its tokens are added to ``ids``."""

        def texts() -> Iterator[str]:
            for (token,), _ in self.steps(prompt):
                if token is not None:
                    ids.append(token)
                yield self.model.decode(ids)

        return whole_characters(texts())

    def _ended(self, ids: Sequence[int]) -> bool:
        stop = self.prompt_format.stop
        return ids[-1] in self.model.end_ids or bool(stop and stop in self.model.decode(ids).lstrip())


def whole_characters(texts: Iterable[str]) -> Iterator[str]:
    """Of a text that grows token by token, yield what is new, whole characters at a time."""
    text = sent = ""
    for text in texts:
        if not text.endswith("\ufffd"):  # a character's last byte is still to come
            yield text[len(sent) :]
            sent = text
    yield text[len(sent) :]


def _choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Pick one token per row of logits ``(batch, vocabulary)``; ``_LOST`` where they hold NaN or infinity."""
    lost = ~logits.amax(-1).isfinite()  # with NaN anywhere in a row, the largest is NaN
    if not sampling.do_sample:
        return logits.argmax(-1).masked_fill(lost, _LOST)
    kept = logits.masked_fill(lost[:, None], 0.0)
    below = kept - kept.amax(-1, keepdim=True)  # so that no temperature, however low, makes infinity of the likeliest
    probabilities = F.softmax(below / sampling.temperature, -1)
    ordered, places = probabilities.sort(-1, descending=True)
    beyond = ordered.cumsum(-1) - ordered > sampling.top_p  # the token that crosses top_p stays
    ordered = ordered.masked_fill(beyond, 0.0)
    drawn = places.gather(-1, torch.multinomial(ordered, 1, generator=generator))[:, 0]
    return drawn.masked_fill(lost, _LOST)
