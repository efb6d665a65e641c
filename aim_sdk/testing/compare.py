"""What the checks share: how close two numbers must be, and which modules a backbone runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from aim_sdk.backend.capabilities import ShowsPrompts, Trainable, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.config import PromptFormat
from aim_sdk.testing.kit import CheckFailure
from aim_sdk.testing.precision import allowed
from aim_sdk.types import Context, Demonstration, FusedTokens, Query

_SHOWN = 600
"""Characters of a prompt in a message."""


def require(holds: bool, message: str) -> None:
    """Raise `CheckFailure` unless something holds."""
    if not holds:
        raise CheckFailure(message)


def require_close(found: Tensor, expected: Tensor, backend: Backend, what: str) -> None:
    """Compare two tensors as closely as the check states for the backbone's dtype."""
    require(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}; expected {tuple(expected.shape)}")
    most = tolerance(backend, expected)
    apart = float((found.float() - expected.float()).abs().max()) if found.numel() else 0.0
    require(apart <= most, f"{what}: they differ by up to {apart:.2g}; allowed is {most:.2g}")


def tolerance(backend: Backend, expected: Tensor) -> float:
    """How far two computations of the same numbers may be apart."""
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return allowed(backend.dtype) * max(1.0, largest)


def flat(scores: Sequence[Sequence[float]]) -> Tensor:
    """The token log-probabilities of all choices, one after the other."""
    return torch.tensor([number for row in scores for number in row])


def require_same_scores(
    found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]], backend: Backend, what: str
) -> None:
    """Compare the token log-probabilities of several choices."""
    require(list(map(len, found)) == list(map(len, expected)), f"{what}: the choices have other numbers of tokens")
    require_close(flat(found), flat(expected), backend, what)


def shown(backend: Backend, query: Query, context: Context, form: PromptFormat) -> str:
    """A prompt for a message, shortened: decoded from its tokens if the backend shows them."""
    if (shows := find(backend, ShowsPrompts)) is not None:
        text = shows.show_prompt(query, context, prompt_format=form)
    else:
        text = "".join(_pieces(query, context, form))
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}")


def spelled(form: PromptFormat) -> str:
    """A format for a message."""
    kind = f"the plain format {form.template!r}" if form.kind == "plain" else f"the {form.kind} format"
    return f"{kind} with the system text {form.system!r}" if form.system else f"{kind} without a system text"


def _pieces(query: Query, context: Context, form: PromptFormat) -> Iterator[str]:
    """A prompt as far as its format tells: a chat template is the backend's own."""
    yield (form.system or "") if form.kind == "plain" else f"({spelled(form)}) "
    for fused, items in groupby(context, lambda item: isinstance(item, FusedTokens)):
        group = list(items)
        if fused:
            yield f"[{sum(map(len, group))} fused tokens of {len(group)} demonstrations]"  # type: ignore[arg-type]
        else:
            yield from (_turn(item, form) for item in group)  # type: ignore[arg-type]
    yield _turn(query, form)


def _turn(item: Demonstration | Query, form: PromptFormat) -> str:
    answer = item.answer if isinstance(item, Demonstration) else None
    if form.kind != "plain":
        return f"[image]{item.text}\n" if answer is None else f"[image]{item.text} -> {answer}\n"
    asked, lead, end = form.pieces()
    text = asked.format(image="[image]", text=item.text)
    return text if answer is None else text + lead + answer + end


def log_probs(
    backend: Backend,
    queries: Sequence[Query],
    contexts: Sequence[Context],
    answers: Sequence[str],
    *,
    prompt_format: PromptFormat,
    ended: bool = False,
) -> list[Tensor]:
    """The token log-probabilities of one answer per query, through which gradients flow."""
    found = answer_logits(backend, queries, contexts, answers, prompt_format=prompt_format, ended=ended)
    return [one.log_probs for one in found]


def answer_logits(
    backend: Backend,
    queries: Sequence[Query],
    contexts: Sequence[Context],
    answers: Sequence[str],
    *,
    prompt_format: PromptFormat,
    ended: bool = False,
) -> list[AnswerLogits]:
    """The logits at the positions of one answer per query."""
    trainable = capability(backend, Trainable)
    prepared = trainable.prepare_answers(queries, answers, prompt_format=prompt_format, ended=ended)
    return trainable.answer_logits(prepared, contexts)


@contextmanager
def before_each_module(hook: Callable[[nn.Module], None]) -> Iterator[None]:
    """Call ``hook`` before the forward of every torch module that runs inside the block."""

    def run(module: nn.Module, args: Any) -> None:
        hook(module)

    handle = register_module_forward_pre_hook(run)
    try:
        yield
    finally:
        handle.remove()
