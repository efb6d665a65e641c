"""Keeps the verdict of an assessment with its bank."""

from __future__ import annotations

import warnings

from aim_sdk.assessment.assessment import Assessment
from aim_sdk.bank import DemonstrationBank
from aim_sdk.bank.verdict import BankVerdict, VerdictWarning, verdict_of
from aim_sdk.errors import CorruptArtifactError


def keep(found: Assessment, bank: DemonstrationBank) -> None:
    """Keep a verdict, unless one of more items is kept of the same demonstrations: then a warning says so.

    Raises:
        ArtifactWriteError: it cannot be written.
    """
    run, there = found.verdict.run, _kept(bank)
    if there is not None and not there.stale(found.keys) and there.items > found.verdict.n:
        warnings.warn(
            f"the bank keeps its verdict of {there.items} items; this one is of {found.verdict.n}.",
            VerdictWarning,
            stacklevel=3,
        )
        return
    bank.keep_verdict(
        verdict_of(run.mode, run.shots, run.selector, found.verdict.sentence, items=found.verdict.n, keys=found.keys)
    )


def _kept(bank: DemonstrationBank) -> BankVerdict | None:
    """The verdict that is there; None if its file is damaged, too."""
    try:
        return bank.verdict
    except CorruptArtifactError:
        return None
