"""No score of an evaluation is better or other than it should be: a query's own example, stale answers, the vote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, Query
from aim_sdk.errors import ArtifactNotFoundError, InputError, ShotsError
from aim_sdk.evaluation.batches import BatchAnswerer
from aim_sdk.evaluation.plan import Plan
from aim_sdk.evaluation.report import markdown
from aim_sdk.evaluation.runner import evaluate
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.selection.nearest import votes
from tests.integration.test_evaluation import run, write_task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def settings(tiny: Callable[[str], Path], task: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "output": tmp_path / "run",
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "projector": "carrier",
        "device": "cpu",
        "tasks": (str(task),),
        "shots": (2,),
        "modes": ("aim",),
        "seeds": 1,
    }


def changed(task: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a task; its YAML says something else."""
    shutil.copytree(task.parent, folder, dirs_exist_ok=True)
    content = yaml.safe_load(task.read_text()) | changes
    (path := folder / "task.yaml").write_text(yaml.safe_dump(content))
    return path


def plan(settings: dict[str, Any], **changes: Any) -> Plan:
    return Plan(EvalSettings.model_validate({**settings, **changes}))


@pytest.mark.parametrize("ids", ["same", "other", "none"])
@pytest.mark.parametrize("selector", ["random", "first"])
def test_a_query_is_never_shown_its_own_example(
    settings: dict[str, Any], task: Path, tmp_path: Path, ids: str, selector: str
) -> None:
    one_file = changed(task, tmp_path / "task")
    rows = [json.loads(line) for line in (one_file.parent / "queries.jsonl").read_text().splitlines()]
    for row in rows:  # answers that tell whose example it is
        row["answer"] = row["image"]
    support = [{**row} for row in rows]
    for row in rows + support:
        if ids == "none":
            del row["id"]
    for row in support if ids == "other" else []:
        row["id"] = f"another-{row['id']}"
    for name, lines in (("queries", rows), ("support", support)):
        (one_file.parent / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = run(settings, tasks=(str(one_file),), shots=(len(rows) - 1,), selector=selector, modes=("aim", "nearest"))
    works = plan(settings, tasks=(str(one_file),)).works
    for answers in made.answers:
        for found in answers.predictions:
            own = works[0].items[found.item].answers[0]
            shown = {item.id: item.answers[0] for item in works[0].dataset.support}
            assert own not in {shown[name] for name in found.demonstrations}
            assert len(set(found.demonstrations)) == len(rows) - 1
            assert answers.cell.mode == "aim" or found.answer != own
    with pytest.raises(ShotsError, match="never shown to itself" if selector == "random" else "query's own"):
        run(settings, tasks=(str(one_file),), shots=(len(rows),), selector=selector, output=tmp_path / "all")


@pytest.mark.parametrize(
    ("metric", "message"),
    [("vqa_accuracy", "can be scored with: exact_match"), ("roc_auc", "log-probability of each of an item's choices")],
)
def test_a_metric_that_does_not_fit_is_found_before_anything_is_answered(
    settings: dict[str, Any], task: Path, tmp_path: Path, metric: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan(settings, tasks=(str(changed(task, tmp_path / metric, metric=metric)),))


def test_a_run_is_scored_again_by_another_metric_without_new_answers(
    settings: dict[str, Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(settings, tasks=(str(changed(task, tmp_path / "task", title="One")),))
    changed(task, tmp_path / "task", title="Other", metric_options={"rule": "vl-icl"})
    monkeypatch.setattr(BatchAnswerer, "answer", lambda *_: pytest.fail("answered again"))
    second = run(settings, tasks=(str(tmp_path / "task" / "task.yaml"),))
    assert second.tasks["colours"]["metric_options"] == {"rule": "vl-icl"}
    assert [a.answer for c in second.answers for a in c.predictions] == [
        a.answer for c in first.answers for a in c.predictions
    ]


@pytest.mark.parametrize("part", ["queries", "support"])
def test_other_data_is_another_run(settings: dict[str, Any], task: Path, tmp_path: Path, part: str) -> None:
    mine = changed(task, tmp_path / "task")
    run(settings, tasks=(str(mine),))
    file = mine.parent / f"{part}.jsonl"
    file.write_text(file.read_text().replace("What colour is it?", "Which colour is it?"))
    with pytest.raises(InputError, match=r"other settings:\n  data.colours"):
        run(settings, tasks=(str(mine),))


def test_another_projector_behind_the_same_name_is_another_run(settings: dict[str, Any], tmp_path: Path) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=settings["model"], projector="carrier", device="cpu")
    pipe.projector.save_pretrained(tmp_path / "projector")
    asked = {**settings, "projector": str(tmp_path / "projector")}
    run(asked)
    other = AIMPipeline.from_pretrained("llava", model=settings["model"], projector="linear", device="cpu")
    shutil.rmtree(tmp_path / "projector")
    other.projector.save_pretrained(tmp_path / "projector")
    with pytest.raises(InputError, match="projector: "):
        run(asked)


def test_the_bank_that_is_there_is_shown_and_not_changed(settings: dict[str, Any], task: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"things: no bank is there"):
        plan(settings, bank=tmp_path / "things")
    assert not (tmp_path / "things").exists()
    pipe = AIMPipeline.from_pretrained(
        "llava", model=settings["model"], projector="carrier", device="cpu", bank=tmp_path / "things"
    )
    rows = [json.loads(line) for line in (task.parent / "support.jsonl").read_text().splitlines()][:3]
    keys = pipe.bank.add([Demonstration(task.parent / r["image"], "Look!", r["answer"]) for r in rows])
    pipe.bank.close()
    for selector in ("random", "reading"):
        made = run(
            settings, bank=tmp_path / "things", selector=selector, output=tmp_path / selector, modes=("aim", "nearest")
        )
        shown = {name for cell in made.answers for p in cell.predictions for name in p.demonstrations}
        assert shown <= set(keys)
        kept = (tmp_path / selector / "images-0.jsonl").read_text()
        assert "queries-0.png" in kept
        assert "support-" not in kept, "the bank's keys say which images its demonstrations had"
    with DemonstrationBank.open(tmp_path / "things") as bank:
        assert list(bank) == keys
        assert not any(path.is_dir() for path in (tmp_path / "things").iterdir())


def test_a_cache_is_no_bank(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cache: leave it out with bank"):
        plan(settings, cache=tmp_path / "a", bank=tmp_path / "b")


def test_the_nearest_of_the_pool_vote(settings: dict[str, Any], task: Path) -> None:
    made = run(settings, modes=("nearest",), shots=(1, 3))
    pipe = AIMPipeline.from_pretrained("llava", model=settings["model"], projector="carrier", device="cpu")
    work = plan(settings).works[0]
    pipe.bank.add([Demonstration(item.image, item.text, item.answers[0]) for item in work.dataset.support])
    for cell in made.answers:
        asked = [Query(item.image, item.text) for item in work.queries]
        expected = [next(iter(shares)) for shares in votes(pipe.bank, asked, cell.cell.shots)]
        assert [p.answer for p in cell.predictions] == expected
        assert {p.prompt_tokens for p in cell.predictions} == {0}


def test_choices_have_the_shares_of_the_votes(settings: dict[str, Any], tmp_path: Path) -> None:
    path = write_task(tmp_path, name="is-it-red", kind="meme", metric="roc_auc", choices=["yes", "no"])
    made = run(settings, tasks=(str(path),), modes=("nearest",))
    (score,) = made.scores
    assert (score.mode, score.metric) == ("nearest", "roc_auc")
    assert all(len(p.log_probs or ()) == 2 for p in made.answers[0].predictions)


def test_what_the_longest_prompt_takes_is_said_before_the_first_is_asked(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    asked = EvalSettings.model_validate({**settings, "modes": ("zero-shot", "aim", "interleaved")})
    made = evaluate(asked, show=False, foresee=said.append)
    assert made is not None
    longest = max(p.prompt_tokens for cell in made.answers for p in cell.predictions)
    (line,) = said
    assert line.startswith("cost: interleaved, "), line
    assert f"up to {longest:,} of " in line, line
    assert line.endswith("fits: yes."), line
    evaluate(asked, show=False, foresee=said.append)
    assert said == [line]  # nothing is left to answer


def test_open_answers_have_no_such_row(settings: dict[str, Any], task: Path, tmp_path: Path) -> None:
    path = changed(task, tmp_path / "task", metric="cider", kind="caption")
    notes: list[str] = []
    asked = EvalSettings.model_validate({**settings, "tasks": (str(path),), "modes": ("nearest", "zero-shot")})
    made = evaluate(asked, show=False, note=notes.append)
    assert made is not None
    assert {score.mode for score in made.scores} == {"zero-shot"}
    assert notes == ["nearest is left out for colours: the answers are not a closed set."]
    with pytest.raises(InputError, match="there is nothing to ask"):
        plan(settings, tasks=(str(path),), modes=("nearest",))


def test_one_bad_item_never_stops_the_others(settings: dict[str, Any], task: Path, tmp_path: Path) -> None:
    """A text that the model refuses is said, and all others are answered."""
    bad = changed(task, tmp_path / "task")
    path = bad.parent / "queries.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["text"] = "What is </s> this?"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(settings, tasks=(str(bad),), modes=("zero-shot", "aim", "text-only"))
    assert {answers.cell.mode for answers in found.answers} == {"zero-shot", "aim", "text-only"}
    for answers in found.answers:
        (refused,) = [p for p in answers.predictions if p.answer is None]
        assert refused.item == rows[1]["id"]
        assert "'</s>'" in str(refused.refused)
    assert all(score.refused == 1 and not score.too_long for score in found.scores)
    page = markdown({"run": found})
    assert "1 of 7 refused" in page
    assert "What is" in page
