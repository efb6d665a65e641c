"""Each recipe on its family's tiny model, the file unchanged but for paths and sizes; the page's commands in order."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.cli.hf import app as hf

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.evaluation.results import Run
from aim_sdk.projectors.base import Projector
from aim_sdk.testing.tiny import NEEDS
from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.journal import TrainingJournal
from benchmarks.recipes import estimate
from benchmarks.recipes.backbones import BACKBONES
from tests import corpora, evaluation_data
from tests.conftest import CalledCli
from tests.unit.test_recipes import DEFAULT, ONE_AND_SLOW, PAGE, TINY


@pytest.fixture(scope="module")
def mmc4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of MMC4 and its images, which pass the recipes' filters."""
    folder = tmp_path_factory.mktemp("mmc4")
    (folder / "images").mkdir()
    (folder / "docs").mkdir()
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(corpora.picture(number, side=64))
    corpora.lines(folder / "docs" / "docs_no_face_shard_0_v2.jsonl", [corpora.mmc4(number) for number in range(24)])
    return folder


def smaller(mmc4: Path) -> list[str]:
    """What is changed: paths, device, and sizes."""
    return [
        *(f"corpus.path={mmc4 / 'docs'}", f"corpus.images={mmc4 / 'images'}", "device=cpu", "dtype=float32"),
        *("steps=2", "batch_size=2", "batches_per_step=1", "workers=0"),
        *("evaluation.every=2", "evaluation.episodes=4", "evaluation.held_out=0.3", "projector.layers=[1, -1]"),
    ]


@pytest.mark.parametrize("name", ONE_AND_SLOW)
def test_a_recipe_trains_a_projector_that_answers(
    name: str, mmc4: Path, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingJournal, "plot", lambda _: None)  # it takes longer than two steps
    if TINY[name] in NEEDS:
        pytest.importorskip(NEEDS[TINY[name]])
    own = [f"output={tmp_path / 'run'}", f"model={tiny(TINY[name])}"]
    config = TrainingConfig.load(estimate.FOLDER / f"{name}.yaml", [*smaller(mmc4), *own])
    result = train(config, show=False)
    assert (result.step, result.finished) == (2, True)
    assert not set(result.dropped) - {"image listed, but missing"}, result.dropped
    pipe = AIMPipeline.from_pretrained(config.backend, model=config.model, projector=result.projector, device="cpu")
    image = mmc4 / "images" / "0.png"
    pipe.bank.add([Demonstration(image, "What is it?", "a lynx")])
    assert isinstance(pipe(image, "What is it?", max_new_tokens=2), str)
    summary = pipe.projector.summary
    assert summary["steps"] == 2
    assert summary["fitted"] > 0
    assert str(mmc4) not in json.dumps(summary)


@pytest.mark.slow
def test_the_page_from_its_first_command_to_the_hub(
    mmc4: Path, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_cli: CalledCli
) -> None:
    data = tmp_path / "data"
    for task in ("okvqa", "vizwiz", *(task for task in evaluation_data.WRITERS if task.startswith("vl-icl"))):
        evaluation_data.WRITERS[task](data)
    for number, image in enumerate(sorted((*data.rglob("*.jpg"), *data.rglob("*.png")))):
        evaluation_data.image(image, 24, 24, f"hsl({number * 47 % 360}, 90%, {20 + number % 7 * 10}%)")
    uploaded: dict[str, Projector] = {}

    def upload(_: object, *, repo_id: str, folder_path: str, **__: object) -> str:
        uploaded[repo_id] = Projector.from_pretrained(folder_path)
        return "url"

    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "create_repo",
        lambda _, repo_id, **__: huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}"),
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(estimate.FOLDER.parent)
    here = {
        "/data/mmc4": str(mmc4),
        "/data/benchmarks": str(data),
        BACKBONES[DEFAULT].model: str(tiny(TINY[DEFAULT])),
    }
    sizes = {
        "train": [*smaller(mmc4), f"model={tiny(TINY[DEFAULT])}"],
        "eval": [f"data={data}", "dtype=float32", "device=cpu", "limit=1", "shots=[0, 1]"],
    }
    ran = []
    for block in re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        for line in filter(None, map(str.strip, block.splitlines())):
            for written, real in here.items():
                line = line.replace(written, real)
            program, command, *rest = shlex.split(line)
            if program == "hf":
                with pytest.raises(SystemExit, match=r"^0$"):
                    hf([command, *rest])
            elif program == "aim-icl":
                more = sizes["train"] if command == "train" else sizes["eval"] if rest[0] == "run" else []
                few = ["tasks=[okvqa]"] if "tasks=[okvqa, vizwiz]" in rest else []  # this vizwiz has one demonstration
                done = call_cli(command, *rest, *more, *few)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
            else:
                continue
            ran.append(f"{program} {command}")
    assert ran == ["aim-icl corpus", "aim-icl eval", "aim-icl train", "aim-icl eval", "hf upload", "aim-icl eval"]
    run = Run.load(Path("runs", DEFAULT, "evaluation"))
    assert len({score.task for score in run.scores}) == 7
    assert {score.mode for score in run.scores} >= {"zero-shot", "text-only", "interleaved", "aim", "no-image"}
    (name,) = uploaded
    assert name == f"YOU/aim-{DEFAULT}"
    assert uploaded[name].summary["steps"] == 2
