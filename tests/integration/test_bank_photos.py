"""Photos that are moved or overwritten after a bank has read them."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, Query
from aim_sdk.bank.bank import NewBankWarning
from aim_sdk.bank.convert import convert
from aim_sdk.errors import ImageError, ShotsError
from tests.conftest import CalledCli

RED, BLUE = Image.new("RGB", (24, 24), "red"), Image.new("RGB", (24, 24), "blue")
QUERY = Query(BLUE, "What?")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (24, 24), "red" if name == "one" else "white").save(tmp_path / "photos" / name / "a.png")
    return tmp_path / "photos"


@pytest.fixture
def opened(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., AIMPipeline]:
    def make(**options: object) -> AIMPipeline:
        model = tiny("llava-onevision")
        return AIMPipeline.from_pretrained(
            "llava", model=model, projector="carrier", device="cpu", bank=tmp_path / "bank", **options
        )

    return make


@pytest.fixture
def bank(photos: Path, opened: Callable[..., AIMPipeline]) -> DemonstrationBank:
    pipe = opened()
    pipe.bank.add([Demonstration(photos / name / "a.png", "What?", name) for name in ("one", "two")])
    return pipe.bank


@pytest.mark.parametrize("overwritten", [True, False])
def test_another_image_is_never_read_in_its_place(
    bank: DemonstrationBank,
    photos: Path,
    opened: Callable[..., AIMPipeline],
    overwritten: bool,
    tmp_path: Path,
    call_cli: CalledCli,
) -> None:
    pipe = opened()
    kept = pipe.generate([QUERY], max_new_tokens=2)
    assert pipe.bank.check_images() == []
    if overwritten:
        BLUE.save(photos / "one" / "a.png")
    else:
        (photos / "one" / "a.png").unlink()
    key = next(iter(bank))
    with pytest.raises(ImageError, match=rf"one/a.png.*demonstration {key[:12]} of the bank"):
        pipe.generate([QUERY], mode="interleaved", max_new_tokens=2)
    with pytest.raises(ImageError, match=key[:12]):
        pipe.generate([QUERY], mode="interleaved", demonstrations=list(pipe.bank.values()), max_new_tokens=2)
    assert pipe.generate([QUERY], max_new_tokens=2) == kept  # the fused tokens are there
    assert pipe.generate([QUERY], demonstrations=list(pipe.bank.values()), max_new_tokens=2) == kept
    (problem,) = pipe.bank.check_images()
    assert key[:12] in problem

    def vectors(items: Sequence[Demonstration]) -> np.ndarray:
        return np.ones((len(items), 2), np.float32)

    with pytest.raises(ImageError, match=key[:12]):
        pipe.bank.view().features("look", vectors)
    assert pipe.bank.view().features("text", vectors, of_images=False).shape == (2, 2)
    verified = call_cli("bank", "verify", str(tmp_path / "bank"))
    assert (verified.returncode, key[:12] in verified.stderr) == (1, True)
    target = DemonstrationBank.in_memory(pipe.encoder)
    failed: list[str] = []
    if not pipe.bank.keeps_readings:
        convert(pipe.bank, target, on_error=lambda item, _: failed.append(item.answer))
        assert (failed, [entry.demonstration.answer for entry in target.values()]) == (["one"], ["two"])


def test_photos_that_moved_are_found_below_another_root(
    bank: DemonstrationBank, photos: Path, opened: Callable[..., AIMPipeline], tmp_path: Path, call_cli: CalledCli
) -> None:
    before = opened().generate([QUERY], mode="interleaved", max_new_tokens=2)
    moved = photos.rename(tmp_path / "elsewhere")
    assert opened(images=moved).generate([QUERY], mode="interleaved", max_new_tokens=2) == before
    with DemonstrationBank.open(tmp_path / "bank", images=moved) as found:
        assert found.check_images() == []
        assert [entry.demonstration.image for entry in found.values()] == [
            str(moved / n / "a.png") for n in ("one", "two")
        ]
    assert call_cli("bank", "verify", str(tmp_path / "bank")).returncode == 1
    assert call_cli("bank", "verify", str(tmp_path / "bank"), "--images", str(moved)).returncode == 0
    with pytest.raises(ImageError, match="no such folder"):
        DemonstrationBank.open(tmp_path / "bank", images=tmp_path / "nowhere")


def test_a_bank_that_is_mistyped_is_said_and_answers_nothing(
    bank: DemonstrationBank, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    options = {"model": tiny("llava-onevision"), "projector": "carrier", "device": "cpu"}
    with pytest.warns(NewBankWarning, match=r"bamk: no bank was here; created an empty one\. Did you mean 'bank'"):
        pipe = AIMPipeline.from_pretrained("llava", bank=tmp_path / "bamk", **options)
    with pytest.raises(ShotsError, match=r"bamk holds no demonstrations"):
        pipe(RED, "What?")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NewBankWarning)
        AIMPipeline.from_pretrained("llava", bank=tmp_path / "bank", **options)
        AIMPipeline.from_pretrained("llava", bank=tmp_path / "bamk", **options)
