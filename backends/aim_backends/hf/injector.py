"""Answers queries with fused tokens (or interleaved demonstrations) in a transformers backbone's prompt."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from transformers import DynamicCache

from aim_backends.hf.blame import naming_the_image, of_query
from aim_backends.hf.decoding import Decoding, Generated, end_tokens, special_start
from aim_backends.hf.generation_settings import CallerOptions
from aim_backends.hf.prefix import ONCE, continued, rows_per_prompt
from aim_backends.hf.scoring import score, whole
from aim_backends.hf.tap import injected
from aim_backends.hf.writing import Prepared, PromptWriter, check_one_each, images_of
from aim_sdk.backend.constraints import Constraint, OneOf
from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.backend.injector import Injector
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.types import ChoiceScores, Context, Demonstration, Generation, Query

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers(PreparedAnswers):
    """Queries whose prompts are written, without the fused tokens before them."""

    written: Prepared | None = field(repr=False)
    """None if there are no queries."""
    shown: Sequence[Sequence[Demonstration]] = field(repr=False)
    """The demonstrations with their images in each prompt."""


class TransformersInjector(Injector):
    """Runs prompts with slots in them, whose embeddings are fused tokens."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.writer = backbone, PromptWriter(backbone)
        self._constraint: Constraint | None = None
        self.prefixes: PrefixCache[DynamicCache] = PrefixCache()
        """Stays empty if the family's prompts must be computed whole."""

    def prepare(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int = 0,
    ) -> Prepared:
        """Write one batch of prompts; see `PromptWriter.prepare`. Run the backbone inside `injected`."""
        return self.writer.prepare(queries, contexts, prompt_format=prompt_format, max_new_tokens=max_new_tokens)

    def injected(self, prepared: Prepared) -> AbstractContextManager[None]:
        """Inside the block, the backbone's slots are the fused tokens; nothing stays injected."""
        return injected(prepared.fused)

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
        """Answer one batch; ``num_return_sequences=n`` gives n answers per query, one query's after the other's."""
        if not queries:
            return []
        prepared, decoding, options = self._decoding(queries, contexts, prompt_format, max_new_tokens, generation)
        with (
            naming_the_image(self.backbone, images_of(queries, contexts)),
            self._prompt(prepared, contexts, rows_per_prompt(self.backbone, options)) as inputs,
        ):
            answers = decoding.run(inputs, options, log_probs=log_probs)
        each = len(answers) // len(queries)
        made = []
        for row, answer in enumerate(answers):
            with of_query(row // each):
                made.append(decoding.generation(answer, prepared.lengths[row // each]))
        return made

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        prepared, decoding, options = self._decoding([query], [context], prompt_format, max_new_tokens, generation)
        prompt = self._prompt(prepared, [context], rows_per_prompt(self.backbone, options))
        return self._streamed(decoding.stream(prompt, options), query, context, decoding, prepared.lengths[0])

    def constrained(self, constraint: Constraint) -> TransformersInjector:
        """See `aim_sdk.backend.capabilities.ConstrainsAnswers`."""
        AnswerGrammar(self.backbone.token_bytes, constraint)  # which refuses a schema that is not valid
        if isinstance(constraint, OneOf):
            self.backbone.check_text(constraint.choices)
        made = copy(self)
        made._constraint = constraint
        return made

    def _decoding(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        max_new_tokens: int,
        generation: Mapping[str, Any],
    ) -> tuple[Prepared, Decoding, dict[str, Any]]:
        """The prompts, and how answers to them are generated."""
        generation = CallerOptions.checked(generation)
        ends, stop, grammar = end_tokens(self.backbone, generation), prompt_format.stop, None
        if self._constraint is not None:
            mark = special_start(self.backbone, stop)
            ends, written = (ends, stop) if mark is None else (ends | {mark}, None)
            lead = len(prompt_format.pieces()[1]) if prompt_format.kind == "plain" else 1
            grammar = AnswerGrammar(self.backbone.token_bytes, self._constraint, ends=ends, lead=lead, stop=written)
            max_new_tokens = grammar.limit(max_new_tokens)
        prepared = self.prepare(queries, contexts, prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        width = prepared.inputs["input_ids"].shape[1]
        decoding = Decoding(self.backbone, width, stop, ends, grammar, generation)
        return prepared, decoding, decoding.options(max_new_tokens, slots=prepared.fused is not None)

    def _streamed(
        self,
        pieces: Generator[str, None, Generated],
        query: Query,
        context: Context,
        decoding: Decoding,
        length: int,
    ) -> Generator[str, None, Generation]:
        with naming_the_image(self.backbone, images_of([query], [context])):
            made = yield from pieces
        return decoding.generation(made, length)

    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        return [list(row) for row in self._scored(query, context, choices, prompt_format).log_probs]

    def score_batch(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[str],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Score one prompt after the other: families differ too much in what they need after a padded cache."""
        check_one_each(queries, contexts)
        made = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            with of_query(place):
                made.append(self._scored(query, context, choices, prompt_format))
        return made

    def _scored(
        self, query: Query, context: Context, choices: Sequence[str], prompt_format: PromptFormat
    ) -> ChoiceScores:
        if any(not choice.strip() for choice in choices):
            raise InputError("score: a choice is blank; it has no tokens to score.")
        if not choices:
            return ChoiceScores(())
        with naming_the_image(self.backbone, images_of([query], [context])), self.backbone.lock:
            prepared = self.prepare([query], [context], prompt_format=prompt_format)
            one = replace(prepared, texts=prepared.texts * len(choices))
            tokens = self.answer_ids(one, [query] * len(choices), choices, prompt_format, ended=False)
            self.writer.check_length(prepared.lengths, [query], [context], prompt_format, max(map(len, tokens)))
            once = rows_per_prompt(self.backbone, ONCE) if self.backbone.family.continues_cache else 0
            with self._prompt(prepared, [context], once) as inputs:
                found = score(self.backbone, inputs, tokens)
        return ChoiceScores(tuple(map(tuple, found)), prepared.lengths[0])

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        """See `aim_sdk.backend.capabilities.Trainable`."""
        shown = _shown(contexts) if contexts is not None else [[] for _ in queries]
        written = self.writer.written(queries, shown, prompt_format) if queries else None
        tokens = self.answer_ids(written, queries, answers, prompt_format, ended=ended) if written else []
        ids = tuple(map(tuple, tokens))
        return WrittenAnswers(tuple(queries), tuple(answers), ids, prompt_format, ended, written=written, shown=shown)

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        """See `aim_sdk.backend.capabilities.Trainable`."""
        assert isinstance(prepared, WrittenAnswers)
        queries, form = prepared.queries, prepared.prompt_format
        check_one_each(queries, contexts)
        if prepared.written is None:
            return []
        written: Prepared = prepared.written
        tokens: Sequence[Sequence[int]] = prepared.token_ids
        shown = _shown(contexts)
        with naming_the_image(self.backbone, images_of(queries, contexts)), self.backbone.lock:
            if not _same(shown, prepared.shown):  # the text before the answer is another one
                written = self.writer.written(queries, shown, form)
                tokens = self.answer_ids(written, queries, prepared.answers, form, ended=prepared.ended)
            prompts = self.writer.with_fused(written, contexts, queries, form, max(map(len, tokens)))
            with self.injected(prompts):
                return whole(self.backbone, prompts.inputs, tokens)

    @contextmanager
    def _prompt(self, prepared: Prepared, contexts: Sequence[Context], rows: int) -> Iterator[dict[str, Any]]:
        """Inside the block, the backbone is locked and its slots are the fused tokens; yields its inputs.

        Prompts that share a computed prefix come after it, in a cache of ``rows`` rows each; 0: they do not.
        """
        backbone, shares = self.backbone, self.backbone.family.prefix.alone
        with backbone.lock:
            found = continued(backbone, self.prefixes, prepared, contexts, rows) if shares else None
            with self.injected(prepared) if found is None else injected(found.injection):
                yield dict(prepared.inputs) if found is None else found.inputs

    def answer_ids(
        self,
        written: Prepared,
        queries: Sequence[Query],
        answers: Sequence[str],
        prompt_format: PromptFormat,
        *,
        ended: bool,
    ) -> list[list[int]]:
        """The tokens of each prompt's answer after it."""
        backbone = self.backbone
        backbone.check_text(answers)
        prompts, found = backbone.prompts(prompt_format), []
        for text, query, answer in zip(written.texts, queries, answers, strict=True):
            own, end = prompts.answer(query.text, answer)
            lead, end = own[: len(own) - len(answer.strip())], end if ended else ""
            found.append(backbone.tokens.continuation(text, own, end))
            backbone.roles.check_answer(answer, lead, end, found[-1])
        return found


def _shown(contexts: Sequence[Context]) -> list[list[Demonstration]]:
    """The demonstrations with their images in each context."""
    return [[item for item in context if isinstance(item, Demonstration)] for context in contexts]


def _same(found: Sequence[Sequence[Demonstration]], known: Sequence[Sequence[Demonstration]]) -> bool:
    """Whether the demonstrations are the very same: comparing their images would take as long as decoding them."""
    return [list(map(id, row)) for row in found] == [list(map(id, row)) for row in known]
