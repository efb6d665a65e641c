"""Mistakes on the command line that once were silent, or answered by a page of help."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from aim_sdk import AIMPipeline, Demonstration
from tests.conftest import CalledCli


def test_what_eval_lacks_is_named(call_cli: CalledCli) -> None:
    for given, missing in ((("--tasks", "x.yaml"), "--backend is missing"), (("--backend", "x"), "--tasks is missing")):
        finished = call_cli("eval", *given)
        assert finished.returncode == 1
        assert missing in finished.stderr


def test_a_metadata_field_that_no_demonstration_has_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path, call_cli: CalledCli
) -> None:
    options = {"model": tiny("llava-1.5"), "projector": "carrier", "device": "cpu", "bank": tmp_path / "bank"}
    pipe = AIMPipeline.from_pretrained("llava", **options)
    pipe.bank.add(Demonstration(Image.new("RGB", (24, 24)), "What?", "a cat", {"label": "animal"}))
    pipe.bank.close()
    for command in ("list", "remove"):
        finished = call_cli("bank", command, str(tmp_path / "bank"), "--where", "labl=animal")
        assert finished.returncode == 1
        assert "no demonstration has a field 'labl'. Did you mean 'label'?" in finished.stderr
    assert "a cat" in call_cli("bank", "list", str(tmp_path / "bank"), "--where", "label=animal").stdout
