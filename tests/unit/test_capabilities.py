"""What a backend can do besides the core: one rule for all, and a backend that can do nothing else still answers."""

import inspect
import json
from pathlib import Path
from typing import Any, Self

import pytest
from PIL import Image

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline, Backend, Demonstration, LinearProjector
from aim_sdk.backend import capabilities
from aim_sdk.backend.capabilities import CAPABILITIES, HasVocabulary, Interleaves, Trainable, capability, find
from aim_sdk.errors import CapabilityError
from aim_sdk.testing import HEART, run_checks
from aim_sdk.testing.kit import NEEDS, abilities
from tests.conformance.third_party.adapter import KiteBackend
from tests.conftest import run_cli

PICTURE = Image.new("RGB", (48, 48), "red")
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-backend.md"


class Bare(Backend):
    """Kite as a server would show it: what it must have, and nothing besides."""

    name = "bare"

    def __init__(self) -> None:
        self.kite = KiteBackend()

    @classmethod
    def from_pretrained(cls, model: str | None = None, **options: Any) -> Self:
        return cls()

    reader = property(lambda self: self.kite.reader)
    injector = property(lambda self: self.kite.injector)
    fingerprint = property(lambda self: self.kite.fingerprint.model_copy(update={"backend": "bare"}))
    default_format = property(lambda self: self.kite.default_format)
    device = property(lambda self: self.kite.device)
    dtype = property(lambda self: self.kite.dtype)

    def default_projector(self) -> LinearProjector:
        return LinearProjector(self.fingerprint.hidden_size, self.fingerprint.embedding_size)


class _OneImage(KiteBackend):
    @property
    def lacks(self) -> dict[type, str]:
        return {Interleaves: "a prompt of 'kite-1' holds one image"}


def test_the_table_holds_every_protocol_and_so_do_the_docs() -> None:
    protocols = [
        part
        for _, part in inspect.getmembers(capabilities, inspect.isclass)
        if part.__module__ == capabilities.__name__
    ]
    assert {row.protocol for row in CAPABILITIES} == set(protocols) - {capabilities.Capability}
    assert len({row.name for row in CAPABILITIES}) == len(CAPABILITIES)
    page = DOCS.read_text()
    for row in CAPABILITIES:
        members = [name for name in vars(row.protocol) if not name.startswith("_")]
        assert members
        assert row.protocol.__abstractmethods__ >= set(members)  # type: ignore[attr-defined]  # who inherits implements
        assert f"| `{row.protocol.__name__}` | {', '.join(f'`{name}`' for name in members)} |" in page


@pytest.mark.parametrize("backend", [KiteBackend(), Bare()], ids=["kite", "bare"])
def test_a_class_and_its_objects_say_the_same(backend: Backend) -> None:
    for row in CAPABILITIES:
        assert row.of(type(backend)) == isinstance(backend, row.protocol) == (find(backend, row.protocol) is backend)


def test_what_is_not_there_is_said_with_its_reason() -> None:
    expected = (
        "backend 'bare' lacks the capability 'training' .*: its class has no `prepare_answers` and no `answer_logits`"
    )
    with pytest.raises(CapabilityError, match=expected):
        capability(Bare(), Trainable)
    assert find(_OneImage(), Interleaves) is None
    with pytest.raises(
        CapabilityError, match=r"'kite' lacks .*'interleaving' .*: a prompt of 'kite-1' holds one image\."
    ):
        capability(_OneImage(), Interleaves)
    assert abilities(_OneImage())["interleaving"] == "a prompt of 'kite-1' holds one image"
    assert capability(KiteBackend(), HasVocabulary).vocabulary.decoder_layers == 2


def test_a_backend_without_any_reads_keeps_and_answers() -> None:
    pipe = AIMPipeline(Bare())
    pipe.bank.add([Demonstration(PICTURE, "What?", "red"), Demonstration(PICTURE, "Which?", "blue")])
    for mode in ("aim", "text-only", "zero-shot", "no-image"):
        (made,) = pipe.generate([(PICTURE, "What?")], mode=mode, max_new_tokens=3)
        assert len(made.token_ids) <= 3
    with pytest.raises(CapabilityError, match="'bare' lacks the capability 'interleaving'"):
        pipe.generate([(PICTURE, "What?")], mode="interleaved", max_new_tokens=3)


def test_the_kit_leaves_out_what_needs_more_and_at_the_heart_that_is_to_be_declared() -> None:
    names = ["zero_demonstrations", "dtype_and_device", "return_types", *NEEDS]
    found = {result.check: result for result in run_checks(Bare(), checks=names)}
    for name in names[:3]:
        assert found[name].status == "passed", found[name].message
    for name in NEEDS:
        assert found[name].status == ("failed" if name in HEART else "not applicable"), name
        assert "backend 'bare' lacks the capability" in found[name].message
    assert "not checked: plain_model, identity_chat" in str(abilities(Bare())["plain-answers"])


def test_the_list_says_what_each_class_can_do() -> None:
    listed = run_cli("backends", "list", "--capabilities", "--json")
    assert listed.returncode == 0, listed.stderr
    can = {row["name"]: row["capabilities"] for row in json.loads(listed.stdout)}
    assert can["pocket"] == [row.name for row in CAPABILITIES if row.of(PocketBackend)]
    assert "sharding" in can["llava"]
    assert "sharding" not in can["pocket"]
    shown = run_cli("backends", "list", "--capabilities").stdout
    assert "pocket: vocabulary, torch, layers" in shown
