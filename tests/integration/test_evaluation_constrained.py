"""Tasks whose generated answers are constrained: one of some choices, JSON of a schema."""

import json
from pathlib import Path

import pytest
import yaml

from aim_sdk.evaluation import EvalSettings, evaluate
from aim_sdk.evaluation.results import Run
from aim_sdk.evaluation.tasks import get_task

PROTOCOL = """
name: few
description: A few demonstrations of a small pool.
source: this test
shots: [0, 2]
seeds: 1
pool: 6
prompts: {classification: {max_new_tokens: 8}, json: {max_new_tokens: 100}}
"""
UNLIKELY = ("an owl", "a lynx in the snow")
"""What no model would say of these images."""
TASKS = ("easy-vqa-shape", "easy-vqa-json")
MODES = ("zero-shot", "aim", "nearest")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    pytest.importorskip("easy_vqa")
    folder = tmp_path_factory.mktemp("run")
    (protocol := folder / "few.yaml").write_text(PROTOCOL)
    unlikely = get_task("easy-vqa-shape").model_copy(update={"name": "unlikely", "choices": UNLIKELY})
    (task := folder / "unlikely.yaml").write_text(yaml.safe_dump(unlikely.model_dump(mode="json")))
    found = evaluate(
        EvalSettings(
            backend="pocket",
            device="cpu",
            tasks=(*TASKS, str(task)),
            protocol=str(protocol),
            modes=MODES,
            limit=3,
            output=folder / "run",
        ),
        show=False,
    )
    assert found is not None
    return found


def _answers(run: Run, task: str) -> dict[str, list[str]]:
    cells = [cell for cell in run.answers if cell.cell.task == task]
    assert [cell.cell.mode for cell in cells] == list(MODES)
    assert all(one.refused is None and one.fits for cell in cells for one in cell.predictions)
    return {cell.cell.mode: [str(one.answer) for one in cell.predictions] for cell in cells}


def test_answers_are_choices(run: Run) -> None:
    for answers in _answers(run, "easy-vqa-shape").values():
        assert set(answers) <= set(get_task("easy-vqa-shape").choices)
    unlikely = _answers(run, "unlikely")
    assert {answer for mode in ("zero-shot", "aim") for answer in unlikely[mode]} <= set(UNLIKELY)


def test_answers_are_json_of_the_schema_and_each_field_counts(run: Run) -> None:
    schema = get_task("easy-vqa-json").json_schema
    assert schema is not None
    for answers in _answers(run, "easy-vqa-json").values():
        for answer in map(json.loads, answers):
            assert list(answer) == ["shape", "colour"]
            assert all(answer[name] in schema["properties"][name]["enum"] for name in answer)
    for cell in run.answers:
        if cell.cell.task == "easy-vqa-json":
            for one in cell.predictions:
                (expected,) = map(json.loads, run.queries["easy-vqa-json"][one.item].references)
                found = json.loads(str(one.answer))
                assert one.score == 50 * sum(found[name] == expected[name] for name in expected)


def test_it_is_saved_and_read_again(run: Run) -> None:
    path = Path(str(run.settings["output"]))
    assert Run.load(path).scores == run.scores
