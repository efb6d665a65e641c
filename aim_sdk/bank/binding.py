"""Fused tokens mean something to one backbone, projector and prompt format: others are refused, with the next step."""

from __future__ import annotations

import hashlib
import json

from aim_sdk.config import Binding
from aim_sdk.errors import FingerprintError
from aim_sdk.types import Demonstration


def key_of(binding: Binding, digest: str, demonstration: Demonstration) -> str:
    """SHA-256 over the image's content, text, answer and the bank's binding."""
    parts = [digest, demonstration.text, demonstration.answer, binding.scope]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_binding(bank: Binding, wanted: Binding, what: str, by: str, advice: str = "") -> None:
    """Refuse a bank that was made with something else.

    Args:
        bank: what the bank was made with.
        wanted: what it is to be used with.
        what, by: the names of the two, as the message names them.
        advice: the next command.

    Raises:
        FingerprintError: names both, and each field that differs.
    """
    differences = bank.differences(wanted)
    if not differences:
        return
    rows = "".join(
        f"\n  {name}: {_short(ours)} in the bank, {_short(theirs)} here" for name, (ours, theirs) in differences.items()
    )
    ours, theirs = _name(bank), _name(wanted)
    if ours == theirs:  # two equal names would say nothing
        theirs = f"another {theirs}: the same name, but another {' and another '.join(differences)}"
    raise FingerprintError(f"{what} was made with {ours}, but {by} has {theirs}.{rows}{advice}")


def reads_alike(bank: Binding, wanted: Binding) -> bool:
    """Whether both make the same readings: they differ only in their projector, and not in what it reads."""
    same_backbone = not bank.fingerprint.differences(wanted.fingerprint)
    return same_backbone and (bank.prompt_format, bank.layers) == (wanted.prompt_format, wanted.layers)


def _name(binding: Binding) -> str:
    made = binding.fingerprint
    return f"{made.model!r} of backend {made.backend!r} and a {binding.projector_kind!r} projector"


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text
