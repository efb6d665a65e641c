"""Half-downloaded and damaged data end in an error that names the task, the file and the place."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk.errors import InputError, MissingDataError
from aim_sdk.evaluation import tasks
from tests.evaluation_data import WRITERS, dump, image, load, own_task

JSON_TASKS = sorted(set(WRITERS) - {"hateful-memes"})


def json_files(name: str, data: Path) -> list[Path]:
    config = tasks.get_task(name)
    paths = [data / config.folder / file for file in config.files.values()]
    return [path for path in paths if path.is_file()]


def images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


@pytest.mark.parametrize("name", JSON_TASKS)
def test_a_file_that_is_cut_anywhere_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    for path in json_files(name, tmp_path):
        whole = path.read_bytes()
        for share in (0.0, 0.1, 0.5, 0.99):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(InputError) as caught:
                load(name, tmp_path)
            assert not isinstance(caught.value, MissingDataError)
            assert f"task {name!r}: " in str(caught.value)
            assert str(path.parent) in str(caught.value)
        path.write_bytes(whole)
    load(name, tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_missing_images_are_counted_and_named(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    root = tmp_path / tasks.get_task(name).folder
    present = images(root)
    present[0].unlink()
    if name in ("coco", "flickr30k"):  # the first image is of train there
        assert "train" in str(present[0]) or present[0].stem == "100000"
    with pytest.raises(MissingDataError, match="1 of") as caught:
        load(name, tmp_path)
    assert str(present[0]) in str(caught.value)
    assert tasks.get_task(name).source in str(caught.value)


def test_images_of_splits_that_are_not_used_are_not_needed(tmp_path: Path) -> None:
    WRITERS["flickr30k"](tmp_path)
    (tmp_path / "flickr30k" / "flickr30k-images" / "100002.jpg").unlink()  # of val
    load("flickr30k", tmp_path)


def test_many_missing_images_are_three_examples(tmp_path: Path) -> None:
    WRITERS["flickr30k"](tmp_path)
    for path in images(tmp_path):
        path.unlink()
    with pytest.raises(MissingDataError, match=r"4 of 4 images are missing: \S+, \S+, \S+, \.\.\.\. Was"):
        load("flickr30k", tmp_path)


def drop(*names: str) -> Callable[[Any], Any]:
    """Take a field out of an entry."""

    def changed(value: Any) -> Any:
        inner = value
        for name in names[:-1]:
            inner = inner[int(name) if isinstance(inner, list) else name]
        del inner[names[-1]]
        return value

    return changed


@pytest.mark.parametrize(
    ("name", "file", "damage", "place"),
    [
        ("flickr30k", "dataset_flickr30k.json", drop("images", "3", "filename"), "images.3.filename: Field required"),
        ("flickr30k", "dataset_flickr30k.json", drop("images", "1", "sentences"), "images.1.sentences: Field required"),
        ("flickr30k", "dataset_flickr30k.json", drop("images"), "images: Field required"),
        ("flickr30k", "dataset_flickr30k.json", lambda _: [], "object"),
        ("flickr30k", "dataset_flickr30k.json", lambda _: {"images": []}, "no queries in its files"),
        ("coco", "dataset_coco.json", drop("images", "1", "sentences", "0", "raw"), "images.1.sentences.0.raw"),
        ("okvqa", "mscoco_val2014_annotations.json", drop("annotations", "0", "answers"), "annotations.0.answers"),
        ("okvqa", "mscoco_val2014_annotations.json", lambda v: {"annotations": v["annotations"][:1]}, "question 42000"),
        (
            "okvqa",
            "OpenEnded_mscoco_val2014_questions.json",
            drop("questions", "1", "image_id"),
            "questions.1.image_id",
        ),
        ("textvqa", "TextVQA_0.5.1_val.json", drop("data", "1", "answers"), "data.1.answers: Field required"),
        (
            "vizwiz",
            "Annotations/val.json",
            lambda v: [*v, v[0]],
            "VizWiz_val_00000000.jpg: more than one of the queries",
        ),
        (
            "vizwiz",
            "Annotations/val.json",
            lambda v: [v[0] | {"answers": []}],
            "0.answers: List should have at least 1",
        ),
        (
            "vl-icl-clevr",
            "clevr/query.json",
            lambda v: [v[0] | {"image": ["a", "b", "c"]}],
            "0.image: Value should have at most 2",
        ),
        (
            "vl-icl-operator-induction",
            "operator_induction/query.json",
            lambda v: [v[0] | {"operator": "/"}],
            "0.operator: Input should be",
        ),
        ("vl-icl-operator-induction", "operator_induction/support.json", lambda v: [v[0] | {"answer": [1]}], "answer"),
        (
            "vl-icl-matching-mi",
            "matching_mi/support.json",
            lambda v: [{"same": v[0]["same"]}],
            "0.diff: Field required",
        ),
        ("vl-icl-open-mi", "open_mi/query.json", lambda v: [v[0] | {"answer": "wug"}], "no images of class wug"),
        (
            "vl-icl-open-mi",
            "open_mi/query.json",
            lambda v: [v[0] | {"classes": ["dax0"]}],
            "no class other than its own: dax0",
        ),
        (
            "vl-icl-open-mi",
            "open_mi/query.json",
            lambda v: [v[0] | {"classes": ["dax0", "wug"]}],
            "no images of class wug",
        ),
    ],
)
def test_a_malformed_entry_is_named_by_its_place(
    name: str, file: str, damage: Callable[[Any], Any], place: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / tasks.get_task(name).folder / file
    dump(path, damage(json.loads(path.read_text())))
    with pytest.raises(InputError) as caught:
        load(name, tmp_path)
    assert place in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_line_is_named_by_its_number(tmp_path: Path) -> None:
    WRITERS["hateful-memes"](tmp_path)
    path = tmp_path / "hateful_memes" / "train.jsonl"
    whole = path.read_text()
    path.write_text("\ufeff" + whole.replace("\n", "\r\n\r\n"))
    load("hateful-memes", tmp_path)
    path.write_text(whole[:-9])
    with pytest.raises(InputError, match=r"train\.jsonl:2: Invalid JSON"):
        load("hateful-memes", tmp_path)
    path.write_text(whole.replace('"label": 1', '"label": 2'))
    with pytest.raises(InputError, match=r"train\.jsonl:2: label"):
        load("hateful-memes", tmp_path)
    path.write_text(whole.replace('"label": 0, ', ""))
    with pytest.raises(InputError, match=r"train\.jsonl:1: label: Field required"):
        load("hateful-memes", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "a.png"}, r"queries\.jsonl:1: .*either `answer` or a list of `answers`"),
        ({"image": "a.png", "answer": "x", "answers": ["y"]}, "either `answer` or a list of `answers`"),
        ({"image": "a.png", "answers": []}, "either `answer` or a list of `answers`"),
        ({"answer": "x"}, r"queries\.jsonl:1: image: Field required"),
        ({"image": "a.png", "answer": "x", "choices": ["y", "z"]}, "'x' is not one of the choices: y, z"),
        ({"image": "https://example.org/a.png", "answer": "x"}, "got an address"),
        ({"image": "b.png", "answer": "x"}, "1 of 2 images are missing"),
        ([], r"queries\.jsonl:1: "),
    ],
)
def test_a_line_of_an_own_task_says_what_is_wrong(line: Any, message: str, tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    path = own_task(tmp_path, [line], [{"image": "a.png", "answer": "x"}])
    with pytest.raises(InputError, match=message):
        load(path, tmp_path)


def test_all_bad_lines_of_a_task_are_said_at_once(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    good = {"image": "a.png", "answer": "x"}
    path = own_task(tmp_path, [good, {"image": "a.png"}, good, {"answer": "x"}], [good, []])
    with pytest.raises(InputError) as caught:
        load(path, tmp_path)
    head, *listed = str(caught.value).splitlines()
    assert head == "task 'birds': 3 lines cannot be used:"
    assert listed[0] == f"  {tmp_path}/queries.jsonl:2: expected either `answer` or a list of `answers`."
    assert listed[1] == f"  {tmp_path}/queries.jsonl:4: image: Field required."
    assert listed[2].startswith(f"  {tmp_path}/support.jsonl:2: ")
    with pytest.raises(InputError) as caught:
        load(own_task(tmp_path, [good, *[{"answer": "x"}] * 30], [good]), tmp_path)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (7, "task 'birds': 30 lines cannot be used:", "  ... and 25 more.")


def test_a_source_is_named_only_for_the_files_of_others(tmp_path: Path) -> None:
    good = {"image": "a.png", "answer": "x"}
    for queries in ([good], [{"answer": "x"}]):  # an image is missing; a line is bad
        with pytest.raises(InputError) as caught:
            load(own_task(tmp_path / "own", queries, [good]), tmp_path)
        assert "our garden" not in str(caught.value)
        assert "downloaded" not in str(caught.value)
    assert f"Images are named relative to {tmp_path / 'own'}." in _missing(tmp_path / "own", [good])
    (tmp_path / "own" / "support.jsonl").unlink()
    with pytest.raises(MissingDataError) as gone:
        load(tmp_path / "own" / "task.yaml", tmp_path)
    assert "our garden" not in str(gone.value)
    assert "relative to its YAML file" in str(gone.value)
    WRITERS["hateful-memes"](tmp_path)
    (tmp_path / "hateful_memes" / "train.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"cut off, or not the expected file\? Source: https://hatefulmemes"):
        load("hateful-memes", tmp_path)


def _missing(folder: Path, lines: list[Any]) -> str:
    with pytest.raises(MissingDataError) as caught:
        load(own_task(folder, lines, lines), folder)
    return str(caught.value)


def test_own_tasks_that_do_not_fit_together(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    good = {"image": "a.png", "answer": "x"}
    with pytest.raises(InputError, match="0: more than one of the queries"):
        load(own_task(tmp_path, [good, good | {"id": "0"}], [good]), tmp_path)
    with pytest.raises(InputError, match="no support"):
        load(own_task(tmp_path, [good], [good | {"answer": " "}]), tmp_path)
    with pytest.raises(InputError, match="in every line, or in none"):
        load(own_task(tmp_path, [good, good | {"choices": ["x"]}], [good]), tmp_path)
    named = good | {"demonstrations": ["0"]}
    with pytest.raises(InputError, match="query '1' names '9', which does not exist"):
        load(own_task(tmp_path, [named, good | {"demonstrations": ["9"]}], [good]), tmp_path)
    with pytest.raises(InputError, match="query '1' names no demonstrations"):
        load(own_task(tmp_path, [named, good], [good]), tmp_path)
    with pytest.raises(InputError, match=r"looks for 'support'.*Named there: queries"):
        load(own_task(tmp_path, [good], [good], files={"queries": "queries.jsonl"}), tmp_path)
    files = {"queries": "queries.jsonl", "support": "other.jsonl"}
    with pytest.raises(MissingDataError, match=r"other\.jsonl"):
        load(own_task(tmp_path, [good], [good], files=files), tmp_path)


def test_options_that_a_loader_does_not_take(tmp_path: Path) -> None:
    WRITERS["flickr30k"](tmp_path)
    config = tasks.get_task("flickr30k")
    for options, message in (({"queries": "test"}, "support"), ({"querys": "test"}, "Did you mean 'queries'")):
        with pytest.raises(InputError, match=message):
            tasks.load(config.model_copy(update={"options": options}), tmp_path)


def test_coco_images_in_a_folder_that_the_task_does_not_name(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path)
    path = tmp_path / "coco" / "dataset_coco.json"
    path.write_text(path.read_text().replace('"val2014"', '"val2017"'))
    with pytest.raises(InputError, match=r"looks for 'val2017'.*Did you mean 'val2014'"):
        load("coco", tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(JSON_TASKS), st.binary(max_size=40), st.data())
def test_bytes_in_a_file_never_end_in_anything_but_the_sdks_errors(
    tmp_path_factory: pytest.TempPathFactory, name: str, noise: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    WRITERS[name](folder)
    path = data.draw(st.sampled_from(json_files(name, folder)))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:start] + noise + whole[start + data.draw(st.integers(0, 20)) :])
    with suppress(InputError):
        load(name, folder)
