"""What a check is, and how checks are run: plain functions that raise; no test framework needed."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from aim_sdk.backend.capabilities import CAPABILITIES, capability, why_not
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError, unknown
from aim_sdk.testing.precision import left_out
from aim_sdk.testing.process import process_kept
from aim_sdk.testing.tracing import explained

Check: TypeAlias = Callable[[Backend], None]
"""Returns, or raises `CheckFailure` (or any other exception); raises `NotApplicable` to abstain."""

Status = Literal["passed", "failed", "expected failure", "unexpected pass", "not applicable"]

CHECKS: dict[str, Check] = {}
"""Every check by its name, in the order in which they run."""

NEEDS: dict[str, tuple[type, ...]] = {}
"""The capabilities without which a check does not apply: Protocols of `aim_sdk.backend.capabilities`."""

HEART: set[str] = set()
"""The checks that must apply: if one does not, that is a failure, unless the author declares it with a reason."""


_ADVICE = (
    "It is one of the checks that must apply: look for a bug first, and at the other checks that failed. Expect it, "
    "with the reason, only where no adapter of this model could make it apply."
)


class CheckFailure(AssertionError):
    """An invariant does not hold; the message says which, with the numbers."""


class NotApplicable(Exception):
    """The backend does not have the feature that is checked (beams, interleaved prompts, a slot, ...).

    In a check at the heart this is a failure that `expected_failures` may declare.
    """


class Refused(NotApplicable):
    """The backend says itself that it cannot, and refuses as it should: so nothing has to be declared."""


class ConformanceError(AssertionError):
    """A backend failed checks; ``results`` holds every check's result."""

    def __init__(self, results: list[CheckResult]) -> None:
        self.results = results
        bad = [result for result in results if not result.ok]
        lines = [f"  {', '.join(names)}: {status}: {message}" for names, status, message in by_message(bad)]
        super().__init__(f"{len(bad)} of {len(results)} checks are not as expected:\n" + "\n".join(lines))


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check."""

    check: str
    status: Status
    message: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the outcome is as expected."""
        return self.status not in ("failed", "unexpected pass")


def by_message(results: Iterable[CheckResult]) -> list[tuple[list[str], Status, str]]:
    """The checks with a message, grouped so that each message appears once."""
    found: dict[tuple[Status, str], list[str]] = {}
    for result in results:
        if result.message:
            found.setdefault((result.status, result.message), []).append(result.check)
    return [(names, status, message) for (status, message), names in found.items()]


def count(results: Iterable[CheckResult]) -> str:
    """Say how many results there are of each status: "24 passed, 2 not applicable"."""
    numbers = Counter(result.status for result in results)
    return ", ".join(f"{numbers[status]} {status}" for status in get_args(Status) if numbers[status])


def check(function: Check) -> Check:
    """Register a function as a check under its name without ``check_``."""
    CHECKS[function.__name__.removeprefix("check_")] = function
    return function


def heart(function: Check) -> Check:
    """Register a check that must apply."""
    HEART.add(function.__name__.removeprefix("check_"))
    return check(function)


def needs(*protocols: type) -> Callable[[Check], Check]:
    """Say which capabilities a check needs, below `check` or `heart`; without them it does not apply."""

    def note(function: Check) -> Check:
        NEEDS[function.__name__.removeprefix("check_")] = protocols
        return function

    return note


def abilities(backend: Backend) -> dict[str, str | None]:
    """What a loaded backend can do, by name; if it cannot, the reason and the checks that are left out for it."""
    found: dict[str, str | None] = {}
    for row in CAPABILITIES:
        reason = why_not(backend, row.protocol)
        skipped = [name for name in CHECKS if row.protocol in NEEDS.get(name, ())]
        note = f"; not checked: {', '.join(skipped)}" if skipped else ""
        found[row.name] = None if reason is None else f"{reason}{note}"
    return found


def run_checks(
    backend: Backend, *, expected_failures: Mapping[str, str] | None = None, checks: Iterable[str] | None = None
) -> Iterator[CheckResult]:
    """Run checks one by one and yield their results.

    Args:
        backend: a loaded backend; a tiny random model is enough and fast.
        expected_failures: ``{check: reason}`` of what the family cannot do; one that passes is "unexpected". A check of
            `HEART` that does not apply fails unless it is named here.
        checks: names; None runs all.

    Raises:
        InputError: an unknown check's name.
    """
    expected = dict(expected_failures or {})
    chosen = list(CHECKS) if checks is None else list(checks)
    known_checks([*chosen, *expected])
    for name in chosen:
        yield _run(name, backend, expected.get(name))


def in_format(backend: Backend, prompt_format: PromptFormat) -> Backend:
    """The same loaded backend with another default format, for checking it in that one."""
    made = copy(backend)
    made.__class__ = type(type(backend).__name__, (type(backend),), {"default_format": prompt_format})
    return made


def known_checks(names: Iterable[str]) -> None:
    """Refuse names that are not of checks.

    Raises:
        InputError: names the nearest, and all.
    """
    for name in names:
        if name not in CHECKS:
            raise InputError(unknown("check", name, CHECKS))


def check_backend(
    backend: Backend, *, expected_failures: Mapping[str, str] | None = None, checks: Iterable[str] | None = None
) -> list[CheckResult]:
    """Run [`run_checks`][aim_sdk.testing.kit.run_checks] to its end.

    Raises:
        ConformanceError: a check failed, or one passed that was expected to fail.
    """
    results = list(run_checks(backend, expected_failures=expected_failures, checks=checks))
    if not all(result.ok for result in results):
        raise ConformanceError(results)
    return results


def catches(name: str) -> str:
    """Which bugs a check catches, as its docstring says: the sentence of "Catches ..."."""
    text = " ".join(str(CHECKS[name].__doc__).split())
    found = re.search(r"Catches (.*?)\.(?= [A-Z`]|$)", text)
    return found[1] if found else ""


def _usual(name: str) -> str:
    return f"\nUsual causes: {causes}." if (causes := catches(name)) else ""


def _require(backend: Backend, protocol: type) -> None:
    """Abstain if a capability is missing."""
    try:
        capability(backend, protocol)
    except CapabilityError as error:
        raise NotApplicable(str(error)) from error


def _run(name: str, backend: Backend, expected: str | None) -> CheckResult:
    started = time.perf_counter()
    status: Status = "passed" if expected is None else "unexpected pass"
    message = "" if expected is None else f"it was expected to fail: {expected}"
    try:
        with process_kept():
            for protocol in NEEDS.get(name, ()):
                _require(backend, protocol)
            if (why := left_out(name, backend.dtype)) is not None:
                raise Refused(f"not checked in {str(backend.dtype).removeprefix('torch.')}: {why}")
            CHECKS[name](backend)
    except NotApplicable as reason:
        status, message = "not applicable", expected or str(reason)
        if expected is None and name in HEART and not isinstance(reason, Refused):
            status = "failed"
            message = f"it cannot be checked: {reason}\n{_ADVICE}"
    except Exception as error:
        found = f"{error}{_usual(name)}" if isinstance(error, CheckFailure) else explained(error)
        status, message = ("failed", found) if expected is None else ("expected failure", expected)
    return CheckResult(name, status, message, time.perf_counter() - started)
