"""Writes a batch of prompts: the processor's inputs with the fused tokens in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.blame import naming_the_image, of_query
from aim_backends.hf.prompts import PromptRenderer
from aim_backends.hf.slots import insert_slots
from aim_backends.hf.tap import Injection
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ContextLengthError, FormatError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.types import Context, Demonstration, FusedTokens, ImageInput, Query


@dataclass(frozen=True, slots=True)
class Prepared:
    """One batch of prompts, ready for ``model(**inputs)`` or ``model.generate(**inputs)``."""

    inputs: dict[str, Tensor]
    """Padded on the left; fused tokens are slots."""
    fused: Injection | None
    """The fused tokens of each row; None if no row has any."""
    lengths: tuple[int, ...]
    """Positions of each prompt, without padding."""
    texts: tuple[str, ...]
    """Each prompt as a string."""
    heads: tuple[int, ...]
    """Tokens of each prompt before its fused tokens: BOS, system prompt."""


class PromptWriter:
    """Fused tokens enter at id level, after the prefix (BOS, system prompt) and before the query's turn.

    Args:
        backbone: whose prompts they are.
        limit: positions that fit, if the engine has fewer than the backbone.
    """

    def __init__(self, backbone: Backbone, limit: int | None = None) -> None:
        self.backbone = backbone
        known = [size for size in (backbone.context_length, limit) if size is not None]
        self._limit = min(known, default=None)

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
            ContextLengthError: a prompt with ``max_new_tokens`` after it is too long for the backbone.
        """
        check_one_each(queries, contexts)
        shown = [[item for item in context if isinstance(item, Demonstration)] for context in contexts]
        written = self.written(queries, shown, prompt_format)
        return self.with_fused(written, contexts, queries, prompt_format, max_new_tokens)

    def written(
        self, queries: Sequence[Query], shown: Sequence[Sequence[Demonstration]], prompt_format: PromptFormat
    ) -> Prepared:
        """Run the processor on prompts without fused tokens."""
        backbone = self.backbone
        if backbone.most_images == 1 and any(shown):
            kind = backbone.model.config.model_type
            raise FormatError(f"{kind!r} takes one image per prompt: demonstrations cannot be interleaved.")
        texts, images, heads = list[str](), list[list[Image]](), list[int]()
        with naming_the_image(backbone, images_of(queries, shown)), backbone.processor_lock:
            prompts = backbone.prompts(prompt_format)
            for place, (items, query) in enumerate(zip(shown, queries, strict=True)):
                with of_query(place):
                    texts.append(self.text(prompts, items, query))
                    images.append([load_image(source) for source in (*(d.image for d in items), query.image)])
            inputs = backbone.process(texts, images, padding_side="left")
            for place, (text, row) in enumerate(zip(texts, self._rows(inputs), strict=True)):
                with of_query(place):
                    heads.append(backbone.tokens.prefix_length(prompts.prefix, text, row))
        return Prepared(inputs, None, tuple(inputs["attention_mask"].sum(1).tolist()), tuple(texts), tuple(heads))

    def text(self, prompts: PromptRenderer, shown: Sequence[Demonstration], query: Query) -> str:
        """One prompt as a string, whose texts stay texts."""
        backbone, texts = self.backbone, [(d.text, d.answer) for d in shown]
        backbone.check_text([query.text, *(text for pair in texts for text in pair)])
        backbone.roles.check_prompt(prompts, texts, query.text)
        return prompts.whole(texts, query.text)

    def with_fused(
        self,
        written: Prepared,
        contexts: Sequence[Context],
        queries: Sequence[Query],
        prompt_format: PromptFormat,
        max_new_tokens: int,
    ) -> Prepared:
        """Put the contexts' fused tokens into written prompts."""
        fused = [self._fused(context) for context in contexts]
        counts = [len(row) for row, _ in fused]
        lengths = tuple(length + count for length, count in zip(written.lengths, counts, strict=True))
        self.check_length(lengths, queries, contexts, prompt_format, max_new_tokens)
        if not any(counts):
            return written
        slot, pad = self.backbone.slot, self.backbone.pad_token_id
        inputs = insert_slots(written.inputs, counts, written.heads, slot=slot, pad=pad)
        return replace(written, inputs=inputs, fused=_injection(fused, slot), lengths=lengths)

    def _fused(self, context: Context) -> tuple[Float[Tensor, "slots embed"], Int[Tensor, " slots"]]:
        """A context's fused tokens, and the ids that they stand for; the slot's where that is not known."""
        kinds = {type(item) for item in context}
        if kinds - {FusedTokens, Demonstration} or len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(f"a context holds {names}; expected fused tokens alone or demonstrations alone.")
        found = [item for item in context if isinstance(item, FusedTokens)]
        rows, size = [item.embeddings for item in found], self.backbone.embedding_size
        if any(row.ndim != 2 or row.shape[1] != size for row in rows):
            shapes = sorted({tuple(row.shape) for row in rows})
            raise InputError(f"fused tokens of shape {shapes}; this backbone needs (tokens, {size}).")
        weight = self.backbone.model.get_input_embeddings().weight
        none = torch.zeros(0, size, device=weight.device, dtype=weight.dtype)
        embeddings = torch.cat([none, *(row.to(weight.device, weight.dtype) for row in rows)])
        ids = torch.cat([none.new_zeros(0, dtype=torch.long, device="cpu"), *map(self._ids, found)])
        return embeddings, ids.to(weight.device)

    def _ids(self, fused: FusedTokens) -> Int[Tensor, " slots"]:
        backbone = self.backbone
        if fused.token_ids is None:
            return torch.full((len(fused),), backbone.slot)
        ids = fused.token_ids.cpu()
        if ids.shape != fused.embeddings.shape[:1] or not backbone.is_text(ids):
            raise InputError(
                "fused tokens with token_ids that are not text of this backbone, one for each.\n"
                "Next: read their demonstrations again."
            )
        return ids

    def _rows(self, inputs: dict[str, Tensor]) -> list[list[int]]:
        ids, masks = inputs["input_ids"].tolist(), inputs["attention_mask"].tolist()
        rows = [[i for i, keep in zip(row, mask, strict=True) if keep] for row, mask in zip(ids, masks, strict=True)]
        if any(self.backbone.slot in row for row in rows):
            raise FormatError("the prompt itself holds the token that marks fused tokens; remove it from the text.")
        return rows

    def check_length(
        self,
        lengths: Sequence[int],
        queries: Sequence[Query],
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        new: int,
    ) -> None:
        limit = self._limit
        row = max(range(len(lengths)), key=lambda i: lengths[i])
        if limit is None or lengths[row] + new <= limit:
            return
        context, total, query = contexts[row], lengths[row], queries[row]
        (bare,) = self.written([query], [[]], prompt_format).lengths if context else (total,)
        room, cost = limit - new - bare, total - bare
        which = f" of query {row + 1} of {len(queries)} ({query.text[:60]!r})" if len(queries) > 1 else ""
        more = f" and {new:,} are to be generated" if new else ""
        message = f"the prompt{which} has {total:,} tokens{more}, but {limit:,} fit into this backbone."
        if context and room > 0:
            fits = max(0, min(len(context) - 1, room * len(context) // cost))
            message += (
                f"\n{cost:,} of them are {len(context)} demonstrations; about {fits} demonstrations fit with the "
                f"query.\nNext: use shots={fits}, or shorter demonstrations."
            )
        else:  # it does not fit alone
            message += "\nNext: shorten the text, scale the image down, or lower max_new_tokens."
        error = ContextLengthError(message)
        error.query = row
        raise error


def _injection(fused: Sequence[tuple[Float[Tensor, "slots embed"], Int[Tensor, " slots"]]], slot: int) -> Injection:
    embeddings, ids = (pad_sequence(list(rows), batch_first=True) for rows in zip(*fused, strict=True))
    return Injection(embeddings, ids, slot)


def images_of(queries: Sequence[Query], contexts: Sequence[Context]) -> list[list[ImageInput]]:
    """The images of each prompt."""
    return [
        [*(item.image for item in context if isinstance(item, Demonstration)), query.image]
        for query, context in zip(queries, contexts, strict=False)
    ]


def check_one_each(queries: Sequence[Query], contexts: Sequence[Context]) -> None:
    if len(queries) != len(contexts):
        raise InputError(f"{len(queries)} queries, but {len(contexts)} contexts; expected one context per query.")
