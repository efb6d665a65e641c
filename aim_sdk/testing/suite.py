"""The kit as pytest tests: a base class to subclass, and a generator to parametrise with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from _pytest.mark import ParameterSet

from aim_sdk.backend.interfaces import Backend
from aim_sdk.testing.kit import CHECKS, known_checks, run_checks


def backend_checks() -> list[ParameterSet]:
    """List every check's name for ``pytest.mark.parametrize("check", backend_checks())``."""
    return [pytest.param(name, id=name) for name in CHECKS]


class BackendTests:
    """Subclass it, and give it a fixture `backend`; each check becomes a test.

    ```python
    class TestMyBackend(BackendTests):
        expected_failures = {"identity_beams": "greedy only"}

        @pytest.fixture(scope="class")
        @classmethod
        def backend(cls):
            return MyBackend.from_pretrained("tests/tiny-model")
    ```
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """``{check: reason}``; a check that passes although it is listed here fails its test, and a name that is no check's
    is an `InputError` when the class is made."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(cls.expected_failures, Mapping):  # not if it is a property, for example
            known_checks(cls.expected_failures)

    @pytest.mark.parametrize("check", backend_checks())
    def test_conformance(self, backend: Backend, check: str) -> None:
        """One check of the kit; its docstring says which class of bug it catches."""
        expected = {name: reason for name, reason in self.expected_failures.items() if name == check}
        (result,) = run_checks(backend, expected_failures=expected, checks=[check])
        if result.status == "not applicable":
            pytest.skip(result.message)
        if result.status == "expected failure":
            pytest.xfail(result.message)
        assert result.ok, result.message
