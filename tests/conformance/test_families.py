"""Every image-text-to-text family of the installed transformers is known: served, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_backends.auto import AutoBackend
from aim_backends.families.table import FAMILIES, adapter_of, served_by
from aim_backends.hf.backbone import Backbone
from aim_sdk.backend.registry import list_backends
from aim_sdk.errors import UnsupportedModelError
from aim_sdk.testing.tiny import NEEDS
from docs.families import MODEL_TYPES, PAGE, page
from tests.conformance.families import Family


def test_every_type_is_known() -> None:
    unknown = sorted(set(MODEL_TYPES) - FAMILIES.keys())
    assert not unknown, (
        f"new in transformers: {unknown}.\nNext: read the model and its processor; give each one a row in "
        "aim_backends/families/table.py, `refused` with the reason where it cannot be served, then run "
        "`make reference`. Better: write a tiny model."
    )


def test_a_row_says_one_thing() -> None:
    for kind, family in FAMILIES.items():
        facts = {family.adapter, family.note, family.backend != "auto", family.prefix.known, family.continues_cache}
        assert not (family.refused and any(facts)), kind
        assert issubclass(adapter_of(kind), Backbone)
    names = {info.name for info in list_backends() if info.target.startswith("aim_backends")}
    assert {family.backend for family in FAMILIES.values()} <= names
    assert served_by("idefics") == ["idefics", "idefics2", "idefics3", "smolvlm"]


@pytest.mark.parametrize("kind", [kind for kind, family in FAMILIES.items() if family.refused])
def test_a_refusal_names_the_type_and_the_reason(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UnsupportedModelError) as caught:
        AutoBackend.from_pretrained(str(tmp_path))
    assert repr(kind) in str(caught.value)
    assert FAMILIES[kind].refused in str(caught.value)


def test_a_tested_family_is_a_known_decoder(family: Family) -> None:
    assert not FAMILIES[family.plain.config.model_type].refused


def test_the_page_is_up_to_date(tiny: Callable[[str], Path]) -> None:
    for package in NEEDS.values():
        pytest.importorskip(package)
    assert PAGE.read_text(encoding="utf-8") == page(tiny), "run `make reference` and commit the page"
