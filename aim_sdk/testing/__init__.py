"""The public conformance kit: prove that a backend keeps the promises of its interfaces (`aim_sdk.backend`).

Plain functions (`check_backend`, `run_checks`) need no test framework. `BackendTests` and
`backend_checks` need pytest, `aim_sdk.testing.strategies` hypothesis; `aim_sdk.testing.tiny` builds
tiny random models of many families, with real processors, in the files of real checkpoints.
"""

from typing import TYPE_CHECKING

from aim_sdk.testing.kit import (
    CHECKS,
    HEART,
    CheckFailure,
    CheckResult,
    ConformanceError,
    NotApplicable,
    Refused,
    check_backend,
    count,
    run_checks,
)

from aim_sdk.testing import sensitivity, identity, plain, readings, positions, pictures, answers  # isort: skip
from aim_sdk.testing import generation, endings, constraints, boxes, sizes, sampling, texts, refusals  # isort: skip
from aim_sdk.testing import isolation, state, backends, reuse, training, foreseen  # isort: skip # the order in which checks run

if TYPE_CHECKING:
    from aim_sdk.testing.suite import BackendTests, backend_checks

__all__ = [
    "CHECKS",
    "HEART",
    "BackendTests",
    "CheckFailure",
    "CheckResult",
    "ConformanceError",
    "NotApplicable",
    "Refused",
    "backend_checks",
    "check_backend",
    "count",
    "run_checks",
]

_REGISTERING = (
    *(sensitivity, identity, plain, readings, positions, pictures, answers, generation, endings, constraints, boxes),
    *(sizes, sampling, texts, refusals, isolation, state, backends, reuse, training, foreseen),
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in ("BackendTests", "backend_checks"):  # they need pytest
            from aim_sdk.testing import suite

            return getattr(suite, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
