"""The kit in half precision: tiny models pass it, and it catches the bugs that it catches in float32."""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import cast

import pytest
import torch

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_sdk.testing import CHECKS, check_backend, run_checks
from aim_sdk.testing.precision import PRECISION, left_out
from aim_sdk.testing.tiny import NEEDS, TINY_MODELS
from tests.conformance import broken, half_mutations, llava_mutations
from tests.conformance.families import EXPECTED_FAILURES

QUICK = {("llava-1.5", "bfloat16"), ("qwen2.5-vl", "float16"), ("mllama", "float16")}
DTYPES = ("bfloat16", "float16")
DEVICES = (
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
)
HALF_FAILURES: dict[tuple[str, str], dict[str, str]] = {}
"""What a tiny model fails of the kit in half precision alone: (variant, dtype) -> check -> why."""

MUTATIONS: list[tuple[str, str, broken.Broken]] = [
    *((check, broken.name(bug), bug) for check, bug in broken.BROKEN),
    *llava_mutations.CAUGHT,
    *half_mutations.CAUGHT,
]


def loaded(folder: Path, device: str, dtype: str) -> TransformersBackend:
    return cast("TransformersBackend", AutoBackend.from_pretrained(str(folder), device=device, dtype=dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("variant", "dtype"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in product(TINY_MODELS, DTYPES)],
)
def test_family(tiny: Callable[[str], Path], variant: str, dtype: str, device: str) -> None:
    if variant in NEEDS and find_spec(NEEDS[variant]) is None:
        pytest.skip(f"it needs {NEEDS[variant]}")
    known = {**EXPECTED_FAILURES.get(variant, {}), **HALF_FAILURES.get((variant, dtype), {})}
    check_backend(loaded(tiny(variant), device, dtype), expected_failures=known)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("check", "what", "bug"),
    [mutation for mutation in MUTATIONS if mutation[0] in PRECISION],
    ids=[f"{check}-{what}" for check, what, _ in MUTATIONS if check in PRECISION],
)
def test_a_bug_is_caught(
    tiny: Callable[[str], Path], check: str, what: str, bug: broken.Broken, dtype: str, device: str
) -> None:
    if reason := left_out(check, getattr(torch, dtype)):
        pytest.skip(reason)
    (result,) = run_checks(bug(loaded(tiny("llava-1.5"), device, dtype)), checks=[check])
    assert result.status == "failed", result


def test_every_check_with_a_tolerance_is_known_to_catch_something() -> None:
    assert PRECISION.keys() <= {check for check, *_ in MUTATIONS}
    assert PRECISION.keys() <= CHECKS.keys()


def test_what_a_check_cannot_tell_in_a_precision_does_not_apply(tiny: Callable[[str], Path]) -> None:
    (result,) = check_backend(loaded(tiny("llava-1.5"), "cpu", "float16"), checks=["fingerprint"])
    assert result.status == "not applicable"
    assert result.message.startswith("not checked in float16: ")
