"""Reads pocket's attention over an interleaved prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aim_backends.pocket.injector import PocketInjector
from aim_backends.pocket.model import PocketModel
from aim_backends.shared.lengths import check_length
from aim_backends.shared.segments import PromptSegments, SegmentWriter
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.types import AttentionMap, Demonstration, Query, TokenKind


def read_attention(
    model: PocketModel,
    injector: PocketInjector,
    query: Query,
    demonstrations: Sequence[Demonstration],
    answer: str,
    prompt_format: PromptFormat,
) -> AttentionMap:
    """See `aim_sdk.Backend.attention`."""
    if not answer.strip():
        raise InputError("attention: the answer is blank; it has no tokens that could attend.")
    prompts = SegmentWriter(model)
    tokens = prompts.choice(answer, prompt_format)
    context, asked = injector.contexts([demonstrations], prompt_format)[0], injector.queries([query], prompt_format)[0]
    check_length("pocket", model.lm.spec.context, [len(context) + len(asked)], len(tokens))
    seen = model.lm.embed(torch.tensor(tokens[:-1], dtype=torch.long, device=model.device))
    segments = prompts.query(query, prompt_format)
    visual = len(asked) - len(segments.before) - len(segments.after)
    kinds = _repeat(("first", 1), ("prefix", len(prompts.opening(prompt_format)) - 1))
    for item in demonstrations:
        shown = prompts.demonstration(item, prompt_format)
        kinds += _kinds(shown, visual, "demonstration visual", "demonstration text")
    kinds += _kinds(segments, visual, "query visual", "query text") + _repeat(("answer", len(seen)))
    weights = model.lm.attention(torch.cat([context, asked, seen])[None], len(tokens))[:, 0]
    return AttentionMap(weights.cpu(), tuple(range(len(weights))), tuple(kinds), len(tokens))


def _kinds(segments: PromptSegments, visual: int, seen: TokenKind, written: TokenKind) -> list[TokenKind]:
    after = len(segments.after) + len(segments.answer)
    return _repeat((written, len(segments.before)), (seen, visual), (written, after))


def _repeat(*runs: tuple[TokenKind, int]) -> list[TokenKind]:
    return [kind for kind, tokens in runs for _ in range(tokens)]
