"""Answers queries with fused tokens (or interleaved demonstrations) in a transformers backbone's prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.blame import naming_the_image, of_query
from aim_backends.hf.decoding import Decoding
from aim_backends.hf.prefix import ONCE, behind, copies
from aim_backends.hf.prompts import Prompts
from aim_backends.hf.scoring import score, whole
from aim_backends.hf.slots import insert_slots
from aim_backends.hf.tap import Injection, injected
from aim_sdk.backend.interfaces import Injector
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ContextLengthError, FormatError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.types import ChoiceScores, Context, Demonstration, FusedTokens, Generation, ImageInput, Query

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend


@dataclass(frozen=True, slots=True)
class Prepared:
    """One batch of prompts, ready for ``model(**inputs)`` or ``model.generate(**inputs)``."""

    inputs: dict[str, Tensor]
    """Padded on the left; fused tokens are slots."""
    fused: Float[Tensor, "rows slots embed"] | None
    """The fused tokens of each row, padded on the right; None where no row has any."""
    lengths: tuple[int, ...]
    """Positions of each prompt, without padding."""
    texts: tuple[str, ...]
    """Each prompt as a string."""
    heads: tuple[int, ...]
    """Tokens of each prompt before its fused tokens: BOS, system prompt."""


class TransformersInjector(Injector):
    """Fused tokens enter at id level, behind the prefix (BOS, system prompt) and before the query's turn."""

    def __init__(self, backend: TransformersBackend) -> None:
        self._backend = backend
        self.prefixes = PrefixCache() if backend.prefix_reuse else None

    def prepare(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int = 0,
    ) -> Prepared:
        """Write one batch of prompts: the inputs of the backbone with slots in them, and the fused tokens.

        Gradients flow to the fused tokens' embeddings. Run the backbone inside `injected`.

        Raises:
            InputError: a context mixes kinds, or holds fused tokens of another size.
            ContextLengthError: a prompt with ``max_new_tokens`` behind it is too long for the backbone.
        """
        _check_one_each(queries, contexts)
        shown = [[item for item in context if isinstance(item, Demonstration)] for context in contexts]
        written = self._write(queries, shown, prompt_format)
        return self._inject(written, contexts, queries, prompt_format, max_new_tokens)

    def _write(
        self, queries: Sequence[Query], shown: Sequence[Sequence[Demonstration]], prompt_format: PromptFormat
    ) -> Prepared:
        """Run the processor on prompts without fused tokens."""
        backend = self._backend
        if not backend.supports_interleaved and any(shown):
            kind = backend.model.config.model_type
            raise FormatError(f"{kind!r} takes one image a prompt: demonstrations cannot be interleaved.")
        texts, images, heads = list[str](), list[list[Image]](), list[int]()
        with naming_the_image(backend, _images(queries, shown)), backend.processor_lock:
            prompts = backend.prompts(prompt_format)
            for place, (items, query) in enumerate(zip(shown, queries, strict=True)):
                with of_query(place):
                    texts.append(self._text(prompts, items, query))
                    images.append([load_image(source) for source in (*(d.image for d in items), query.image)])
            inputs = backend.process(texts, images, padding_side="left")
            for place, (text, row) in enumerate(zip(texts, self._rows(inputs), strict=True)):
                with of_query(place):
                    heads.append(backend.tokens.prefix_length(prompts.prefix, text, row))
        return Prepared(inputs, None, tuple(inputs["attention_mask"].sum(1).tolist()), tuple(texts), tuple(heads))

    def _text(self, prompts: Prompts, shown: Sequence[Demonstration], query: Query) -> str:
        """One prompt as a string, whose texts stay texts."""
        backend, texts = self._backend, [(d.text, d.answer) for d in shown]
        backend.check_text([query.text, *(text for pair in texts for text in pair)])
        backend.roles.check_prompt(prompts, texts, query.text)
        return prompts.whole(texts, query.text)

    def _inject(
        self,
        written: Prepared,
        contexts: Sequence[Context],
        queries: Sequence[Query],
        prompt_format: PromptFormat,
        max_new_tokens: int,
    ) -> Prepared:
        """Put the contexts' fused tokens into written prompts."""
        fused = [self._fused(context) for context in contexts]
        counts = [0 if row is None else len(row) for row in fused]
        lengths = tuple(length + count for length, count in zip(written.lengths, counts, strict=True))
        self._check_length(lengths, queries, contexts, prompt_format, max_new_tokens)
        if not any(counts):
            return written
        slot, pad = self._backend.slot, self._backend.pad_token_id
        inputs = insert_slots(written.inputs, counts, written.heads, slot=slot, pad=pad)
        return replace(written, inputs=inputs, fused=self._pad(fused), lengths=lengths)

    def injected(self, prepared: Prepared) -> AbstractContextManager[None]:
        """Inside the block, the backbone's slots are the fused tokens; nothing stays behind."""
        backend, fused = self._backend, prepared.fused
        return injected(None if fused is None else Injection(fused, backend.slot, backend.pad_token_id))

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
        """Answer one batch; ``num_return_sequences=n`` gives n answers a query, one query's behind the other's."""
        if not queries:
            return []
        prepared = self.prepare(queries, contexts, prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        decoding = Decoding(self._backend, prepared.inputs["input_ids"].shape[1], prompt_format.stop)
        options = decoding.options(generation, max_new_tokens, slots=prepared.fused is not None)
        with (
            naming_the_image(self._backend, _images(queries, contexts)),
            self._prompt(prepared, contexts, copies(self._backend, options)) as inputs,
        ):
            answers = decoding.run(inputs, options, log_probs=log_probs)
        each = len(answers) // len(queries)
        return [decoding.generation(answer, prepared.lengths[row // each]) for row, answer in enumerate(answers)]

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        prepared = self.prepare([query], [context], prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        decoding = Decoding(self._backend, prepared.inputs["input_ids"].shape[1], prompt_format.stop)
        options = decoding.options(generation, max_new_tokens, slots=prepared.fused is not None)
        prompt = self._prompt(prepared, [context], copies(self._backend, options))
        return self._streamed(decoding.stream(prompt, options), query, context)

    def _streamed(self, pieces: Iterator[str], query: Query, context: Context) -> Iterator[str]:
        with naming_the_image(self._backend, _images([query], [context])):
            yield from pieces

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
        """One prompt after the other: what the families need behind a padded cache differs too much."""
        _check_one_each(queries, contexts)
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
        with naming_the_image(self._backend, _images([query], [context])), self._backend.lock:
            prepared = self.prepare([query], [context], prompt_format=prompt_format)
            one = replace(prepared, texts=prepared.texts * len(choices))
            tokens = self._answers(one, [query] * len(choices), choices, prompt_format, ended=False)
            self._check_length(prepared.lengths, [query], [context], prompt_format, max(map(len, tokens)))
            once = copies(self._backend, ONCE) if self._backend.continues_cache else 0
            with self._prompt(prepared, [context], once) as inputs:
                found = score(self._backend, inputs, tokens)
        return ChoiceScores(tuple(map(tuple, found)), prepared.lengths[0])

    def prepare_log_probs(
        self, queries: Sequence[Query], answers: Sequence[str], *, prompt_format: PromptFormat, ended: bool = False
    ) -> Callable[[Sequence[Sequence[FusedTokens]]], list[Float[Tensor, " tokens"]]]:
        written = self._write(queries, [[]] * len(queries), prompt_format)
        tokens = self._answers(written, queries, answers, prompt_format, ended=ended)

        def forward(contexts: Sequence[Sequence[FusedTokens]]) -> list[Float[Tensor, " tokens"]]:
            _check_one_each(queries, contexts)
            with naming_the_image(self._backend, _images(queries, contexts)), self._backend.lock:
                prepared = self._inject(written, contexts, queries, prompt_format, max(map(len, tokens)))
                with self.injected(prepared):
                    return whole(self._backend, prepared.inputs, tokens)

        return forward

    def log_probs(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
    ) -> list[Float[Tensor, " tokens"]]:
        if not queries:
            return []
        with naming_the_image(self._backend, _images(queries, contexts)), self._backend.lock:
            prepared = self.prepare(queries, contexts, prompt_format=prompt_format)
            tokens = self._answers(prepared, queries, answers, prompt_format, ended=ended)
            self._check_length(prepared.lengths, queries, contexts, prompt_format, max(map(len, tokens)))
            with self.injected(prepared):
                return whole(self._backend, prepared.inputs, tokens)

    @contextmanager
    def _prompt(self, prepared: Prepared, contexts: Sequence[Context], copies: int) -> Iterator[dict[str, Any]]:
        """Inside the block, the backbone is locked and its slots are the fused tokens; yields its inputs.

        Prompts that share what was computed before stand behind it, in a cache of ``copies`` rows each; 0: they do not.
        """
        backend, prefixes = self._backend, self.prefixes
        with backend.lock:
            found = None if prefixes is None else behind(backend, prefixes, prepared, contexts, copies)
            with self.injected(prepared) if found is None else injected(found.injection):
                yield dict(prepared.inputs) if found is None else found.inputs

    def _answers(
        self,
        written: Prepared,
        queries: Sequence[Query],
        answers: Sequence[str],
        prompt_format: PromptFormat,
        *,
        ended: bool,
    ) -> list[list[int]]:
        """The tokens of each prompt's answer behind it."""
        backend = self._backend
        backend.check_text(answers)
        prompts, found = backend.prompts(prompt_format), []
        for text, query, answer in zip(written.texts, queries, answers, strict=True):
            own, end = prompts.answer(query.text, answer)
            lead, end = own[: len(own) - len(answer.strip())], end if ended else ""
            found.append(backend.tokens.continuation(text, own, end))
            backend.roles.check_answer(answer, lead, end, found[-1])
        return found

    def _fused(self, context: Context) -> Float[Tensor, "slots embed"] | None:
        kinds = {type(item) for item in context}
        if kinds - {FusedTokens, Demonstration} or len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(f"a context holds {names}; expected fused tokens alone or demonstrations alone.")
        rows = [item.embeddings for item in context if isinstance(item, FusedTokens)]
        size = self._backend.embedding_size
        if any(row.ndim != 2 or row.shape[1] != size for row in rows):
            shapes = sorted({tuple(row.shape) for row in rows})
            raise InputError(f"fused tokens of shape {shapes}; this backbone needs (tokens, {size}).")
        weight = self._backend.model.get_input_embeddings().weight
        return torch.cat([row.to(weight.device, weight.dtype) for row in rows]) if rows else None

    def _pad(self, fused: Sequence[Float[Tensor, "slots embed"] | None]) -> Float[Tensor, "rows slots embed"]:
        known = next(row for row in fused if row is not None)
        return pad_sequence([known[:0] if row is None else row for row in fused], batch_first=True)

    def _rows(self, inputs: dict[str, Tensor]) -> list[list[int]]:
        ids, masks = inputs["input_ids"].tolist(), inputs["attention_mask"].tolist()
        rows = [[i for i, keep in zip(row, mask, strict=True) if keep] for row, mask in zip(ids, masks, strict=True)]
        if any(self._backend.slot in row for row in rows):
            raise FormatError("the prompt itself holds the token that marks fused tokens; remove it from the text.")
        return rows

    def _check_length(
        self,
        lengths: Sequence[int],
        queries: Sequence[Query],
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        new: int,
    ) -> None:
        limit = self._backend.context_length
        row = max(range(len(lengths)), key=lambda i: lengths[i])
        if limit is None or lengths[row] + new <= limit:
            return
        context, total, query = contexts[row], lengths[row], queries[row]
        (bare,) = self.prepare([query], [[]], prompt_format=prompt_format).lengths if context else (total,)
        room, cost = limit - new - bare, total - bare
        which = f" of query {row + 1} of {len(queries)} ({query.text[:60]!r})" if len(queries) > 1 else ""
        more = f" and {new:,} are to follow" if new else ""
        message = f"the prompt{which} has {total:,} tokens{more}, but {limit:,} fit into this backbone."
        if context and room > 0:
            fits = max(0, min(len(context) - 1, room * len(context) // cost))
            message += (
                f"\n{cost:,} of them are {len(context)} demonstrations; about {fits} demonstrations fit beside the "
                f"query.\nNext: use shots={fits}, or shorter demonstrations."
            )
        else:  # it does not fit alone
            message += "\nNext: shorten the text, scale the image down, or lower max_new_tokens."
        error = ContextLengthError(message)
        error.query = row
        raise error


def _images(queries: Sequence[Query], contexts: Sequence[Context]) -> list[list[ImageInput]]:
    """The images of each prompt."""
    return [
        [*(item.image for item in context if isinstance(item, Demonstration)), query.image]
        for query, context in zip(queries, contexts, strict=False)
    ]


def _check_one_each(queries: Sequence[Query], contexts: Sequence[Context]) -> None:
    if len(queries) != len(contexts):
        raise InputError(f"{len(queries)} queries, but {len(contexts)} contexts; expected one context a query.")
