"""Tasks whose answers are boxes: shown and read as the backbone writes them, scored as shares of the image."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from aim_backends.auto import AutoBackend
from aim_sdk import AIMPipeline, Box
from aim_sdk.backend.plain_boxes import PlainBoxes, boxes_of
from aim_sdk.errors import InputError
from aim_sdk.evaluation import EvalSettings, evaluate
from aim_sdk.evaluation.batches import BatchAnswerer, QueryInContext
from aim_sdk.evaluation.boxes import boxes_in, boxes_text, check_labels
from aim_sdk.evaluation.demonstrations import DemonstrationDraw
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics import get_metric
from aim_sdk.evaluation.plan import Plan
from aim_sdk.evaluation.protocol import PromptSettings, get_protocol
from aim_sdk.evaluation.results import Run
from aim_sdk.evaluation.tasks import get_task, load
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.testing.steering import saying

BOXES = [Box(0.125, 0.25, 0.5, 0.875, "owl"), Box(0.0, 0.5, 0.25, 1.0, "lynx")]


def test_boxes_are_the_same_after_writing_and_reading() -> None:
    assert boxes_in(boxes_text(BOXES)) == BOXES
    assert boxes_text([Box(0, 0, 1, 1)]) == '[{"box": [0.0, 0.0, 1.0, 1.0]}]'


@pytest.fixture
def task(tmp_path: Path) -> TaskConfig:
    """Two images of a white rectangle, one asked and one shown."""
    for number, box in enumerate(((8, 16, 31, 55), (0, 0, 15, 15))):
        image = Image.new("RGB", (64, 64), "black")
        ImageDraw.Draw(image).rectangle(box, "white")
        image.save(tmp_path / f"{number}.png")
    for name, number, box in (("queries", 0, Box(0.125, 0.25, 0.5, 0.875)), ("support", 1, Box(0, 0, 0.25, 0.25))):
        line = {"image": f"{number}.png", "question": "Where?", "answers": [boxes_text([box])]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line))
    told = {"name": "where", "title": "Where", "kind": "boxes", "metric": "box_iou", "loader": "jsonl"}
    told |= {"files": {"queries": "queries.jsonl", "support": "support.jsonl"}}
    told |= {"source": "this test", "licence": "none", "splits": "one each"}
    (tmp_path / "where.yaml").write_text(yaml.safe_dump(told))
    return get_task(tmp_path / "where.yaml")


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "llava-1.5"])
def test_prompts_and_answers_have_boxes_as_the_family_writes_them(
    family: str, task: TaskConfig, tiny: Callable[[str], Path]
) -> None:
    backend = AutoBackend.from_pretrained(str(tiny(family)), device="cpu")
    prompt, writes = PromptSettings(), boxes_of(backend)
    assert isinstance(writes, PlainBoxes) == (family == "llava-1.5")
    dataset = load(task, Path())
    draw = DemonstrationDraw(task.name, dataset, prompt, get_protocol("aim"), "random", 0, boxes=writes)
    (shown,) = draw.choose(dataset.queries, 1)
    ((_, demonstration),) = shown
    assert demonstration.answer == writes.write_boxes([Box(0, 0, 0.25, 0.25)], demonstration.image)
    (query,) = dataset.queries
    (expected,) = boxes_in(query.answers[0])
    said = writes.write_boxes([expected], query.image)
    ids = backend.backbone.processor.tokenizer(said, add_special_tokens=False).input_ids
    with pytest.warns(UserWarning, match="no projector"):
        answering = BatchAnswerer(AIMPipeline(backend), task, PromptSettings(max_new_tokens=len(ids)))
    with saying(backend, ids):
        (made,) = answering.answer([QueryInContext(query, draw.query(query), shown)], "text-only").predictions
    assert made["raw"] == said
    (found,) = boxes_in(made["answer"])
    assert found.iou(expected) > 0.9
    metric = get_metric(task.metric)
    assert metric.score([Answered(query, made["answer"])]) == 100 * found.iou(expected)


def _change(task: TaskConfig, name: str, **fields: object) -> None:
    path = Path(task.folder, f"{name}.jsonl")
    path.write_text(json.dumps({"id": "the-one"} | json.loads(path.read_text()) | fields))


def _retold(task: TaskConfig, **fields: object) -> Path:
    path = Path(task.folder, "where.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))
    return path


def _settings(task: TaskConfig, **fields: object) -> EvalSettings:
    told = {"backend": "auto", "device": "cpu", "tasks": (str(Path(task.folder, "where.yaml")),), "protocol": "aim"}
    told |= {"shots": (1,), "seeds": 1, "modes": ("text-only",), "output": Path(task.folder, "run")}
    return EvalSettings.model_validate(told | fields)


_PIXELS = '[{"box": [0, 0, 1, 1]}, {"box": [10, 20, 60, 60]}]'


@pytest.mark.parametrize("part", ["queries", "support"])
@pytest.mark.parametrize("modes", [("text-only",), ("zero-shot",)])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answers": [_PIXELS]}, "box 1 of its answer, .*x1 is 10"),
        ({"answers": ["[]", _PIXELS]}, "box 1 of its answer"),
        ({"answers": ["[]"], "choices": ["[]", "none"]}, "`choices`"),
    ],
)
def test_a_bad_reference_is_refused_before_anything_is_loaded(
    task: TaskConfig, part: str, modes: tuple[str, ...], fields: dict[str, object], message: str
) -> None:
    _change(task, part, **fields)
    with pytest.raises(InputError, match=f"task 'where', item 'the-one': .*{message}"):
        Plan(_settings(task, modes=modes))


def test_labels_that_a_notation_cannot_hold_are_refused_with_their_item() -> None:
    good = Item("1", "a.png", "", (boxes_text(BOXES),))
    bad = Item("2", "nowhere.png", "", (boxes_text([*BOXES, Box(0, 0, 1, 1, "a; b")]),))
    check_labels("where", [good, good], PlainBoxes())
    with pytest.raises(InputError, match=r"task 'where', item '2': the label 'a; b' holds ';'"):
        check_labels("where", [good, bad], PlainBoxes())


def test_a_run_refuses_such_labels_before_it_answers(task: TaskConfig, tiny: Callable[[str], Path]) -> None:
    _change(task, "support", answers=[boxes_text([Box(0, 0, 1, 1, "a; b")])])
    settings = _settings(task, model=str(tiny("llava-1.5")))
    with pytest.warns(UserWarning, match="no projector"), pytest.raises(InputError, match="item 'the-one': the label"):
        evaluate(settings, show=False)


def test_a_demonstration_of_nothing_says_none(task: TaskConfig) -> None:
    _change(task, "support", answers=["[]"])
    dataset = load(get_task(Path(task.folder, "where.yaml")), Path())
    draw = DemonstrationDraw("where", dataset, PromptSettings(), get_protocol("aim"), "random", 0, boxes=PlainBoxes())
    assert [shown.answer for shown in draw.shown()] == ["none"]
    assert PlainBoxes().read_boxes("none", "") == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "exact_match"}, "`kind: boxes` and `metric: box_iou` go together"),
        ({"kind": "vqa"}, "`kind: boxes` and `metric: box_iou` go together"),
        ({"choices": ["a", "b"]}, "has no `choices`"),
        ({"json_schema": {"type": "object"}}, "has no `choices` and no `json_schema`"),
    ],
)
def test_a_task_of_boxes_has_their_metric_and_no_constraint(
    task: TaskConfig, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        get_task(_retold(task, **fields))


def test_an_option_of_the_metric_is_refused_among_those_of_the_loader(task: TaskConfig) -> None:
    lost = get_task(_retold(task, options={"threshold": 0.5}))
    with pytest.raises(InputError, match=r"`options` \(threshold\): .*'jsonl' has none.*into `metric_options`"):
        load(lost, Path())
    found = Plan(_settings(get_task(_retold(task, options={}, metric_options={"threshold": 0.5}))))
    assert found.works[0].metric.threshold == 0.5  # type: ignore[attr-defined]


def test_the_boxes_of_easy_vqa_are_those_of_the_shapes() -> None:
    pytest.importorskip("easy_vqa")
    dataset = load(get_task("easy-vqa-boxes"), Path())
    assert (len(dataset.queries), len(dataset.support)) == (1000, 4000)
    for item in dataset.queries[::50]:
        (box,) = boxes_in(item.answers[0])
        pixels = np.asarray(Image.open(str(item.image)).convert("RGB"), int)
        ground = Counter(map(tuple, pixels.reshape(-1, 3))).most_common(1)[0][0]
        differs = np.abs(pixels - ground).sum(2) > 60
        x1, y1, x2, y2 = (round(64 * share) for share in (box.x1, box.y1, box.x2, box.y2))
        differs[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = False
        assert not differs.any(), "all of the shape is in its box, but for a blurred edge"


@pytest.mark.slow
def test_pocket_answers_where_shapes_are(tmp_path: Path) -> None:
    """Pocket was never trained on boxes: what counts is that every answer is scored, and that a run is read again."""
    pytest.importorskip("easy_vqa")
    run = evaluate(
        EvalSettings(
            backend="pocket",
            device="cpu",
            tasks=("easy-vqa-boxes",),
            protocol="aim",
            shots=(2,),
            seeds=1,
            modes=("zero-shot", "text-only", "aim"),
            limit=4,
            output=tmp_path / "run",
        ),
        show=False,
    )
    assert run is not None
    for cell in run.answers:
        for one in cell.predictions:
            assert one.raw is not None
            assert one.answer == boxes_text(PlainBoxes().read_boxes(one.raw, ""))
            assert one.score is not None
    assert Run.load(tmp_path / "run").scores == run.scores
    prompt = run.examples["easy-vqa-boxes"]["text-only"].prompt
    assert prompt is None or "[" in prompt
    shown = run.examples["easy-vqa-boxes"]["aim"].shown
    assert all(PlainBoxes().read_boxes(answer, "") for _, answer in shown)
