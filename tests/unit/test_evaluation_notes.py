"""What can be used and is perhaps not what was meant is said."""

import json
import warnings
from pathlib import Path

import pytest

from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.metrics import get_metric
from aim_sdk.evaluation.metrics.metric import MetricWarning
from aim_sdk.evaluation.tasks.files import DataWarning
from tests.evaluation_data import WRITERS


def test_an_annotation_without_its_question_is_counted(tmp_path: Path) -> None:
    WRITERS["okvqa"](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = tasks.load(tasks.get_task("okvqa"), tmp_path)
    path = tmp_path / "coco" / "OpenEnded_mscoco_val2014_questions.json"
    content = json.loads(path.read_text())
    lost = content["questions"].pop()
    path.write_text(json.dumps(content))
    with pytest.warns(DataWarning, match=rf"1 of \d+ annotations .* left out: {lost['question_id']}\."):
        fewer = tasks.load(tasks.get_task("okvqa"), tmp_path)
    assert len(fewer.queries) == len(whole.queries) - 1


def test_cider_of_one_word_is_said_to_measure_little() -> None:
    one = [Item("a", "a.png", "", ("red",)), Item("b", "b.png", "", ("blue", "azure"))]
    with pytest.warns(MetricWarning, match="exact_match"):
        get_metric("cider").check(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_metric("cider").check([*one, Item("c", "c.png", "", ("a red square",))])
        get_metric("exact_match").check(one)
