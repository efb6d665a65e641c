"""The conformance kit, run on this backend as it is installed: one test per check."""

from typing import ClassVar

import pytest

from aim_sdk import Backend, get_backend
from aim_sdk.testing import BackendTests


class TestEcho(BackendTests):
    expected_failures: ClassVar[dict[str, str]] = {}  # {"check": "why this family cannot"}

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return get_backend("echo").from_pretrained(device="cpu")
