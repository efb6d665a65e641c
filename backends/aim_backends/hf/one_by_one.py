"""Families whose batches are not what their rows are alone: every row is run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aim_backends.hf.blame import of_query
from aim_backends.hf.injector import TransformersInjector
from aim_backends.hf.reader import TransformersReader
from aim_backends.hf.writing import check_one_each
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers, PreparedReadings
from aim_sdk.config import PromptFormat
from aim_sdk.layers import LAST
from aim_sdk.types import Context, Demonstration, Generation, Query, Reading


@dataclass(frozen=True, kw_only=True)
class _Readings(PreparedReadings):
    parts: list[PreparedReadings] = field(repr=False)


class ReaderOfOne(TransformersReader):
    """Reads one demonstration at a time."""

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> PreparedReadings:
        options: dict[str, Any] = {"prompt_format": prompt_format, "with_images": with_images, "layers": layers}
        parts = [super(ReaderOfOne, self).prepare([item], **options) for item in demonstrations]
        positions = sum(part.positions for part in parts)
        return _Readings(tuple(demonstrations), prompt_format, with_images, tuple(layers), positions, parts=parts)

    def run(self, prepared: PreparedReadings) -> list[Reading]:
        assert isinstance(prepared, _Readings)
        return [reading for part in prepared.parts for reading in super(ReaderOfOne, self).run(part)]


@dataclass(frozen=True, kw_only=True)
class _Answers(PreparedAnswers):
    parts: list[PreparedAnswers] = field(repr=False)


class InjectorOfOne(TransformersInjector):
    """Answers one query at a time."""

    def generate(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        log_probs: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        check_one_each(queries, contexts)
        options = {"prompt_format": prompt_format, "max_new_tokens": max_new_tokens, "log_probs": log_probs}
        made = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            with of_query(place):
                made += super().generate([query], [context], **options, **generation)  # type: ignore[arg-type]
        return made

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        parts = []
        for place, (query, answer) in enumerate(zip(queries, answers, strict=True)):
            shown = None if contexts is None else [contexts[place]]
            with of_query(place):
                parts.append(
                    super().prepare_answers([query], [answer], prompt_format=prompt_format, ended=ended, contexts=shown)
                )
        ids = tuple(index for part in parts for index in part.token_ids)
        return _Answers(tuple(queries), tuple(answers), ids, prompt_format, ended, parts=parts)

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        assert isinstance(prepared, _Answers)
        check_one_each(prepared.queries, contexts)
        found = []
        for place, (part, context) in enumerate(zip(prepared.parts, contexts, strict=True)):
            with of_query(place):
                found += super().answer_logits(part, [context])
        return found
