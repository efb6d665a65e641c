"""Boxes: what is written is read again, in every notation, and nothing else is."""

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import clean_text_and_extract_entities_with_bboxes
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from aim_backends.auto import AutoBackend
from aim_backends.families.notations import NOTATIONS
from aim_backends.families.table import FAMILIES
from aim_sdk import AIMPipeline, Box, Demonstration
from aim_sdk.backend import Notation, PlainBoxes, WritesBoxes, capability
from aim_sdk.backend.boxes import Steps
from aim_sdk.errors import CapabilityError, FormatError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.testing import run_checks
from aim_sdk.testing.samples import PICTURES, picture

CALM = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
ALL = {**NOTATIONS, "plain": PlainBoxes.notation}
NAMES = st.sampled_from(sorted(ALL))
_SIDES = ("x1", "y1", "x2", "y2")
_ODD = st.sampled_from(
    [
        '"owl"',
        "{label}",
        "<b>",
        "(1,2),(3,4)",
        "\\n",
        "a:b, c",
        "猫 é",
        "```",
        "'",
        "[1, 2]",
        "|",
        ">",
        ", and",
        "and",
        "1.",
        "- ",
        "**",
        ":",
        "*",
    ]
)


def _steps(name: str, draw: Callable[[Any], Any]) -> Steps:
    if name == "kosmos-2":
        return 32, 32
    if (steps := ALL[name].steps) is not None:
        return steps, steps
    return draw(st.integers(2, 2000)), draw(st.integers(2, 2000))


def _labels(notation: Notation) -> st.SearchStrategy[str]:
    words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=12)
    joined = st.lists(st.one_of(words, _ODD), max_size=3).map(lambda parts: " ".join(parts).strip())
    return joined.filter(lambda text: len(text.splitlines()) < 2 and _writable(notation, text))


def _writable(notation: Notation, label: str) -> bool:
    try:
        notation.check_label(label)
    except InputError:
        return False
    return True


@st.composite
def _free(draw: Any, notation: Notation) -> Box:
    """Any box, tiny ones too."""
    (x1, x2), (y1, y2) = (sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2))) for _ in "xy")
    assume(x1 < x2 and y1 < y2)
    return Box(x1, y1, x2, y2, draw(_labels(notation)))


@st.composite
def _on_grid(draw: Any, name: str, steps: Steps) -> Box:
    """A box that the notation writes exactly."""
    notation: Any = ALL[name]

    def side(count: int) -> tuple[float, float]:
        if name == "kosmos-2":  # from the middle of a cell to the middle of a later one
            low, high = sorted(draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
            return (low + 0.5) / count, (high + 0.5) / count
        largest = count - notation.last
        assume(largest > 0)
        low, high = sorted(draw(st.lists(st.integers(0, largest), min_size=2, max_size=2, unique=True)))
        return low / count, high / count

    (x1, x2), (y1, y2) = side(steps[0]), side(steps[1])
    return Box(x1, y1, x2, y2, draw(_labels(notation)))


@CALM
@given(name=NAMES, data=st.data())
def test_boxes_on_the_grid_are_read_exactly(name: str, data: Any) -> None:
    steps = _steps(name, data.draw)
    boxes = data.draw(st.lists(_on_grid(name, steps), min_size=1, max_size=4))
    text = ALL[name].write(boxes, steps)
    assert ALL[name].read(text, steps) == boxes
    assert "\n" not in text


@CALM
@given(name=NAMES, data=st.data())
def test_boxes_move_by_no_more_than_a_step_and_then_stay(name: str, data: Any) -> None:
    notation, steps = ALL[name], _steps(name, data.draw)
    boxes = data.draw(st.lists(_free(notation), min_size=1, max_size=4))
    text = notation.write(boxes, steps)
    read = notation.read(text, steps)
    assert [box.label for box in read] == [box.label for box in boxes]
    for box, one in zip(boxes, read, strict=True):
        for side, count in zip(_SIDES, [*steps, *steps], strict=True):
            # half a step by rounding; a step if the box is smaller than one, or its last number is missing
            assert abs(getattr(box, side) - getattr(one, side)) * count <= 1.5
    assert notation.write(read, steps) == text


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("corners", [(0, 0, 1, 5e-324), (0, 0, 5e-324, 1), (1 - 2**-53, 1 - 2**-53, 1, 1)])
def test_a_box_thinner_than_any_step_is_read_again(name: str, corners: tuple[float, float, float, float]) -> None:
    steps = _steps(name, lambda _: 100)
    assert len(ALL[name].read(ALL[name].write([Box(*corners)], steps), steps)) == 1


@CALM
@given(name=NAMES, data=st.data())
def test_a_cut_answer_gives_the_first_boxes(name: str, data: Any) -> None:
    notation, steps = ALL[name], _steps(name, data.draw)
    text = notation.write(data.draw(st.lists(_free(notation), min_size=1, max_size=3)), steps)
    whole = [_corners(box) for box in notation.read(text, steps)]
    found = [_corners(box) for box in notation.read(text[: data.draw(st.integers(0, len(text)))], steps)]
    assert found == whole[: len(found)]


@CALM
@given(name=NAMES, text=st.text(max_size=40), data=st.data())
def test_any_text_is_read_and_text_around_boxes_changes_none(name: str, text: str, data: Any) -> None:
    notation, steps = ALL[name], _steps(name, data.draw)
    notation.read(text, steps)
    boxes = data.draw(st.lists(_free(notation), min_size=1, max_size=2))
    written = notation.write(boxes, steps)
    kept = [_corners(box) for box in notation.read(written, steps)]
    assert [_corners(box) for box in notation.read(f"Here: {written} .", steps)] == kept


def _corners(box: Box) -> tuple[float, ...]:
    return box.x1, box.y1, box.x2, box.y2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen2-vl", "<|box_start|>(500,200),(100,600)<|box_end|>"),  # the corners in another order
        ("qwen2-vl", "<|box_start|>(100,200),(500,1001)<|box_end|>"),  # outside
        ("qwen2-vl", "<|box_start|>(100,200),(500)<|box_end|>"),
        ("qwen2-vl", "<|box_start|>(100,200),(500,-600)<|box_end|>"),
        ("qwen3-vl", '[{"bbox_2d": [100, 200, 500]}]'),
        ("qwen3-vl", '[{"bbox_2d": [100, 200, 500, true]}]'),
        ("qwen3-vl", '[{"bbox_2d": [100, 200, 500, NaN]}]'),
        ("qwen3-vl", '[{"bbox_2d": [100, 200, 500, 1e400]}]'),
        ("qwen3-vl", '[{"bbox_2d": [100, 200, 500, "600"]}]'),
        ("qwen3-vl", '[{"bbox": [100, 200, 500, 600]}]'),
        ("qwen3-vl", "[100, 200, 500, 600]"),
        ("qwen3-vl", "[" * 5000),
        ("internvl", "<ref>a</ref>[[100, 200, 500, 600]]"),
        ("paligemma", "<loc0100><loc0200><loc0050><loc0300> cat"),
        ("paligemma", "<loc0100><loc0200><loc1030><loc0300> cat"),
        ("kosmos-2", "<object><patch_index_0100><patch_index_0001></object>"),
        ("kosmos-2", "<object><patch_index_0100><patch_index_1024></object>"),
        ("plain", "cat [10, 20, 30, 101]"),
        ("plain", "cat [10, 20, 30, 9999999999]"),
        ("plain", "cat (10, 20, 30, 40)"),
        ("plain", "cat [[10, 20, 30, 40]]"),
        ("plain", "<ref>cat</ref><box>[[10, 20, 30, 40], [15, 25, 35, 45], [1, 2, 5, 9]]</box>"),
        ("plain", "<ref>cat</ref><box>[[10, 20, 30, 40], [15, 2"),
        ("plain", "<box>[10, 20, 30, 40]</box>"),
        ("plain", '[{"bbox_2d": [10, 20, 30, 40], "label": "cat"}]'),
        ("plain", "{'bbox_2d': [10, 20, 30, 40]}"),
    ],
)
def test_what_is_no_box_is_none(name: str, text: str) -> None:
    side = 32 if name == "kosmos-2" else ALL[name].steps or 0
    assert ALL[name].read(text, (side, side)) == []


def test_answers_as_the_families_publish_them() -> None:
    def read(name: str, text: str, steps: Steps) -> list[Box]:
        return ALL[name].read(text, steps)

    k = (1000, 1000)
    assert read(
        "qwen2-vl", "<|object_ref_start|>hands<|object_ref_end|><|box_start|>(536, 509),(588,602)<|box_end|>", k
    ) == [Box(0.536, 0.509, 0.588, 0.602, "hands")]
    fenced = '```json\n[\n\t{"bbox_2d": [64, 48, 322, 238], "label": "owl"},\n\t{"bbox_2d": [0, 0, 644, 476]}\n]\n```'
    assert read("qwen2.5-vl", fenced, (644, 476)) == [Box(64 / 644, 48 / 476, 0.5, 0.5, "owl"), Box(0, 0, 1, 1)]
    assert read("qwen3-vl", 'It is {"bbox_2d": [135, 114, 1000, 672]}.', k) == [Box(0.135, 0.114, 1, 0.672)]
    several = (
        "<ref>circle</ref><box>[[278,24,354,100],[515,10,611,106]]</box> and a "
        "<ref>road</ref><box>[[0, 604, 984, 999]]</box>"
    )
    assert [box.label for box in read("internvl", several, k)] == ["circle", "circle", "road"]
    assert read(
        "paligemma", "<loc0256><loc0000><loc0512><loc1023> cat ; <loc0000><loc0512><loc0256><loc0768> dog", (1024, 1024)
    ) == [
        Box(0, 0.25, 1023 / 1024, 0.5, "cat"),
        Box(0.5, 0, 0.75, 0.25, "dog"),
    ]


@CALM
@given(data=st.data())
def test_kosmos_2_is_read_as_transformers_reads_it(data: Any) -> None:
    notation = NOTATIONS["kosmos-2"]
    boxes = data.draw(st.lists(_free(notation), min_size=1, max_size=3))
    assume(all(box.label and "<" not in box.label for box in boxes))
    text = notation.write(boxes, (32, 32))
    _, entities = clean_text_and_extract_entities_with_bboxes(text, 32)
    expected = [(label, corners) for label, _, found in entities for corners in found]
    assert [(box.label, _corners(box)) for box in notation.read(text, (32, 32))] == expected


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].marks])
def test_a_label_holds_no_mark(name: str) -> None:
    for mark in ALL[name].marks:
        with pytest.raises(InputError, match="which is a mark of this notation"):
            ALL[name].write([Box(0, 0, 1, 1, f"a {mark} b")], (32, 32))
    with pytest.raises(InputError, match="no boxes to write"):
        ALL[name].write([], (32, 32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.5, 0, 0.5, 1), "x1 < x2"),
        ((0, 1, 1, 0), "upper left corner"),
        ((0, 0, 1.01, 1), "x2 is 1.01"),
        ((float("nan"), 0, 1, 1), "x1 is nan"),
        ((0, 0, True, 1), "x2 is True"),
        ((0, 0, 1, 1, "a\nb"), r"U\+000A, a line break; expected one line of text"),
        ((0, 0, 1, 1, "\x0bz"), r"U\+000B, a line break"),
        ((0, 0, 1, 1, "z\x85"), r"U\+0085, a line break"),
        ((0, 0, 1, 1, "\u2028z"), r"U\+2028, a line break"),
        ((0, 0, 1, 1, "a\x00b"), r"U\+0000, a control character"),
        ((0, 0, 1, 1, "a\tb"), r"U\+0009, a control character"),
        ((0, 0, 1, 1, "\ud800"), r"U\+D800, half of a surrogate pair"),
        ((10, 20, 110, 220), "x1 is 10; .* Divide x by the image's width and y by its height"),
        ((0, 0, 10**5000, 1), "x2 is int of thousands of digits"),
        ((0, 0, 10**100, 1), r"x2 is 10{59}\.\.\."),
        (("0.1", 0, 1, 1), "x1 is '0.1'"),
        ((np.bool_(0), 0, 1, 1), "x1 is bool"),
        ((np.array([0.1]), 0, 1, 1), "x1 is ndarray"),
        ((0.1 + 0j, 0, 1, 1), "x1 is complex"),
        ((0, 0, 1, 1, None), "NoneType"),
    ],
)
def test_a_box_is_checked(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Box(*values)


@CALM
@given(data=st.data())
def test_iou_is_a_share(data: Any) -> None:
    one, other = (data.draw(_on_grid("plain", (20, 20))) for _ in range(2))
    assert one.iou(one) == 1
    assert one.iou(other) == other.iou(one)
    cells = [{(x, y) for x in range(20) for y in range(20) if _covers(box, x, y)} for box in (one, other)]
    assert one.iou(other) == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]))


def test_boxes_that_are_tiny_or_none_have_an_iou_or_a_message() -> None:
    tiny = Box(0, 0, 1e-200, 1e-200)
    assert tiny.iou(tiny) == 1
    assert tiny.iou(Box(0, 0, 1e-200, 5e-201)) == 0.5
    assert tiny.iou(Box(0, 0, 1, 1)) == Box(0.5, 0.5, 1, 1).iou(tiny) == 0
    wrong: Any = (0, 0, 1, 1)
    with pytest.raises(InputError, match=r"Box\.iou: got tuple \(0, 0, 1, 1\); expected a Box"):
        tiny.iou(wrong)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.25, 0, 0.5, 1], np.float32),
        np.array([0.25, 0, 0.5, 1], np.float64),
        torch.tensor([0.25, 0, 0.5, 1]),
        [Fraction(1, 4), np.int64(0), np.float16(0.5), 1],
    ],
)
def test_coordinates_are_real_numbers_of_any_kind(values: Any) -> None:
    box = Box(*values)
    assert box == Box(0.25, 0, 0.5, 1)
    assert [type(getattr(box, side)) for side in _SIDES] == [float] * 4


@pytest.mark.parametrize("name", sorted(ALL))
def test_any_iterable_of_boxes_is_written_and_nothing_else(name: str) -> None:
    steps = _steps(name, lambda _: 100)
    boxes = [Box(0, 0, 0.5, 0.5, "lynx"), Box(0.5, 0.5, 1, 1, "owl")]
    written = ALL[name].write(boxes, steps)
    assert ALL[name].write((box for box in boxes), steps) == ALL[name].write(tuple(boxes), steps) == written
    assert ALL[name].write({"a": boxes[0], "b": boxes[1]}.values(), steps) == written
    wrong: list[tuple[Any, str]] = [
        (boxes[0], "got one Box"),
        (set(boxes), "got set"),
        ("abc", "got 'abc'"),
        (None, "got None"),
        ({"box": boxes[0]}, "got dict"),
        ([[0, 0, 1, 1]], r"number 0 is list \[0, 0, 1, 1\]; expected a Box"),
        ([boxes[0], {"box": [0, 0, 1, 1]}], "number 1 is dict"),
        (iter(()), "no boxes to write"),
    ]
    for given_, message in wrong:
        with pytest.raises(InputError, match=message):
            ALL[name].write(given_, steps)


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("text", [None, b"x", 5, ["a"]])
def test_only_strings_are_read(name: str, text: Any) -> None:
    with pytest.raises(InputError, match="read from an answer's text; got"):
        ALL[name].read(text, (100, 100))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("There is a lynx [10, 25, 48, 90] and an owl [1, 2, 3, 4].", ["There is a lynx", "an owl"]),
        ("lynx [10, 25, 48, 90], owl [1, 2, 3, 4], and bat [1, 2, 3, 4]", ["lynx", "owl", "bat"]),
        ("lynx [10, 25, 48, 90]. An owl [1, 2, 3, 4]", ["lynx", "An owl"]),
        ("- lynx: [10, 25, 48, 90]\n- owl: [1, 2, 3, 4]", ["lynx", "owl"]),
        ("1. **lynx** [10, 25, 48, 90]\n2. **owl**: [1, 2, 3, 4]", ["lynx", "owl"]),
        ("* *lynx* [10, 25, 48, 90]; [1, 2, 3, 4]", ["lynx", ""]),
        ("Here they are:\nlynx : [10,25, 48 ,\n90]", ["lynx"]),
        ("see [1] lynx [10, 25, 48, 90]", ["lynx"]),
        ("a and b [10, 25, 48, 90]; and c [1, 2, 3, 4]", ["a and b", "and c"]),
        ("[[1, 2, 3, 4]] then owl [1, 2, 3, 4]", ["then owl"]),
    ],
)
def test_plain_labels_are_what_stands_before_a_box(text: str, labels: list[str]) -> None:
    assert [box.label for box in PlainBoxes().read_boxes(text, "")] == labels


@pytest.mark.parametrize("label", ["- lynx", "**lynx**", "lynx:", "1. lynx", "a <box>"])
def test_a_plain_label_that_would_be_read_otherwise_is_refused(label: str) -> None:
    with pytest.raises(InputError, match="would be read as"):
        PlainBoxes().write_boxes([Box(0, 0, 1, 1, label)], "")


@pytest.mark.parametrize("text", ["a " * 20_000, "[" * 20_000, "[1, " * 20_000, " " * 40_000 + "x", "* " * 20_000])
def test_long_texts_are_read_quickly(text: str) -> None:
    started = time.perf_counter()
    assert len(PlainBoxes().read_boxes(text + "[0, 0, 50, 50]", "")) < 2
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('[{"bbox_2d": [1, 2, 3, 4], "label": null}, {"bbox_2d": [1, 2, 3, 4], "label": 7}]', ["", "7"]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a\\r\\nb\\u0000"}]', ["a b"]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": ["a"]}, {"bbox_2d": [1, 2, 3, 4], "label": "\\ud800"}]', ["", ""]),
        ('{"objects": [{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"in": {"bbox_2d": [1, 2, 3, 4]}}]}', ["a", ""]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a", "parts": [{"bbox_2d": [1, 2, 3, 4], "label": "b"}]}', ["a", "b"]),
    ],
)
def test_boxes_in_json_are_found_with_any_label_and_at_any_depth(text: str, labels: list[str]) -> None:
    assert [box.label for box in NOTATIONS["qwen3-vl"].read(text, (1000, 1000))] == labels


def test_a_group_that_is_cut_keeps_its_whole_boxes() -> None:
    whole = [Box(0.1, 0.25, 0.48, 0.9, "lynx"), Box(0.1, 0.2, 0.3, 0.4, "lynx"), Box(0, 0, 1, 1, "lynx")]
    for name, steps in (("internvl", (1000, 1000)), ("kosmos-2", (32, 32))):
        text = NOTATIONS[name].write(whole, steps)
        boxes = NOTATIONS[name].read(text, steps)
        assert NOTATIONS[name].read(text[:-25], steps) == boxes[:2]
        assert NOTATIONS[name].read(text[:-3], steps) == boxes


def test_a_thin_box_at_the_edge_is_written_where_it_is_in_json() -> None:
    thin = Box(0.999, 0, 1, 1)
    text = NOTATIONS["qwen2.5-vl"].write([thin], (64, 64))
    assert text == '[{"bbox_2d": [63, 0, 64, 63]}]'
    (read,) = NOTATIONS["qwen2.5-vl"].read(text, (64, 64))
    assert read.iou(thin) > 0
    assert NOTATIONS["qwen2.5-vl"].write([read], (64, 64)) == text


def _covers(box: Box, x: int, y: int) -> bool:
    return box.x1 < (x + 0.5) / 20 < box.x2 and box.y1 < (y + 0.5) / 20 < box.y2


def test_every_notation_is_of_a_family() -> None:
    assert {family.boxes for family in FAMILIES.values()} - {""} == set(NOTATIONS)


def _pipe(folder: Path) -> AIMPipeline:
    with pytest.warns(UserWarning, match="no projector was given"):
        return AIMPipeline.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("size", [(50, 40), (320, 240), (200, 40), (40, 110), (20, 20), (641, 479)])
def test_pixels_are_those_that_the_processor_resizes_to(tiny: Callable[[str], Path], size: tuple[int, int]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("qwen2.5-vl")), device="cpu")
    images = backend.backbone.processor.image_processor
    limits = {"min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"]}
    down, across = smart_resize(size[1], size[0], images.patch_size * images.merge_size, **limits)
    written = backend.write_boxes([Box(0.25, 0, 0.5, 1, "it")], picture(*size, 0))  # type: ignore[attr-defined]
    assert written == f'[{{"bbox_2d": [{across // 4}, 0, {across // 2}, {down - 1}], "label": "it"}}]'


def test_a_family_s_boxes_stand_in_demonstrations(tiny: Callable[[str], Path]) -> None:
    pipe = _pipe(tiny("qwen2-vl"))
    boxes = [Box(0.1, 0.2, 0.5, 0.6, "a lynx"), Box(0, 0, 1, 1)]
    answer = pipe.boxes.write_boxes(boxes, PICTURES[0])
    assert "<|box_start|>" in answer
    pipe.bank.add([Demonstration(PICTURES[0], "Where is it?", answer)])
    assert pipe.boxes.read_boxes(pipe(PICTURES[1], "Where is it?", shots=1, max_new_tokens=4), PICTURES[1]) == []
    ended = pipe.boxes.write_boxes([Box(0, 0, 1, 1, "it<|im_end|>")], PICTURES[0])
    with pytest.raises(FormatError, match="special token"):
        pipe.bank.add([Demonstration(PICTURES[0], "Where is it?", ended)])


def test_a_family_without_a_notation_writes_plainly(tiny: Callable[[str], Path]) -> None:
    pipe = _pipe(tiny("llava-1.5"))
    assert pipe.boxes.write_boxes([Box(0, 0.5, 1, 0.75, "a lynx")], PICTURES[0]) == "a lynx [0, 50, 100, 75]"
    with pytest.raises(CapabilityError, match=r"'boxes'.*how 'llava' writes boxes is not known"):
        capability(pipe.backend, WritesBoxes)
    backend: Any = pipe.backend
    calls: Sequence[Callable[[], object]] = (
        lambda: backend.write_boxes([Box(0, 0, 1, 1)], PICTURES[0]),
        lambda: backend.read_boxes("", PICTURES[0]),
    )
    for call in calls:
        with pytest.raises(CapabilityError, match="'boxes'"):
            call()


def _hides_marks(backend: Any) -> None:
    backend.backbone.box_ids = frozenset()


def _reads_pixels_of_the_file(backend: Any) -> None:
    backend.read_boxes = lambda text, image: NOTATIONS["qwen2.5-vl"].read(text, load_image(image).size)


def _turns_corners(backend: Any) -> None:
    write = backend.write_boxes
    backend.write_boxes = lambda boxes, image: write([Box(b.y1, b.x1, b.y2, b.x2, b.label) for b in boxes], image)


def _forgets_labels(backend: Any) -> None:
    read = backend.read_boxes
    backend.read_boxes = lambda text, image: [Box(*_corners(box)) for box in read(text, image)]


def _guesses(backend: Any) -> None:
    read = backend.read_boxes
    backend.read_boxes = lambda text, image: read(text, image) or [Box(0, 0, 1, 1, "all of it")]


def _writes_lines(backend: Any) -> None:
    write = backend.write_boxes
    backend.write_boxes = lambda boxes, image: write(boxes, image) + "\n"


@pytest.mark.parametrize(
    ("family", "bug"),
    [
        ("qwen2-vl", _hides_marks),
        ("qwen2.5-vl", _reads_pixels_of_the_file),
        *(("qwen2-vl", bug) for bug in (_turns_corners, _forgets_labels, _guesses, _writes_lines)),
    ],
)
def test_the_kit_catches(tiny: Callable[[str], Path], family: str, bug: Callable[[Any], None]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny(family)), device="cpu")
    (before,) = run_checks(backend, checks=["boxes_are_kept"])
    assert before.status == "passed", before.message
    bug(backend)
    (after,) = run_checks(backend, checks=["boxes_are_kept"])
    assert after.status == "failed", after.message


@pytest.mark.parametrize("family", ["qwen3-vl", "internvl", "paligemma", "kosmos-2"])
def test_every_family_keeps_its_boxes(tiny: Callable[[str], Path], family: str) -> None:
    backend = AutoBackend.from_pretrained(str(tiny(family)), device="cpu")
    (found,) = run_checks(backend, checks=["boxes_are_kept"])
    assert found.status == "passed", found.message
