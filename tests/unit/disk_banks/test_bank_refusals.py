"""Banks on disk: what belongs to another backbone, holds no bank, or was not kept is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, PromptFormat
from aim_sdk.bank.convert import convert
from aim_sdk.errors import (
    ArtifactNotFoundError,
    FingerprintError,
    InputError,
)
from tests.banks import CountingEncoder, answers, open_bank


@pytest.mark.parametrize(
    ("encoder", "difference", "command"),
    [
        (CountingEncoder(projector="q"), "projector_hash: p in the bank, q here", "projects the kept readings again"),
        (CountingEncoder("other"), "embedding_hash: toy in the bank, other here", "reads the demonstrations again"),
    ],
)
def test_another_backbone_or_projector_is_refused(
    path: Path, bank: DemonstrationBank, encoder: CountingEncoder, difference: str, command: str
) -> None:
    with pytest.raises(FingerprintError) as raised:
        open_bank(encoder, path)
    assert difference in str(raised.value)
    assert command in str(raised.value)
    assert f"aim-icl bank convert {path} NEW_FOLDER" in str(raised.value)


def test_a_bank_of_another_backend_is_refused_with_the_option_to_pass(path: Path, bank: DemonstrationBank) -> None:
    encoder = CountingEncoder("other")
    ours = encoder.binding.fingerprint.backend
    other = encoder.binding.fingerprint.model_copy(update={"backend": "frog"})
    encoder.binding = encoder.binding.model_copy(update={"fingerprint": other})
    with pytest.raises(FingerprintError) as raised:
        open_bank(encoder, path)
    first, second = str(raised.value).splitlines()
    assert first == f"{path}: this bank was made with `--backend {ours}`; pass it. The backend here is 'frog'."
    assert second.startswith(f"Or convert it: `aim-icl bank convert {path} NEW_FOLDER --backend frog`")


def test_another_prompt_format_is_refused(path: Path, bank: DemonstrationBank) -> None:
    encoder = CountingEncoder()
    encoder.binding = encoder.binding.model_copy(update={"prompt_format": PromptFormat.plain("{image}{text}{answer}")})
    with pytest.raises(FingerprintError, match="prompt_format"):
        open_bank(encoder, path)


def test_library_versions_do_not_matter(path: Path, bank: DemonstrationBank, items: list[Demonstration]) -> None:
    encoder = CountingEncoder()
    newer = encoder.binding.fingerprint.model_copy(update={"libraries": {"torch": "99"}, "weights_hash": None})
    encoder.binding = encoder.binding.model_copy(update={"fingerprint": newer})
    with open_bank(encoder, path) as again:
        assert again.add(items) == list(bank)
        assert encoder.read == []


def test_what_a_bank_does_not_keep_cannot_be_asked_for_later(tmp_path: Path) -> None:
    open_bank(CountingEncoder(), tmp_path / "b").close()
    with pytest.raises(InputError, match=r"made without keeping readings.*--keep-readings"):
        open_bank(CountingEncoder(), tmp_path / "b", keep_readings=True)


def test_without_a_backbone_it_is_read_but_not_added_to(
    path: Path, bank: DemonstrationBank, items: list[Demonstration]
) -> None:
    with DemonstrationBank.open(path) as opened:
        assert answers(opened) == answers(bank)
        with pytest.raises(InputError, match="opened without a backbone"):
            opened.add([Demonstration(items[0].image, "", "new")])


def test_places_that_hold_no_bank(tmp_path: Path, bank: DemonstrationBank) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"no bank is there\. Did you mean 'a bank'"):
        DemonstrationBank.open(tmp_path / "a bnak")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactNotFoundError, match="a bank is a folder"):
        DemonstrationBank.open(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("x")
    with pytest.raises(ArtifactNotFoundError, match="holds something else"):
        open_bank(CountingEncoder(), tmp_path / "full")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactNotFoundError, match="no bank is there"):
        DemonstrationBank.open(tmp_path / "empty")
    open_bank(CountingEncoder(), tmp_path / "empty").close()


def test_images_come_back_as_a_model_sees_them(tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((9, 7))
    image.save(tmp_path / "a.png")
    image.convert("CMYK").save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    given = [
        Demonstration(tmp_path / "a.png", "", "path"),
        Demonstration(data, "", "bytes"),
        Demonstration(image.convert("RGBA"), "", "PIL"),
    ]
    with open_bank(CountingEncoder(), tmp_path / "paths") as bank:
        by_path, by_bytes, by_pil = (bank[key].demonstration.image for key in bank.add(given))
    assert by_path == str(tmp_path / "a.png")
    assert by_bytes == data
    assert isinstance(by_pil, bytes)
    with open_bank(CountingEncoder(), tmp_path / "kept", keep_images=True) as bank:
        assert bank[bank.add(given)[0]].demonstration.image == (tmp_path / "a.png").read_bytes()


def test_kept_readings_are_projected_and_nothing_is_read(
    path: Path, bank: DemonstrationBank, tmp_path: Path, items: list[Demonstration]
) -> None:
    class Projecting(CountingEncoder):
        def project(self, readings: Any) -> Any:
            from aim_sdk import FusedTokens

            return [FusedTokens(reading.hidden[:, :2] * 2) for reading in readings]

    encoder = Projecting(projector="q")
    with open_bank(encoder, tmp_path / "new") as new, DemonstrationBank.open(path) as old:
        assert convert(old, new) is True
        assert encoder.read == []
        assert answers(new) == answers(bank)
        assert [dict(e.demonstration.metadata) for e in new.values()] == [dict(item.metadata) for item in items]
        for entry, item in zip(new.values(), items, strict=True):
            hidden = encoder.reading(item).hidden
            assert torch.equal(entry.fused.embeddings, hidden[:, :2] * 2)
        assert convert(old, new) is True, "again changes nothing"
        assert len(new) == len(items)
    again = Projecting("other")
    with open_bank(again, tmp_path / "other") as new, DemonstrationBank.open(path) as old:
        assert convert(old, new) is False, "another backbone reads"
        assert again.read == answers(bank) == answers(new)
