"""Prompts behind a prefix that was computed once: BOS, the system prompt and the fused tokens that come again.

A state is a cache of one row. It is never run on itself: every use runs on a copy with as many rows as it needs. What
the cache lacks of a prompt is forwarded by the family's own ``generate``, so masks and positions are its own.
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

from aim_backends.hf.slots import PER_TOKEN
from aim_backends.hf.tap import Injection, injected, recording
from aim_sdk.prefixes import PrefixCache, SharedPrefix
from aim_sdk.types import Context, FusedTokens

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend
    from aim_backends.hf.injector import Prepared

_ANY_CACHE: Final[frozenset[str]] = frozenset(
    """
    bad_words_ids begin_suppress_tokens bos_token_id do_sample early_stopping encoder_repetition_penalty eos_token_id
    epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_eos_token_id length_penalty logits_processor
    max_length max_new_tokens max_time min_length min_new_tokens min_p no_repeat_ngram_size num_beams
    num_return_sequences pad_token_id prefix_allowed_tokens_fn remove_invalid_values renormalize_logits
    repetition_penalty sequence_bias stop_strings stopping_criteria suppress_tokens temperature tokenizer top_h top_k
    top_p transformers_version typical_p _from_model_config
    """.split()  # noqa: SIM905
)
"""Options of ``generate`` that look at logits and ids alone; any other may run the prompt in another way."""
_USUAL: Final[Mapping[str, object]] = {"use_cache": True, "cache_implementation": "hybrid"}
"""Values that ask for what happens anyway: transformers 5 drops "hybrid", which old checkpoints of Gemma ask for."""
ONCE: Final[Mapping[str, Any]] = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "max_new_tokens": 1}
"""What ``generate`` is asked for to run a prompt alone."""


@dataclass(frozen=True, slots=True)
class Behind:
    """A batch of prompts whose prefix is in a cache."""

    inputs: dict[str, Any]
    """The whole prompts, padding behind the prefix, and the cache as ``past_key_values``."""
    injection: Injection | None
    """The fused tokens behind the prefix."""


def copies(backend: TransformersBackend, options: Mapping[str, Any]) -> int:
    """How many rows of a cache each prompt takes in ``generate``; 0 where it may not begin with a filled one."""
    asked = {**backend.model.generation_config.to_diff_dict(), **options}
    unusual = [name for name, value in asked.items() if value is not None and name not in _ANY_CACHE]
    if any(asked[name] != _USUAL.get(name) for name in unusual):
        return 0
    return max(asked.get("num_beams") or 1, asked.get("num_return_sequences") or 1)


def behind(
    backend: TransformersBackend,
    prefixes: PrefixCache[DynamicCache],
    prepared: Prepared,
    contexts: Sequence[Context],
    copies: int,
) -> Behind | None:
    """Put the prompts behind what they share, if that is worth it; None: run them whole.

    The backbone's lock is held: another thread that wants the same prefix waits until it is kept.
    """
    equal = len(set(prepared.lengths)) == 1
    if not copies or prepared.fused is None or not (equal or backend.prefix_reuse_padded):
        return None
    heads = set(_heads(prepared))
    # A tokenizer may merge the system prompt's end with a query's beginning.
    if len(heads) > 1 or (shared := prefixes.shared(head := heads.pop(), contexts)) is None:
        return None
    done, slots = (_tokens(contexts[0][:count]) for count in (shared.done, len(shared.keys)))
    state = shared.state
    if state is None or done < slots:
        state = _computed(backend, prepared, shared, done, slots)
        prefixes.put(head, shared.keys, state, _nbytes(state))
    inputs = dict[str, Any](_padded_behind(prepared, len(head) + slots))
    inputs["past_key_values"] = _copied(state, len(prepared.lengths) * copies)
    _forget_positions(backend.model)
    return Behind(inputs, _injection(backend, prepared.fused[:, slots:]))


@torch.no_grad()
def prefill(backend: TransformersBackend, inputs: Mapping[str, Any]) -> Any:
    """Run what ``past_key_values`` lacks of the prompts; the model's own output, logits of the last position alone."""
    outputs: list[Any] = []
    hook = backend.model.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        with recording():
            backend.model.generate(**inputs, **ONCE, pad_token_id=backend.pad_token_id)
    finally:
        hook.remove()
    return outputs[0]


def _computed(
    backend: TransformersBackend, prepared: Prepared, shared: SharedPrefix[DynamicCache], done: int, slots: int
) -> DynamicCache:
    """Compute a prefix of ``slots`` fused tokens, behind the ``done`` ones of a shorter one."""
    if shared.state is None:
        cache = DynamicCache(config=backend.model.config.get_text_config(decoder=True))
    else:
        cache = _copied(shared.state, 1)
    ids = prepared.inputs["input_ids"]
    start = ids.shape[1] - prepared.lengths[0]
    ids = ids[:1, start : start + prepared.heads[0] + slots]
    assert prepared.fused is not None
    _forget_positions(backend.model)
    with injected(_injection(backend, prepared.fused[:1, done:slots])):
        prefill(backend, {**backend.text_inputs(ids, torch.ones_like(ids)), "past_key_values": cache})
    # Layers with a window keep a view of all they were given: copy what is seen of it.
    return _repeated(cache, 1)


def _heads(prepared: Prepared) -> Iterator[tuple[int, ...]]:
    """The ids before each prompt's fused tokens."""
    ids = prepared.inputs["input_ids"]
    for row, length, head in zip(ids.tolist(), prepared.lengths, prepared.heads, strict=True):
        start = ids.shape[1] - length
        yield tuple(row[start : start + head])


def _tokens(context: Context) -> int:
    return sum(len(item) for item in context if isinstance(item, FusedTokens))


def _injection(backend: TransformersBackend, fused: Tensor) -> Injection | None:
    return Injection(fused, backend.slot, backend.pad_token_id) if fused.shape[1] else None


def _padded_behind(prepared: Prepared, prefix: int) -> dict[str, Tensor]:
    """Move the padding before each prompt behind its first ``prefix`` tokens."""
    inputs = dict(prepared.inputs)
    for name in {"input_ids", "attention_mask", *PER_TOKEN} & inputs.keys():
        width = inputs[name].shape[1]
        pads = [width - length for length in prepared.lengths]
        inputs[name] = torch.stack([_turned(row, pad, prefix) for row, pad in zip(inputs[name], pads, strict=True)])
    return inputs


def _turned(row: Int[Tensor, "tokens ..."], pad: int, prefix: int) -> Int[Tensor, "tokens ..."]:
    return torch.cat([row[pad : pad + prefix], row[:pad], row[pad + prefix :]])


def _copied(state: DynamicCache, rows: int) -> DynamicCache:
    """A cache of ``rows`` equal rows: running a cache writes to it."""
    cache = deepcopy(state)
    return _repeated(cache, rows) if rows > 1 else cache


def _repeated(cache: DynamicCache, rows: int) -> DynamicCache:
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
