"""A part of each kind of an installed distribution is named in Python, in YAML and on the command line."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Projector, Query, get_selector
from aim_sdk.evaluation.metrics import METRICS, get_metric
from aim_sdk.evaluation.tasks import get_task, load
from aim_sdk.evaluation.tasks.registry import LOADERS
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.selection import SELECTORS
from aim_sdk.training import OBJECTIVES, TEACHERS
from aim_sdk.training.corpora import CorpusConfig, DocumentStream, open_corpus
from aim_sdk.training.corpora.registry import FORMATS

PLUGIN = Path(__file__).parents[1] / "plugins" / "aim-parts"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(PLUGIN)
    import aim_parts

    yield aim_parts
    KINDS._here.pop("gated")
    del sys.modules["aim_parts"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two tables, an album and a task's YAML, with the pictures that they name."""
    names = [f"album/{place}.png" for place in range(6)]
    (tmp_path / "album").mkdir()
    for place, name in enumerate(names):
        Image.new("RGB", (40, 40), (40 * place, 90, 200 - 30 * place)).save(tmp_path / name)
    for table in ("queries", "support"):
        with (tmp_path / f"{table}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "text", "answer"])
            rows.writerows([name, "What is it?", "a lynx"] for name in (names[:2] if table == "queries" else names[2:]))
    lines = ["image,caption", *(f"{place}.png,A lynx number {place}." for place in range(6))]
    (tmp_path / "album" / "one.csv").write_text("\n".join(lines))
    task = {
        "name": "rows",
        "title": "Rows",
        "kind": "classification",
        "metric": "first-letter",
        "loader": "rows",
        "files": {"queries": "queries.csv", "support": "support.csv"},
        "source": "here",
        "licence": "CC0-1.0",
        "splits": "one",
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    return tmp_path


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "aim_sdk.cli", *map(str, arguments)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert found.returncode == 0, found.stderr
    return found


def test_each_kind_lists_it_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    for registry, name in [
        (KINDS, "gated"),
        (SELECTORS, "newest"),
        (METRICS, "first-letter"),
        (LOADERS, "rows"),
        (FORMATS, "album"),
        (OBJECTIVES, "sharpen"),
        (TEACHERS, "one-at-a-time"),
    ]:
        assert name in registry
        (info,) = [info for info in registry.infos() if info.name == name]
        assert (info.distribution, info.status) == ("aim-parts", "ready")
    assert "aim_parts" not in sys.modules


def test_each_kind_is_named_in_python(parts: Any, tiny: Callable[[str], Path], files: Path) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=str(tiny("llava-1.5")), device="cpu", projector="gated")
    assert type(pipe.projector) is parts.Gated
    assert type(get_selector("newest")) is parts.Newest
    keys = pipe.bank.add([Demonstration(files / f"album/{place}.png", "Which?", f"a {place}") for place in range(3)])
    (answer,) = pipe.generate([Query(files / "album/5.png", "Which?")], shots=1, selector="newest", max_new_tokens=1)
    assert answer.demonstrations == (keys[-1],)
    assert type(get_metric("first-letter")) is parts.FirstLetter
    assert [item.answers for item in load(get_task(files / "task.yaml"), files).queries] == [("a lynx",)] * 2
    assert OBJECTIVES["sharpen"] is parts.Sharpen
    assert TEACHERS["one-at-a-time"] is parts.OneAtATime
    for name in ("album", "auto"):
        corpus = open_corpus(CorpusConfig(path=files / "album", format=name, min_image_bytes=0))
        assert [len(document.pairs) for document, _ in DocumentStream(corpus, epochs=1)] == [6]


@pytest.mark.slow
def test_each_kind_is_named_in_yaml_and_on_the_command_line(tiny: Callable[[str], Path], files: Path) -> None:
    model = ["--backend", "llava", "--model", tiny("llava-1.5"), "--device", "cpu"]
    config = {
        "output": str(files / "run"),
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "device": "cpu",
        "corpus": {"path": str(files / "album"), "format": "album", "min_image_bytes": 0},
        "projector": {"kind": "gated", "options": {"gate": 1.0}},
        "evaluation": {"every": 0},
        "objective": {"weights": {"sharpen": 1.0}, "teacher": "one-at-a-time"},
        "episodes": {"shots": [1, 2], "text": "What is it?"},
        "steps": 1,
        "batch_size": 1,
        "batches_per_step": 1,
        "workers": 0,
    }
    (files / "train.yaml").write_text(yaml.safe_dump(config))
    cli("train", files / "train.yaml")
    saved = files / "run" / "projector"
    assert json.loads((saved / "projector_config.json").read_text())["options"] == {"gate": 1.0}
    assert (
        "1 documents, of which 1 are"
        in cli("corpus", "inspect", files / "album", "--format", "album", "--min-image-bytes", "0").stdout
    )
    evaluated = cli(
        *("eval", *model, "--projector", saved, "--tasks", files / "task.yaml", "--selector", "newest"),
        *("--shots", "1", "--modes", "aim", "--seeds", "1", "--output", files / "eval"),
    )
    assert "first letter, %" in evaluated.stdout
    cli(
        *("answer", *model, "--projector", "gated", "--selector", "newest", "--shots", "1"),
        *("--demos", files / "support.csv", "--queries", files / "queries.csv", "--out", files / "answers.jsonl"),
    )
    assert len((files / "answers.jsonl").read_text().splitlines()) == 2


def test_a_name_that_is_taken_is_refused(parts: Any) -> None:
    with pytest.raises(RuntimeError, match="projector kind 'linear' is taken by"):
        type("Linear", (Projector,), {"kind": "linear"})
    type("Gated", (Projector,), {"kind": "gated", "__module__": "aim_parts", "__qualname__": "Gated"})
    with pytest.raises(ValueError, match=r"Did you mean 'gated'"):
        untrained("gatd", Any)  # type: ignore[arg-type]
