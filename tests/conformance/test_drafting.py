"""A draft of a family's row is what was measured, or says at which step it failed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aim_backends.drafting import __main__ as command
from aim_backends.drafting import facts
from aim_backends.drafting.drafts import draft
from aim_backends.drafting.rows import row_text
from aim_backends.families import table
from aim_backends.families.table import FAMILIES, Family, PrefixReuse
from aim_backends.hf import TransformersBackend
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES

Said = pytest.CaptureFixture[str]


@pytest.mark.parametrize("kind", ["internvl", "gemma3"])  # prefixes anywhere, and one prompt at a time
def test_a_drafted_type_has_the_tables_row(kind: str) -> None:
    found = draft(kind, kit=False)
    assert found.family == FAMILIES[kind], str(found)
    assert str(found).splitlines()[-1] == row_text(kind, FAMILIES[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen3_5", "mllama", "blip-2", "glm4v_moe", "llava", "video_llava"])
def test_more_drafted_types_have_the_tables_row(kind: str) -> None:
    assert draft(kind, kit=False).family == FAMILIES[kind]


@pytest.mark.slow
def test_the_kit_is_run_on_what_the_row_says() -> None:
    assert "# the kit: 63 of 63 checks are as expected" in str(draft("qwen2_5_vl")).splitlines()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("florence2", table._ENCODER_DECODER), ("evolla", "its processor takes no images"), ("pi0", "it outputs no text")],
)
def test_what_cannot_be_served_is_drafted_as_refused(kind: str, reason: str) -> None:
    assert draft(kind).family == Family(refused=reason)


def test_a_row_of_the_table_reads_as_it_is_drafted() -> None:
    for kind, family in FAMILIES.items():
        assert eval(f"{{{row_text(kind, family)}}}", vars(table)) == {kind: family}


def test_a_reason_that_the_table_has_not_is_written_out() -> None:
    reuse = PrefixReuse(alone=True, padded=False, why='it says "so"')
    row = row_text("new", Family(prefix=reuse))
    assert eval(f"{{{row}}}", vars(table)) == {"new": Family(prefix=reuse)}


def test_a_folder_is_drafted(tiny: Callable[[str], Path]) -> None:
    found = draft(str(tiny("llava-1.5")), kit=False)
    assert (found.model_type, found.family) == ("llava", FAMILIES["llava"])
    assert "# tokens of an image: 64x64: 16, 640x480: 16, 300x60: 16" in str(found).splitlines()


def test_an_unknown_name_is_answered_with_near_ones(capsys: Said) -> None:
    assert command.main(["qwen3_vll"]) == 1
    assert "no image-text-to-text model_type 'qwen3_vll'" in (said := capsys.readouterr().out)
    assert "Did you mean 'qwen3_vl'" in said


def test_a_broken_checkpoint_gives_the_step_and_the_reason(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": {"hidden_size": "wide"}}))
    assert command.main([str(tmp_path)]) == 1
    first, last, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"# {tmp_path.name}: it failed at its configuration: ")
    assert (last, rest) == (f'# "{tmp_path.name}": no row', [])


@pytest.mark.parametrize(
    "broken", ["processor_class", "tokenizer_for", "shrunk", "processor_for", "with_ids", "_model"]
)
def test_a_step_that_fails_is_named(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(f"aim_backends.drafting.checkpoint.{broken}", fails)
    found = draft("internvl", kit=False)
    assert found.family is None
    assert found.notes == (f"internvl: it failed at {found.failed}: RuntimeError: first line",)


def test_without_arguments_the_new_types_are_drafted_and_the_gone_ones_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr(command, "TYPES", ["evolla", "florence2", "internvl"])
    monkeypatch.setattr(command, "FAMILIES", {"internvl": FAMILIES["internvl"], "vanished": Family()})
    assert command.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(": 3 image-text-to-text types")
    assert said[1:3] == ["# new: evolla florence2", "# gone: vanished"]
    assert [line.partition(":")[0] for line in said[3:]] == ['"evolla"', '"florence2"']


def _no_padding_moved(inputs: dict[str, Any], width: int) -> dict[str, Any]:
    return dict(inputs)


def _shorter(prefix: Callable[..., Any]) -> Callable[..., Any]:
    """A cache whose length is told wrong by one."""

    def told(*args: Any) -> Any:
        cache, width = prefix(*args)
        return cache, width - 1

    return told


def _other(prefix: Callable[..., Any]) -> Callable[..., Any]:
    """The cache of other demonstrations."""

    def computed(backend: Any, query: Any, fused: Any, form: Any) -> Any:
        return prefix(backend, query, fused[::-1], form)

    return computed


def test_the_measurement_of_prefixes_sees_what_is_wrong(
    llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = llava.default_format
    fused = llava.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    assert not facts.behind_a_prefix(llava, QUERIES, fused, form)
    prefix = facts._prefix
    mutants = {"_padded_behind": [_no_padding_moved], "_prefix": [_shorter(prefix), _other(prefix)]}
    for name, mutations in mutants.items():
        for mutation in mutations:
            with monkeypatch.context() as patch:
                patch.setattr(facts, name, mutation)
                assert facts.behind_a_prefix(llava, QUERIES, fused, form), mutation


def test_what_fails_behind_a_prefix_is_no_reuse(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no cache")

    monkeypatch.setattr(facts, "_prefix", fails)
    assert facts.prefix_reuse(llava) == ("RuntimeError: no cache", "RuntimeError: no cache")


def test_the_measurement_of_a_continued_cache_sees_what_is_wrong(
    llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not facts.continued_cache(llava)
    rest: list[Any] = []
    monkeypatch.setattr(llava.backbone, "continuation_inputs", lambda *_: {"position_ids": rest[0]})
    assert facts.continued_cache(llava).startswith("IndexError")


def test_a_measurement_leaves_the_backend_as_it_was(llava: TransformersBackend) -> None:
    family = llava.backbone.family
    facts.prefix_reuse(llava)
    facts.continued_cache(llava)
    assert llava.backbone.family is family
