"""What a backend says about itself: types, fingerprint, slot."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aim_sdk.backend.capabilities import HasVocabulary, MarksSlots, ReusesPrefixes, RunsInTorch, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prefixes import MIN_TOKENS
from aim_sdk.backend.registry import list_backends
from aim_sdk.config import Fingerprint
from aim_sdk.testing.compare import before_each_module, require, require_same_scores
from aim_sdk.testing.kit import NotApplicable, check, heart, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens, Generation, Reading

_RARE = "§ ¤ ¶"
"""Its tokens are in no prompt of the checks."""
_SAVED = "float16 rounds other numbers than a checkpoint does, and a fingerprint is of the checkpoint's"


@heart
def check_return_types(backend: Backend) -> None:
    """Readings, fused tokens, answers and scores have the types of the interface.

    Catches lists for tensors and tensors for numbers, which fail later, in a bank, a file or a training.
    """
    form = backend.default_format
    (reading,) = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)
    (tokens,) = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    (made,) = backend.injector.generate(QUERIES[:1], [[]], prompt_format=form, max_new_tokens=2, log_probs=True)
    scores = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    ids = reading.token_ids
    whole = isinstance(ids, Tensor) and ids.ndim == 1 and not ids.is_floating_point()
    listed = type(scores) is list and all(type(row) is list and _all(tuple(row), float) for row in scores)
    asked: list[tuple[str, str, bool, object]] = [
        ("read", "a list of `Reading`", isinstance(reading, Reading), reading),
        ("Reading.token_ids", "a one-dimensional tensor of integers", whole, ids),
        ("Reading.hidden", "a tensor (tokens, hidden)", _matrix(reading.hidden), reading.hidden),
        ("Reading.image_position", "int", type(reading.image_position) is int, reading.image_position),
        ("Reading.answer_start", "int", type(reading.answer_start) is int, reading.answer_start),
        ("text_only", "a list of `FusedTokens`", isinstance(tokens, FusedTokens), tokens),
        ("generate", "a list of `Generation`", isinstance(made, Generation), made),
        ("Generation.text", "str", type(made.text) is str, made.text),
        ("Generation.token_ids", "a tuple of int", _all(made.token_ids, int), made.token_ids),
        ("Generation.prompt_tokens", "int", type(made.prompt_tokens) is int, made.prompt_tokens),
        ("Generation.log_probs", "a tuple of float", _all(made.log_probs, float), made.log_probs),
        ("score", "a list of lists of float", listed, scores),
        ("Backend.fingerprint", "`Fingerprint`", isinstance(backend.fingerprint, Fingerprint), backend.fingerprint),
    ]
    bad = [f"{what}: expected {expected}; got {_kind(got)}" for what, expected, holds, got in asked if not holds]
    require(not bad, "\n".join(bad))


@check
@close("hash", bfloat16=0, float16=_SAVED, float32=0)
def check_fingerprint(backend: Backend) -> None:
    """The fingerprint's sizes are the matrices', and a weight that changes changes it, whichever it is.

    Catches constant hashes and hashes of a part: a bank or a projector of another checkpoint would be taken.
    """
    usual = backend.fingerprint
    if (showing := find(backend, HasVocabulary)) is not None:
        sizes = showing.vocabulary.outputs.shape[1], showing.vocabulary.inputs.shape[1]
        found = usual.hidden_size, usual.embedding_size
        require(found == sizes, f"the fingerprint's sizes are {found}; the LM head and the embeddings have {sizes}")
    require(usual.backend == backend.name, f"the fingerprint is of backend {usual.backend!r}, not {backend.name!r}")
    if usual.weights_hash is None:
        raise NotApplicable("the fingerprint has no hash of the weights")
    named = [(name, p) for module in _modules(backend) for name, p in module.named_parameters() if p.numel() > 1]
    if not named:
        raise NotApplicable("the backend names no torch modules (`modules`)")
    for name, parameter in {named[place] for place in (0, len(named) // 2, len(named) - 1)}:
        before = parameter.detach().clone()
        try:
            with torch.no_grad():
                parameter.add_(1)
            other = _afresh(backend)
        finally:
            with torch.no_grad():
                parameter.copy_(before)
        require(other.weights_hash != usual.weights_hash, f"{name} changed, and the weights' hash is the same")
    require(_afresh(backend).weights_hash == usual.weights_hash, "the weights are unchanged, but their hash changed")


@check
def check_declarations(backend: Backend) -> None:
    """What a backend declares of itself is true: its name, its torch modules, whether it shares prefixes.

    Catches a class that is registered under another name than its `name`, modules that are not in `modules` (training
    proves that those stay frozen, and a fingerprint is checked by them), and prefixes that are kept undeclared: their
    exactness is promised by nobody.
    """
    registered = _registered_names(type(backend))
    require(
        not registered or backend.name in registered,
        f"it is registered as {' and '.join(map(repr, registered))}, and its `name` is {backend.name!r}: fingerprints "
        f"and artifacts would name a backend that cannot be loaded",
    )
    form, ran = backend.default_format, dict[int, nn.Module]()
    with before_each_module(lambda module: ran.update({id(module): module})):
        backend.injector.score(QUERIES[0], [], CHOICES[:1], prompt_format=form)
    named = {id(p) for module in _modules(backend) for p in module.parameters()}
    missing = [m for m in ran.values() if any(id(p) not in named for p in m.parameters(recurse=False))]
    require(
        not missing,
        f"{len(missing)} torch modules ran whose parameters are not those of `modules`, such as "
        f"{', '.join(type(module).__name__ for module in missing[:3])}; `modules` is {_short(_modules(backend))}",
    )
    _require_prefixes_as_declared(backend)


@check
@needs(MarksSlots)
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_slot_changes_nothing(backend: Backend) -> None:
    """No text has the slot's token, and with another token as the slot the scores are the same.

    Catches slots that a user's text can reach, and families that look ids up a second time and see the slot there.
    """
    marking, form = capability(backend, MarksSlots), backend.default_format
    usual = marking.slot
    items = [*DEMONSTRATIONS, *(type(DEMONSTRATIONS[0])(DEMONSTRATIONS[0].image, t, t) for t in (_RARE, "The end."))]
    readings = backend.reader.read(items, prompt_format=form, with_images=False)
    used = [set(reading.token_ids.tolist()) for reading in readings]
    require(usual not in set().union(*used), f"the slot {usual} is a token of a user's text")
    free = sorted(used[-2] - set().union(*used[:-2]))
    context = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    expected = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
    for slot in free[:2]:
        try:
            marking.slot = slot
            found = backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
        finally:
            marking.slot = usual
        require_same_scores(found, expected, backend, f"scores with the slots {slot} and {usual}")


def _registered_names(kind: type[Backend]) -> list[str]:
    """The names under which a class is registered; nothing is imported for it."""
    names = []
    for info in list_backends():
        module, _, attribute = info.target.partition("[")[0].strip().partition(":")
        if getattr(sys.modules.get(module), attribute, None) is kind:
            names.append(info.name)
    return names


def _require_prefixes_as_declared(backend: Backend) -> None:
    """A model that lacks what its class has keeps no prefix of a context that comes three times."""
    injector, form = backend.injector, backend.default_format
    if (
        not isinstance(backend, ReusesPrefixes) or find(backend, ReusesPrefixes) is not None
    ):  # prefix_reuse_is_exact looks at those
        return
    prefixes = backend.prefixes
    (shown, *_) = backend.reader.text_only(DEMONSTRATIONS[1:], prompt_format=form)
    context = [replace(shown, key=f"kit {n}") for n in range(1 + 2 * MIN_TOKENS // len(shown))]
    allowed = prefixes.info()["max_bytes"]
    try:
        prefixes.resize(1 << 30)
        for _ in range(3):
            injector.score(QUERIES[0], context, CHOICES[:1], prompt_format=form)
        kept = prefixes.info()["states"]
    finally:
        prefixes.resize(allowed)
    require(not kept, f"it lacks ReusesPrefixes, and {kept} prefixes were kept of one context that came three times")


def _modules(backend: Backend) -> Sequence[nn.Module]:
    running = find(backend, RunsInTorch)
    return () if running is None else running.modules


def _short(modules: Sequence[nn.Module]) -> str:
    return f"({', '.join(type(module).__name__ for module in modules)})"


def _matrix(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2


def _kind(value: object) -> str:
    """What a value is, in a few words: a tensor's shape, a container's first items."""
    name = type(value).__name__
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (list, tuple)) and value:
        return f"a {name} of {len(value)}, the first of which is {_kind(value[0])}"
    text = repr(value)
    return f"{name} {text if len(text) < 80 else f'{text[:80]}...'}"


def _all(values: Any, kind: type) -> bool:
    return type(values) is tuple and all(type(value) is kind for value in values)


def _afresh(backend: Backend) -> Fingerprint:
    """The fingerprint as it is computed now: a value that the backend kept is ignored."""
    other = copy.copy(backend)
    for name, value in list(vars(other).items()):
        if isinstance(value, Fingerprint):
            del other.__dict__[name]
    return other.fingerprint
