"""Fused tokens that were computed once into a cache: what a backend declares of them is what is measured."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from aim_backends.hf.slots import PER_TOKEN
from tests.conformance.families import QUERIES, Family

NEW = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}


def test_one_prompt_behind_a_shared_prefix(family: Family) -> None:
    reusable = all(_is_the_full_prompt(family, [place]) for place in range(len(QUERIES)))
    assert reusable == family.backend.prefix_reuse, _next(family)


def test_unequal_prompts_behind_a_shared_prefix(family: Family) -> None:
    reusable = _is_the_full_prompt(family, list(range(len(QUERIES))))
    assert reusable == family.backend.prefix_reuse_padded, _next(family)


def _next(family: Family) -> str:
    return f"correct PREFIX_REUSE[{family.plain.config.model_type!r}] in aim_backends/hf/families.py"


def _is_the_full_prompt(family: Family, places: list[int]) -> bool:
    backend = family.backend
    fused = family.text_only(0, 1)
    prepared = backend.injector.prepare(
        [QUERIES[place] for place in places], [fused] * len(places), prompt_format=family.form
    )
    with backend.injector.injected(prepared):
        expected = _logits(backend.model, prepared.inputs)
    try:
        cache, width = _prefix(family)
        cache.reorder_cache(torch.zeros(len(places), dtype=torch.long))
        found = _logits(backend.model, _padded_behind(prepared.inputs, width), past_key_values=cache)
    except Exception:  # a family that cannot do it fails in its own way
        return False
    return torch.allclose(found, expected, atol=5e-4, rtol=1e-4)


def _prefix(family: Family) -> tuple[DynamicCache, int]:
    """Run what stands before the first query: BOS, system prompt and fused tokens."""
    backend = family.backend
    prepared = backend.injector.prepare(QUERIES[:1], [family.text_only(0, 1)], prompt_format=family.form)
    slots = (prepared.inputs["input_ids"][0] == backend.slot).nonzero()
    ids = prepared.inputs["input_ids"][:, : int(slots[-1]) + 1]
    cache = DynamicCache(config=backend.model.config.get_text_config())
    inputs = backend.text_inputs(ids, torch.ones_like(ids))
    with torch.no_grad(), backend.injector.injected(prepared):
        backend.model(**inputs, past_key_values=cache, use_cache=True)
    return cache, ids.shape[1]


def _padded_behind(inputs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Move the padding that stands before each row's prefix behind it."""
    result = dict(inputs)
    for name in ("input_ids", "attention_mask", *PER_TOKEN):
        if name in inputs:
            rows = [
                torch.cat([row[pad : pad + width], row[:pad], row[pad + width :]])
                for row, pad in zip(inputs[name], (inputs["attention_mask"] == 0).sum(1).tolist(), strict=True)
            ]
            result[name] = torch.stack(rows)
    return result


def _logits(model: Any, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    out = model.generate(**inputs, **NEW, **options, return_dict_in_generate=True, output_logits=True)
    return torch.stack(out.logits, dim=1)
