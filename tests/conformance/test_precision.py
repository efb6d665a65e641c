"""The kit in half precision: tiny models pass it, and it catches the bugs that it catches in float32."""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import cast

import pytest
import torch

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_sdk.testing import CHECKS, check_backend, run_checks
from aim_sdk.testing.precision import PRECISION, left_out
from aim_sdk.testing.tiny import NEEDS
from tests.conformance import broken, families, half_mutations, llava_mutations

DTYPES = ("bfloat16", "float16")
QUICK = {("llava-1.5", "bfloat16"), ("qwen2.5-vl", "float16")}
CODE_OF_ITS_OWN = (
    *("qwen3.5", "gemma3n", "gemma4", "llama4", "chameleon", "janus", "minimax-m3-vl", "hunyuan-vl", "emu3", "lfm2-vl"),
    *("perception-lm", "granite4-vision", "nemotron-h-omni", "qwen4-exp", "mistral-large4", "deepseek-ocr2"),
)
CHOSEN = {*QUICK, ("mllama", "float16"), *zip(sorted({*families.QUICK, *CODE_OF_ITS_OWN}), cycle(DTYPES), strict=False)}
"""What is tested: each way in which families differ, in one dtype. `benchmarks.conformance.precision` measures all tiny
models in both, which takes an hour and a half of a core."""
DEVICES = (
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
)
LITTLE = frozenset({"cohere-compass", "hyperclovax-vision-v2", "inkling"})
SAYS_LITTLE = {
    "float16": LITTLE,
    "bfloat16": LITTLE
    | {
        "lfm2-vl",
        "minicpm-ocr",
        "minicpmv4.6",
        "minicpmv4.7",
        "nemotron-h-omni",
        "qwen3.5",
        "qwen3.5-moe",
        "qwen4-exp",
    },
}
"""Tiny models that another picture, text or order changes by less than the rounding: they are judged in float32."""
PERCEIVER = {"reading_alone": "its tiny perceiver makes any rounding ten times as large"}
HALF_FAILURES: dict[tuple[str, str], dict[str, str]] = {
    ("idefics2", "bfloat16"): PERCEIVER,
    ("idefics2", "float16"): PERCEIVER,
    ("paddleocr-vl", "bfloat16"): {"identity_chat": "the plain tiny model says the slot, which no answer may hold"},
}
"""What else a tiny model fails of the kit in half precision alone: (variant, dtype) -> check -> why."""
UNSEEN = {"hyperclovax-vision-v2": ("reading_is_scored_in_chat",)}
"""What a tiny model fails in float32 by less than the rounding."""

MUTATIONS: list[tuple[str, str, broken.Broken]] = [
    *((check, broken.name(bug), bug) for check, bug in broken.BROKEN),
    *llava_mutations.CAUGHT,
    *half_mutations.CAUGHT,
]
ROUNDED_AWAY = {("reading_alone", "SeesTheBatch", "bfloat16"): "it adds 0.07 to states of up to 3, as rounding may"}
"""Bugs that are too small: (check, bug, dtype) -> why."""


def known_failures(variant: str, dtype: str) -> dict[str, str]:
    known = {**families.EXPECTED_FAILURES.get(variant, {}), **HALF_FAILURES.get((variant, dtype), {})}
    if variant in SAYS_LITTLE[dtype]:
        known["sensitivity"] = "a change of the prompt changes what this tiny model says by less than the rounding"
    return {check: why for check, why in known.items() if check not in UNSEEN.get(variant, ())}


def loaded(folder: Path, device: str, dtype: str) -> TransformersBackend:
    return cast("TransformersBackend", AutoBackend.from_pretrained(str(folder), device=device, dtype=dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("variant", "dtype"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in sorted(CHOSEN)],
)
def test_family(tiny: Callable[[str], Path], variant: str, dtype: str, device: str) -> None:
    if variant in NEEDS and find_spec(NEEDS[variant]) is None:
        pytest.skip(f"it needs {NEEDS[variant]}")
    check_backend(loaded(tiny(variant), device, dtype), expected_failures=known_failures(variant, dtype))


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
    if reason := left_out(check, getattr(torch, dtype)) or ROUNDED_AWAY.get((check, what, dtype)):
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
