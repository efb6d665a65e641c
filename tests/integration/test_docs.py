"""Every Python block of README and docs runs, in order, on real files; generated pages are up to date."""

import http.server
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from aim_sdk import AIMPipeline
from aim_sdk.cli import app
from aim_sdk.testing import CHECKS
from aim_sdk.testing.tiny import gguf_files
from aim_sdk.training import TrainingConfig
from docs import checks, engines
from docs.cli import page as commands_page
from tests.unit.test_project_files import PAGES, ROOT, blocks

HOME = ROOT / "docs" / "index.md"
TUTORIALS = ROOT / "docs" / "tutorials"
# Tutorials, whose commands run too, and the home page run on pocket: slow tests of their own.
# Those of the service need clients of others: tests/integration/test_serve_clients.py; those of vLLM a server:
# tests/conformance/test_vllm.py.
APART = {HOME, *(ROOT / "docs" / "how-to" / name for name in ("serve.md", "vllm.md"))}
EXAMPLES = [page for page in PAGES if blocks(page, "python") and TUTORIALS not in page.parents and page not in APART]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[[str], Path], pictures: list[Image.Image]) -> Path:
    """A reader's folder: images, a checkpoint, a projector made for it."""
    folder = tmp_path_factory.mktemp("desk")
    for name, picture in zip(("a.jpg", "b.jpg", "query.jpg", "lynx.jpg"), pictures, strict=False):
        picture.save(folder / name)
    pipe = AIMPipeline.from_pretrained("llava", model=str(tiny("llava-1.5")), projector="residual", device="cpu")
    pipe.projector.save_pretrained(folder / "projector")
    return folder


@pytest.fixture(scope="module")
def address(desk: Path) -> Iterator[str]:
    """The folder over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(desk))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:no projector was given")
def test_examples_run(
    page: Path, desk: Path, address: str, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []
    monkeypatch.chdir(desk)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, repo_id, **_: _Repository(repo_id))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, repo_id, **_: pushed.append(repo_id))
    gguf_files.build_gguf(tmp_path / "gguf")
    here = {
        "/models/llava-1.5-7b-gguf": str(tmp_path / "gguf"),
        "/models/llava-1.5-7b-hf": str(tiny("llava-1.5")),
        "/models/Qwen2.5-VL-7B-Instruct": str(tiny("qwen2.5-vl")),
        "layers=(16, -1)": "layers=(1, -1)",  # the tiny model has two
        "/projectors/aim-llava-1.5-7b": str(desk / "projector"),
        "/projectors/mine": str(tmp_path / "mine"),
        '"cuda"': '"cpu"',
        '"https://example.org/lynx.jpg"': f'"{address}/lynx.jpg", allow_private=True',
        '"tiny-llava"': repr(str(tmp_path / "tiny-llava")),
    }
    scope: dict[str, object] = {"__name__": "example"}
    for block in blocks(page, "python"):
        for written, real in here.items():
            block = block.replace(written, real)
        exec(compile(block, page.name, "exec"), scope)
    if any("push_to_hub" in block for block in blocks(page, "python")):
        assert pushed == ["me/aim-llava-1.5-7b"]


class _Repository:
    def __init__(self, repo_id: str) -> None:
        self.repo_id = repo_id


@pytest.mark.slow
def test_the_home_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(HOME, "python")
    exec(compile(block, HOME.name, "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_a_table_for_my_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's blocks in the order of the page, in an empty folder, on fewer queries."""
    page = TUTORIALS / "table-for-my-paper.md"
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": "example"}
    ran = 0
    for language, block in re.findall(r"^```(python|bash)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, page.name, "exec"), scope)
            continue
        for line in filter(lambda line: line.startswith("aim-icl "), block.splitlines()):
            fewer = ["--limit", "4"] if "--tasks" in line else []
            result = CliRunner().invoke(app, [*shlex.split(line)[1:], *fewer])
            assert result.exit_code == 0, f"{line}\n{result.output}"
            ran += 1
    assert ran == 4
    table = (tmp_path / "table.tex").read_text()
    assert re.findall(r"(?m)^([a-z-]+) &.* & ", table) == ["zero-shot", "text-only", "interleaved", "aim", "no-image"]
    assert r" \pm " in table
    assert "nan" not in table
    assert "n=4" in table
    assert "| AIM |" in (tmp_path / "runs" / "pocket" / "report.md").read_text()


def test_the_commands_page_is_their_help() -> None:
    written = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert written == commands_page(), "docs/reference/cli.md is out of date; run `make reference`"


def test_the_table_of_engines_is_their_classes() -> None:
    written = engines.PAGE.read_text()
    assert written == engines.page(written), f"{engines.PAGE.name} is out of date; run `make reference`"


def test_the_table_of_checks_is_their_docstrings() -> None:
    written = checks.PAGE.read_text()
    assert all(f"| `{name}` |" in written for name in CHECKS)
    assert written == checks.page(written), f"{checks.PAGE.name} is out of date; run `make reference`"


def test_the_settings_of_a_page_are_valid() -> None:
    (text,) = blocks(ROOT / "docs" / "how-to" / "train-a-projector.md", "yaml")
    assert TrainingConfig.model_validate(yaml.safe_load(text)).projector.kind == "carrier"
