"""How the answer's attention splits between the visual and the text tokens of interleaved demonstrations.

A *share* is the part of one layer's attention that falls on all tokens of a kind (see `aim_sdk.AttentionMap`
for what is averaged); the shares of a layer sum to 1. A *density* is a share divided by the number of tokens of its
kind: an image costs many more tokens than its text, so equal shares mean a higher density on the text. The *text
share* is the text's part of the demonstrations' attention alone: text / (text + visual).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from aim_sdk.backend.capabilities import ShowsAttention, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.support.clusters import clustered_error
from aim_sdk.types import Demonstration, Query, TokenKind

TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)
MAX_NEW_TOKENS = 32
"""The longest greedy answer, if the true one is not known."""


@dataclass(frozen=True, slots=True)
class InterleavedPrompt:
    """One query after its demonstrations."""

    query: Query
    demonstrations: Sequence[Demonstration]
    answer: str | None
    """The true answer; None: the backbone's own greedy answer is used."""
    group: str
    """Prompts of one group share demonstrations; standard errors are clustered by it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The attention of one answer."""

    prompt: InterleavedPrompt
    answer: str
    layers: tuple[int, ...]
    tokens: dict[TokenKind, int]
    """How many tokens of each kind the prompt holds."""
    shares: dict[TokenKind, tuple[float, ...]]
    """Each kind's share, layer by layer."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries."""

    mean: float
    standard_error: float | None
    """None where fewer than two independent groups of queries were measured."""


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """What was measured in one layer."""

    layer: int | None
    """Counted from 0; None: the mean over all layers."""
    shares: dict[TokenKind, Estimate]
    densities: dict[TokenKind, float | None]
    """Mean over the queries whose prompts hold such tokens; None if none does."""
    text_share: Estimate | None
    """None if no demonstration is seen at all (a sliding window that ends before them, say)."""


def measure(backend: Backend, prompt: InterleavedPrompt, prompt_format: PromptFormat) -> Measurement:
    """Measure one prompt.

    Raises:
        CapabilityError: the backend does not show its attention.
        InputError: the prompt cannot be used, or the backbone's own answer is empty.
    """
    answer = prompt.answer or _greedy(backend, prompt, prompt_format)
    found = capability(backend, ShowsAttention).attention(
        prompt.query, prompt.demonstrations, answer, prompt_format=prompt_format
    )
    shares = {
        kind: found.weights[:, [n for n, held in enumerate(found.kinds) if held == kind]].sum(1).tolist()
        for kind in TOKEN_KINDS
    }
    counts = Counter(found.kinds)
    return Measurement(
        prompt=prompt,
        answer=answer,
        layers=found.layers,
        tokens={kind: counts[kind] for kind in TOKEN_KINDS},
        shares={kind: tuple(values) for kind, values in shares.items()},
    )


def summarize(measurements: Sequence[Measurement]) -> list[LayerAttention]:
    """Average over queries: one entry per layer, and the mean over the layers last."""
    layers = measurements[0].layers
    rows: list[LayerAttention] = []
    for n, layer in enumerate(layers):
        shares = [{kind: m.shares[kind][n] for kind in TOKEN_KINDS} for m in measurements]
        rows.append(_summarize(layer, measurements, shares))
    means = [{kind: fmean(m.shares[kind]) for kind in TOKEN_KINDS} for m in measurements]
    return [*rows, _summarize(None, measurements, means)]


def text_token_share(measurements: Sequence[Measurement]) -> float:
    """The text's part of the demonstrations' tokens: the text share that uniform attention would give."""
    return fmean(_part(m.tokens["demonstration text"], m.tokens["demonstration visual"]) for m in measurements)


def _summarize(
    layer: int | None, measurements: Sequence[Measurement], shares: Sequence[dict[TokenKind, float]]
) -> LayerAttention:
    groups = [m.prompt.group for m in measurements]
    densities: dict[TokenKind, float | None] = {}
    for kind in TOKEN_KINDS:
        held = [share[kind] / m.tokens[kind] for share, m in zip(shares, measurements, strict=True) if m.tokens[kind]]
        densities[kind] = fmean(held) if held else None
    parts = [_part(share["demonstration text"], share["demonstration visual"]) for share in shares]
    seen = [(part, group) for part, group in zip(parts, groups, strict=True) if not math.isnan(part)]
    return LayerAttention(
        layer=layer,
        shares={kind: _estimate([share[kind] for share in shares], groups) for kind in TOKEN_KINDS},
        densities=densities,
        text_share=_estimate([part for part, _ in seen], [group for _, group in seen]) if seen else None,
    )


def _part(text: float, visual: float) -> float:
    return text / (text + visual) if text + visual else math.nan


def _estimate(values: Sequence[float], groups: Sequence[str]) -> Estimate:
    error = clustered_error(values, groups)
    return Estimate(fmean(values), None if math.isnan(error) else error)


def _greedy(backend: Backend, prompt: InterleavedPrompt, prompt_format: PromptFormat) -> str:
    (answer,) = backend.injector.generate(
        [prompt.query], [prompt.demonstrations], prompt_format=prompt_format, max_new_tokens=MAX_NEW_TOKENS
    )
    if not answer.text:
        raise InputError("the backbone's own answer is empty; give the query's true `answer`.")
    return answer.text
