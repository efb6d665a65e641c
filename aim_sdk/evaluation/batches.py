"""Answers the queries of one batch in one mode; a query that cannot be answered does not lose the others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aim_sdk.backend.capabilities import ShowsPrompts, find
from aim_sdk.errors import AIMError, ContextLengthError, InputError
from aim_sdk.evaluation.boxes import boxes_text
from aim_sdk.evaluation.demonstrations import Shown
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.protocol import PromptSettings
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.injection.choices import checked_choices, normalized
from aim_sdk.injection.shots import Shots
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.selection.nearest import log_shares, vote, votes_among
from aim_sdk.support.memory import peak
from aim_sdk.support.modes import PROMPTED, READ, SEEN
from aim_sdk.types import Demonstration, ImageInput, Mode, Query


@dataclass(frozen=True, slots=True)
class QueryInContext:
    """One query with the demonstrations before it."""

    item: Item
    query: Query
    shown: Sequence[Shown]
    similarities: Sequence[float] | None = None
    """Of the demonstrations to the query, if they were chosen as the nearest."""

    @property
    def demonstrations(self) -> list[Demonstration]:
        """The demonstrations as the pipeline takes them."""
        return [demonstration for _, demonstration in self.shown]

    def images(self, mode: Mode) -> list[ImageInput]:
        """The images needed to answer it; in some modes demonstrations are shown as texts only."""
        shown = self.demonstrations if mode in SEEN else []
        return [self.query.image, *(item.image for item in shown)]

    @property
    def length(self) -> int:
        """Characters of the prompt: what batches are sorted by."""
        shown = sum(len(item.text) + len(item.answer) for item in self.demonstrations)
        return shown + len(self.query.text)


_TIMED: Final = PROMPTED - {"no-image"}
"""Not the control: its demonstrations are read again for each call."""


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """The answers of one batch, without scores."""

    predictions: list[dict[str, Any]]
    memory_bytes: int | None
    reading_seconds: float


class BatchAnswerer:
    """Answers batches with one pipeline and one prompt."""

    def __init__(self, pipe: AIMPipeline, task: TaskConfig, prompt: PromptSettings, *, may_read: bool = True) -> None:
        """``may_read``: whether demonstrations may be added to the pipeline's bank; a user's own is not changed."""
        self._pipe, self._prompt, self._may_read = pipe, prompt, may_read
        self._choices, self._schema = task.choices or None, task.json_schema
        self._boxes = pipe.boxes if task.kind == "boxes" else None
        self._device = pipe.backend.device

    def read(self, demonstrations: Sequence[Demonstration]) -> float:
        """Put demonstrations into the bank; return the seconds that it took.

        One that cannot be read is left out; the queries that should see it will report it.
        """
        started = time.perf_counter()
        self._pipe.bank.add(demonstrations, on_error=lambda *_: None)
        return time.perf_counter() - started

    def answer(self, asked: Sequence[QueryInContext], mode: Mode) -> AnsweredBatch:
        """Answer one batch; demonstrations that it needs and the bank lacks are read into the bank first."""
        shown = [d for one in asked for d in one.demonstrations if one.similarities is None]
        reading = self.read(shown) if mode in READ and self._may_read else 0.0
        with peak(self._device) as memory:
            predictions = self._fitting(asked, mode)
        return AnsweredBatch(predictions, memory.bytes, reading)

    def first_tokens(self, asked: Sequence[QueryInContext], mode: Mode) -> list[float]:
        """Seconds of each query, asked alone, to its first token; its demonstrations have been read before.

        Queries that are scored and not generated have none, and so has a mode without a prompt, and the control.
        """
        if mode not in _TIMED or asked[0].item.choices:
            return []
        seconds = []
        for one in asked:
            started = time.perf_counter()
            self._pipe.generate([one.query], demonstrations=one.demonstrations, mode=mode, max_new_tokens=1)
            seconds.append(time.perf_counter() - started)
        return seconds

    def example(self, one: QueryInContext, mode: Mode) -> dict[str, Any] | None:
        """The prompt of a query, for people to look at; None if it has no prompt, or could not be asked."""
        if mode == "nearest":
            return None
        try:
            shots = Shots(mode=mode, demonstrations=one.demonstrations)
            (context,) = self._pipe.contexts([one.query], shots=shots)
            shows = find(self._pipe.backend, ShowsPrompts)
            prompt = shows.show_prompt(one.query, context, prompt_format=self._pipe.prompt_format) if shows else None
        except InputError:
            return None
        shown = [(item.text, item.answer) for item in one.demonstrations]
        return {"item": one.item.id, "shots": len(shown), "shown": shown, "prompt": prompt}

    def _fitting(self, asked: Sequence[QueryInContext], mode: Mode) -> list[dict[str, Any]]:
        try:
            return self._answered(asked, mode)
        except InputError as error:
            if len(asked) > 1:  # which ones?
                return [prediction for one in asked for prediction in self._fitting([one], mode)]
            return [self._prediction(asked[0], seconds=None, refused=_reason(error))]

    def _answered(self, asked: Sequence[QueryInContext], mode: Mode) -> list[dict[str, Any]]:
        started = time.perf_counter()
        if mode == "nearest":
            made = self._voted(asked)
        elif asked[0].item.choices:
            made = self._scored(asked, mode)
        else:
            made = self._generated(asked, mode)
        seconds = (time.perf_counter() - started) / len(asked)
        return [self._prediction(one, seconds=seconds, **found) for one, found in zip(asked, made, strict=True)]

    def _generated(self, asked: Sequence[QueryInContext], mode: Mode) -> list[dict[str, Any]]:
        answers = self._pipe.generate(
            [one.query for one in asked],
            demonstrations=[one.demonstrations for one in asked],
            mode=mode,
            choices=self._choices,
            schema=self._schema,
            max_new_tokens=self._prompt.max_new_tokens,
            batch_size=len(asked),
            **self._prompt.generation,
        )
        return [
            {"raw": a.text, "answer": self._finished(a.text, one.query.image), "prompt_tokens": a.prompt_tokens}
            for one, a in zip(asked, answers, strict=True)
        ]

    def _finished(self, text: str, image: ImageInput) -> str:
        """What is scored of a generated text."""
        if self._boxes is not None:
            return boxes_text(self._boxes.read_boxes(text, image))
        return self._prompt.finish(text)

    def _scored(self, asked: Sequence[QueryInContext], mode: Mode) -> list[dict[str, Any]]:
        """Score each query's own choices."""
        queries = [one.query for one in asked]
        choices = [checked_choices(one.item.choices) for one in asked]
        shots = Shots(mode=mode, demonstrations=[one.demonstrations for one in asked])
        found = self._pipe.backend.injector.score_each(
            queries, self._pipe.contexts(queries, shots=shots), choices, prompt_format=self._pipe.prompt_format
        )
        made = []
        for own, scores in zip(choices, found, strict=True):
            log_probs = normalized(scores, own, self._prompt.normalize)
            best = own[log_probs.index(max(log_probs))]
            made.append({"answer": best, "log_probs": log_probs, "prompt_tokens": scores.prompt_tokens})
        return made

    def _voted(self, asked: Sequence[QueryInContext]) -> list[dict[str, Any]]:
        if asked[0].similarities is None:
            queries, shown = [one.query for one in asked], [one.demonstrations for one in asked]
            voted = votes_among(self._pipe.bank, queries, shown, None)
        else:
            voted = [vote(one.similarities or (), [item.answer for item in one.demonstrations]) for one in asked]
        return [_vote(shares, one.item.choices) for one, shares in zip(asked, voted, strict=True)]

    def _prediction(self, one: QueryInContext, **found: Any) -> dict[str, Any]:
        empty = {"raw": None, "answer": None, "prompt_tokens": None, "score": None}
        return {"item": one.item.id, "demonstrations": [name for name, _ in one.shown], **empty, **found}


def _vote(shares: Mapping[str, float], choices: Sequence[str]) -> dict[str, Any]:
    if not choices:
        return {"answer": next(iter(shares)), "prompt_tokens": 0}
    log_probs = log_shares(shares, choices)
    return {"answer": choices[log_probs.index(max(log_probs))], "log_probs": log_probs, "prompt_tokens": 0}


def _reason(error: AIMError) -> str | None:
    """Why a query was not answered; None if its prompt is too long."""
    return None if isinstance(error, ContextLengthError) else str(error)
