"""Measures the facts of a row: whether a prefix that was computed once, and a cached prompt, may be continued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from transformers import DynamicCache

from aim_backends.hf import TransformersBackend
from aim_backends.hf.slots import per_token
from aim_sdk.config import PromptFormat
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import Context, FusedTokens, Query

_NEW: Final[Mapping[str, Any]] = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}


def prefix_reuse(backend: TransformersBackend) -> tuple[str, str]:
    """What is wrong with answers after a prefix that was computed once: for one prompt, and for unequal ones.

    Empty where nothing is: the logits are those of the whole prompt.
    """
    form = backend.default_format
    fused = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    each = (behind_a_prefix(backend, [query], fused, form) for query in QUERIES)
    return next(filter(None, each), ""), behind_a_prefix(backend, QUERIES, fused, form)


def behind_a_prefix(
    backend: TransformersBackend, queries: Sequence[Query], fused: Sequence[FusedTokens], prompt_format: PromptFormat
) -> str:
    """What is wrong with a batch of answers after fused tokens that were computed once; empty if nothing is.

    Every prompt begins with the same fused tokens. If prompts are unequal, padding stands after them.
    """
    prepared = backend.injector.prepare(queries, [fused] * len(queries), prompt_format=prompt_format)
    with backend.injector.injected(prepared):
        expected = _logits(backend.model, prepared.inputs)
    try:
        cache, width = _prefix(backend, queries[0], fused, prompt_format)
        rows: Any = torch.zeros(len(queries), dtype=torch.long)
        cache.reorder_cache(rows)
        if hasattr(backend.model.base_model, "rope_deltas"):  # the injector forgets the last prompt's positions too
            backend.model.base_model.rope_deltas = None
        found = _logits(backend.model, _padded_behind(prepared.inputs, width), past_key_values=cache)
    except Exception as error:  # a family that cannot do it fails in its own way
        return f"{type(error).__name__}: {error}"
    if torch.allclose(found, expected, atol=5e-4, rtol=1e-4):
        return ""
    return f"logits differ by up to {(found - expected).abs().max():.2g}"


def _prefix(
    backend: TransformersBackend, query: Query, fused: Context, prompt_format: PromptFormat
) -> tuple[DynamicCache, int]:
    """Run what stands before a query: BOS, system prompt and fused tokens."""
    prepared = backend.injector.prepare([query], [fused], prompt_format=prompt_format)
    slots = (prepared.inputs["input_ids"][0] == backend.slot).nonzero()
    ids = prepared.inputs["input_ids"][:, : int(slots[-1]) + 1]
    cache = DynamicCache(config=backend.model.config.get_text_config())
    inputs = backend.backbone.text_inputs(ids, torch.ones_like(ids))
    with torch.no_grad(), backend.injector.injected(prepared):
        backend.model(**inputs, past_key_values=cache, use_cache=True)
    return cache, ids.shape[1]


def _padded_behind(inputs: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Move the padding that stands before each row's prefix after it."""
    result = dict(inputs)
    for name in ("input_ids", "attention_mask", *per_token(inputs)):
        if name in inputs:
            rows = [
                torch.cat([row[pad : pad + width], row[:pad], row[pad + width :]])
                for row, pad in zip(inputs[name], (inputs["attention_mask"] == 0).sum(1).tolist(), strict=True)
            ]
            result[name] = torch.stack(rows)
    return result


def _logits(model: Any, inputs: Mapping[str, Tensor], **options: Any) -> Tensor:
    out = model.generate(**inputs, **_NEW, **options, return_dict_in_generate=True, output_logits=True)
    return torch.stack(out.logits, dim=1)


def continued_cache(backend: TransformersBackend) -> str:
    """What is wrong with scores that continue a cached prompt; empty if they are those of the whole texts."""
    form = backend.default_format
    fused = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)

    def scores(continues: bool) -> list[float]:
        with _taken_to_continue(backend, continues):
            rows = backend.injector.score(QUERIES[0], fused, CHOICES, prompt_format=form)
        return [number for row in rows for number in row]

    whole = scores(False)
    try:
        found = scores(True)
    except Exception as error:  # a family that cannot do it fails in its own way
        return f"{type(error).__name__}: {error}"
    off = max(abs(one - other) for one, other in zip(found, whole, strict=True))
    return "" if off < 1e-4 else f"log-probabilities differ by up to {off:.2g}"


@contextmanager
def _taken_to_continue(backend: TransformersBackend, continues: bool) -> Iterator[None]:
    facts = backend.backbone.family
    backend.backbone.family = replace(facts, continues_cache=continues)
    try:
        yield
    finally:
        backend.backbone.family = facts
