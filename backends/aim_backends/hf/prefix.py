"""Prompts after a prefix that was computed once: BOS, the system prompt and repeated fused tokens.

A state is a cache of one row. Running a cache writes to it, so every use runs on a copy with as many rows as it needs.
What the cache lacks of a prompt is forwarded by the family's own ``generate``: masks and positions are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache

from aim_backends.hf.slots import per_token
from aim_backends.hf.tap import Injection, injected, recording
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.types import Context, FusedTokens

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone
    from aim_backends.hf.writing import Prepared

_ANY_CACHE: Final[frozenset[str]] = frozenset(
    """
    bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id disable_compile do_sample early_stopping
    encoder_repetition_penalty eos_token_id epsilon_cutoff eta_cutoff exponential_decay_length_penalty
    forced_eos_token_id _from_model_config length_penalty logits_processor max_length max_new_tokens max_time min_length
    min_new_tokens min_p no_repeat_ngram_size num_beams num_return_sequences pad_token_id prefix_allowed_tokens_fn
    remove_invalid_values renormalize_logits repetition_penalty seed sequence_bias stop_strings stopping_criteria
    suppress_tokens temperature tokenizer top_h top_k top_p transformers_version typical_p
    """.split()  # noqa: SIM905
)
"""Options of ``generate`` that look at logits and ids alone; any other may run the prompt in another way."""
ONCE: Final[Mapping[str, Any]] = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "max_new_tokens": 1}
"""What ``generate`` is asked for to run a prompt alone."""


@dataclass(frozen=True, slots=True)
class Continued:
    """A batch of prompts whose prefix is in a cache."""

    inputs: dict[str, Any]
    """The whole prompts, padding after the prefix, and the cache as ``past_key_values``."""
    injection: Injection | None
    """The fused tokens after the prefix."""


def rows_per_prompt(backbone: Backbone, options: Mapping[str, Any]) -> int:
    """How many rows of a cache each prompt takes in ``generate``; 0 if it may not begin with a filled one."""
    asked = {**backbone.model.generation_config.to_diff_dict(), **options}
    if any(name not in _ANY_CACHE and not _usual(name, value) for name, value in asked.items()):
        return 0
    return max(asked.get("num_beams") or 1, asked.get("num_return_sequences") or 1)


def continued(
    backbone: Backbone,
    prefixes: PrefixCache[DynamicCache],
    prepared: Prepared,
    contexts: Sequence[Context],
    rows_each: int,
) -> Continued | None:
    """Put the prompts after what they share, if that is worth it; None: run them whole.

    The backbone's lock is held: another thread that wants the same prefix waits until it is kept.
    """
    equal = len(set(prepared.lengths)) == 1
    if not rows_each or prepared.fused is None or not (equal or backbone.family.prefix.padded):
        return None
    heads = set(_heads(prepared))
    # A tokenizer may merge the system prompt's end with a query's beginning.
    if len(heads) > 1 or (shared := prefixes.shared(head := heads.pop(), contexts)) is None:
        return None
    done, slots = (_tokens(contexts[0][:count]) for count in (shared.done, len(shared.keys)))
    inputs = dict[str, Any](_padded_after(prepared, prefix := len(head) + slots))
    state, kept = shared.state, True
    if state is None or done < slots:
        state = _computed(backbone, inputs["input_ids"][:1, :prefix], prepared.fused.part(1, done, slots), state)
        if kept := (nbytes := _nbytes(state)) <= prefixes.info()["max_bytes"]:
            prefixes.put(head, shared.keys, state, nbytes)
    rows = len(prepared.lengths) * rows_each
    inputs["past_key_values"] = _repeated(deepcopy(state) if kept else state, rows)
    _forget_positions(backbone.model)
    return Continued(inputs, prepared.fused.part(len(prepared.lengths), slots))


@torch.no_grad()
def prefill(backbone: Backbone, inputs: Mapping[str, Any]) -> Any:
    """Run what ``past_key_values`` lacks of the prompts; the model's own output, logits of the last position alone."""
    with recording() as record:
        backbone.generate(**inputs, **ONCE, pad_token_id=backbone.pad_token_id)
    return record.output


def _usual(name: str, value: Any) -> bool:
    """Whether an option asks for what happens anyway."""
    return value is None or (name == "use_cache" and value is True)


def _computed(
    backbone: Backbone,
    ids: Int[Tensor, "1 tokens"],
    fused: Injection | None,
    state: DynamicCache | None,
) -> DynamicCache:
    """Compute a prefix, after the shorter one of ``state``, which lacks the ``fused`` tokens."""
    if state is None:
        cache = DynamicCache(config=backbone.model.config.get_text_config(decoder=True))
    else:
        cache = deepcopy(state)
    _forget_positions(backbone.model)
    with injected(fused):
        prefill(backbone, {**backbone.text_inputs(ids, torch.ones_like(ids)), "past_key_values": cache})
    # Layers with a window keep a view of all that they were given: copy what it shows.
    return _repeated(cache, 1)


def _heads(prepared: Prepared) -> Iterator[tuple[int, ...]]:
    """The ids before each prompt's fused tokens."""
    ids = prepared.inputs["input_ids"]
    for row, length, head in zip(ids.tolist(), prepared.lengths, prepared.heads, strict=True):
        start = ids.shape[1] - length
        yield tuple(row[start : start + head])


def _tokens(context: Context) -> int:
    return sum(len(item) for item in context if isinstance(item, FusedTokens))


def _padded_after(prepared: Prepared, prefix: int) -> dict[str, Tensor]:
    """Move the padding before each prompt after its first ``prefix`` tokens."""
    inputs = dict(prepared.inputs)
    for name in ("input_ids", "attention_mask", *per_token(prepared.inputs)):
        width = inputs[name].shape[1]
        pads = [width - length for length in prepared.lengths]
        inputs[name] = torch.stack([_turned(row, pad, prefix) for row, pad in zip(inputs[name], pads, strict=True)])
    return inputs


def _turned(row: Int[Tensor, "tokens ..."], pad: int, prefix: int) -> Int[Tensor, "tokens ..."]:
    return torch.cat([row[pad : pad + prefix], row[:pad], row[pad + prefix :]])


def _repeated(cache: DynamicCache, rows: int) -> DynamicCache:
    """Make equal rows of the one row of a cache, in new tensors."""
    first: Any = torch.zeros(rows, dtype=torch.long)
    cache.reorder_cache(first)
    return cache


def _nbytes(cache: DynamicCache) -> int:
    return sum(tensor.nbytes for layer in cache.layers for tensor in _tensors(vars(layer).values()))


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value.values())


def _forget_positions(model: Any) -> None:
    """Families with positions of their own in images (mrope) keep the last prompt's on the module, whatever follows."""
    for module in (model, model.base_model):
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None
