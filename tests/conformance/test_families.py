"""Every image-text-to-text family of the installed transformers is known: served, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_backends.auto import AutoBackend
from aim_backends.hf.families import DECODERS, NOTES, PREFIX_REUSE, REFUSED
from aim_backends.idefics import IdeficsBackend
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend
from aim_sdk.errors import UnsupportedModelError
from aim_sdk.testing.tiny import NEEDS
from docs.families import MODEL_TYPES, PAGE, page
from tests.conformance.families import Family


def test_every_type_is_known() -> None:
    unknown = sorted(set(MODEL_TYPES) - REFUSED.keys() - DECODERS)
    assert not unknown, (
        f"new in transformers: {unknown}.\nNext: read the model and its processor; put each one into REFUSED (with the "
        "reason) or DECODERS of aim_backends/hf/families.py, then run `make reference`. Better: write a tiny model."
    )
    assert not REFUSED.keys() & DECODERS


def test_what_a_backend_serves_is_no_refused_type() -> None:
    served = {kind for backend in (LlavaBackend, QwenVLBackend, IdeficsBackend) for kind in backend.model_types}
    assert {*served, *AutoBackend.cached, *PREFIX_REUSE, *NOTES} <= DECODERS


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_type_and_the_reason(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedModelError) as caught:
        AutoBackend.from_pretrained(str(tmp_path))
    assert repr(kind) in str(caught.value)
    assert REFUSED[kind] in str(caught.value)


def test_a_tested_family_is_a_known_decoder(family: Family) -> None:
    assert family.plain.config.model_type in DECODERS


def test_the_page_is_up_to_date(tiny: Callable[[str], Path]) -> None:
    for package in NEEDS.values():
        pytest.importorskip(package)
    assert PAGE.read_text(encoding="utf-8") == page(tiny), "run `make reference` and commit the page"
