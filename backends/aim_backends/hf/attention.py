"""Reads a transformers backbone's attention over an interleaved prompt: the weights of eager attention, layer by layer.

Other attention implementations never hold the weights, so the backbone runs eagerly for one forward. Each layer's
weights are reduced as soon as they are computed: those of a whole model, ``(layers, heads, positions, positions)``,
would fill a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from aim_backends.hf.prompts import PromptRenderer
from aim_backends.hf.slots import append_tokens
from aim_backends.hf.tap import recording
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.types import AttentionMap, Demonstration, Query, TokenKind

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone
    from aim_backends.hf.injector import TransformersInjector


@torch.no_grad()
def read_attention(
    injector: TransformersInjector,
    query: Query,
    demonstrations: Sequence[Demonstration],
    answer: str,
    prompt_format: PromptFormat,
) -> AttentionMap:
    """See `aim_sdk.Backend.attention`."""
    if not answer.strip():
        raise InputError("attention: the answer is blank; it has no tokens that could attend.")
    backbone = injector.backbone
    with backbone.lock:
        prompts = backbone.prompts(prompt_format)
        backbone.check_text([query.text, answer, *(text for d in demonstrations for text in (d.text, d.answer))])
        shown = [(d.text, d.answer) for d in demonstrations]
        text = prompts.whole(shown, query.text)
        tokens = backbone.tokens.continuation(text, prompts.answer(query.text, answer)[0])
        prepared = injector.prepare([query], [demonstrations], prompt_format=prompt_format, max_new_tokens=len(tokens))
        kinds = _kinds(backbone, prompts, shown, text, prepared.inputs["input_ids"][0].tolist())
        kinds += ["answer"] * (len(tokens) - 1)
        seen = torch.tensor([tokens[:-1]], dtype=torch.long, device=backbone.device)
        with eager_attention(backbone.model), _reduced(backbone.model, len(tokens)) as layers, recording():
            backbone.forward(**append_tokens(prepared.inputs, seen), use_cache=False)
    if not layers:
        raise CapabilityError(
            f"{type(backbone.model).__name__} gives no attention weights with eager attention.\n"
            "Next: check that it follows transformers' AttentionInterface."
        )
    weights = torch.stack([layers[layer] for layer in sorted(layers)])
    return AttentionMap(
        # Weights in half precision do not quite sum to 1.
        weights=weights / weights.sum(1, keepdim=True),
        layers=tuple(sorted(layers)),
        kinds=tuple(kinds),
        answer_tokens=len(tokens),
    )


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Run the model with eager attention inside the block; every part gets its own implementation back."""
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        # The outer ones first: setting a configuration sets those inside it.
        for config, implementation in before:
            config._attn_implementation = implementation


@contextmanager
def _reduced(model: Any, rows: int) -> Iterator[dict[int, Float[Tensor, " positions"]]]:
    """Collect the inner LLM's weights by layer inside the block: the mean over heads and the last ``rows``."""
    found: dict[int, Tensor] = {}

    def collect(module: Any, args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.ndim == 4:  # (1, heads, positions, positions)
            found[module.layer_idx] = weights[0, :, -rows:].float().mean((0, 1)).cpu()

    parts = [part for part in model.get_decoder().modules() if isinstance(getattr(part, "layer_idx", None), int)]
    hooks = [part.register_forward_hook(collect) for part in parts]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _kinds(
    backbone: Backbone,
    prompts: PromptRenderer,
    shown: Sequence[tuple[str, str]],
    text: str,
    expanded: Sequence[int],
) -> list[TokenKind]:
    """The kind of each position of a prompt that the processor has expanded."""
    layout = backbone.tokens.layout
    heads = accumulate((prompts.demonstration(*pair).text for pair in shown), initial=prompts.prefix)
    borders = [len(layout.body(head)) for head in heads]  # where each demonstration starts, and the query
    ids, offsets = backbone.tokens.encode(layout(text))
    pieces = [sum(end > border for border in borders) for _, end in offsets]
    images: dict[int, list[int]] = {piece: [] for piece in pieces}  # each piece's image tokens
    for place, (piece, index) in enumerate(zip(pieces, ids, strict=True)):
        if index in backbone.image_ids:
            images[piece].append(place)
    kinds = [
        _kind(piece, len(shown), bool(seen := images[piece]) and seen[0] <= place <= seen[-1])
        for place, piece in enumerate(pieces)
    ]
    origins = backbone.tokens.origins(ids, expanded)
    return ["first", *(kinds[origin] for origin in origins[1:])]


def _kind(piece: int, demonstrations: int, visual: bool) -> TokenKind:
    if piece == 0:
        return "prefix"
    if piece <= demonstrations:
        return "demonstration visual" if visual else "demonstration text"
    return "query visual" if visual else "query text"
