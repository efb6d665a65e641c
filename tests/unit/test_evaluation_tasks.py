"""Tasks read the published files as their benchmarks mean them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from aim_sdk.errors import InputError, MissingDataError
from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.registry import LOADERS
from aim_sdk.files.images import image_size, load_image
from tests.evaluation_data import WRITERS, image, load, own_task

PACKAGED = (
    "easy-vqa",
    "easy-vqa-boxes",
    "easy-vqa-json",
    "easy-vqa-shape",
    "emoji-category",
    "emoji-labels",
    "emoji-names",
)


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task's name, and a data folder with its files."""
    WRITERS[request.param](data := tmp_path_factory.mktemp("data"))
    return request.param, data


def ids(items: list[Item] | tuple[Item, ...]) -> list[str]:
    return [item.id for item in items]


def read(name: str, data: Path) -> Dataset:
    WRITERS[name](data)
    return load(name, data)


def test_every_task_is_valid_and_can_be_read_or_written() -> None:
    names = [config.name for config in tasks.list_tasks()]
    assert names == sorted([*WRITERS, *PACKAGED])
    assert names == [tasks.get_task(name).name for name in names]
    assert {config.loader for config in tasks.list_tasks()} | {"jsonl"} == set(LOADERS)
    assert all(config.install for config in tasks.list_tasks() if config.package)


def test_the_readme_is_written_from_the_tasks() -> None:
    assert Path(tasks.__file__).with_name("README.md").read_text() == tasks.readme()


def test_listing_tasks_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "PIL", "aim_backends", "easy_vqa", "aim_sdk.evaluation.tasks.emoji")
    code = (
        "import sys; from pathlib import Path; from aim_sdk.evaluation import tasks; tasks.status(Path('data')); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_any_task_gives_items_that_can_be_asked_and_shown(written: tuple[str, Path]) -> None:
    name, data = written
    dataset = load(name, data)
    for items in (dataset.queries, dataset.support):
        assert len({item.id for item in items}) == len(items) > 0
        for item in items:
            assert item.answers
            assert all(isinstance(answer, str) for answer in item.answers)
            assert image_size(item.image) > (0, 0)
            assert not item.choices or item.answers[0] in item.choices
    assert load(name, data).queries == dataset.queries  # the same at every run


@pytest.mark.parametrize("name", PACKAGED)
def test_tasks_of_packages_are_ready_here(name: str, tmp_path: Path) -> None:
    dataset = load(name, tmp_path / "nowhere")
    assert len({item.id for item in dataset.queries}) == len(dataset.queries)
    for item in random.Random(0).sample(dataset.queries, 5):
        load_image(item.image)


def test_captions_of_flickr30k_are_karpathys(tmp_path: Path) -> None:
    dataset = read("flickr30k", tmp_path)
    assert ids(dataset.queries) == ["100001", "100003"]
    assert ids(dataset.support) == ["100000", "100004"]
    assert dataset.queries[0].answers == tuple(f"Caption {place} of 1." for place in range(5))
    assert dataset.queries[0].image == str(tmp_path / "flickr30k" / "flickr30k-images" / "100001.jpg")
    assert dataset.queries[0].text == ""


def test_captions_of_coco_leave_restval_out_and_find_both_folders(tmp_path: Path) -> None:
    dataset = read("coco", tmp_path)
    assert (ids(dataset.queries), ids(dataset.support)) == (["1"], ["0"])
    assert dataset.queries[0].image == str(tmp_path / "coco" / "val2014" / "COCO_val2014_000000000001.jpg")


@pytest.mark.parametrize("name", ["vqav2", "okvqa"])
def test_vqa_joins_questions_and_annotations_by_id(name: str, tmp_path: Path) -> None:
    dataset = read(name, tmp_path)
    assert ids(dataset.queries) == ["42000", "42001"]
    assert ids(dataset.support) == ["9000", "9001"]
    assert dataset.queries[1].text == "What is 1?"
    assert dataset.queries[1].answers == ("a cat 42001",) * 9 + ("dog",)
    assert dataset.support[0].image == str(tmp_path / "coco" / "train2014" / "COCO_train2014_000000000009.jpg")


def test_textvqa_has_one_folder_of_images(tmp_path: Path) -> None:
    dataset = read("textvqa", tmp_path)
    assert ids(dataset.queries) == ["34602", "34603"]
    assert dataset.queries[0].answers[-2:] == ("dakota", "nous les gosses")
    assert dataset.support[0].image == str(tmp_path / "textvqa" / "train_images" / "003a8ae2ef43b90t.jpg")


def test_vizwiz_goes_by_images_and_never_shows_a_blank_answer(tmp_path: Path) -> None:
    dataset = read("vizwiz", tmp_path)
    assert ids(dataset.queries) == ["VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg"]
    assert ids(dataset.support) == ["VizWiz_train_00000000.jpg"]
    assert dataset.queries[1].answers == ("unanswerable",) * 9 + ("",)


def test_hateful_memes_are_yes_or_no(tmp_path: Path) -> None:
    dataset = read("hateful-memes", tmp_path)
    assert [(item.id, item.answers) for item in dataset.queries] == [("8291", ("no",)), ("46971", ("yes",))]
    assert dataset.queries[0].choices == ("yes", "no")
    assert dataset.queries[0].text == "words on 8291"
    assert dataset.queries[0].image == str(tmp_path / "hateful_memes" / "img/08291.png")


def test_easy_vqa_is_the_packages_own_data(tmp_path: Path) -> None:
    easy_vqa = pytest.importorskip("easy_vqa")
    dataset = load("easy-vqa", tmp_path)
    questions, answers, images = easy_vqa.get_test_questions()
    assert [item.text for item in dataset.queries] == questions
    assert [item.answers for item in dataset.queries] == [(answer,) for answer in answers]
    paths = easy_vqa.get_test_image_paths()
    assert [os.path.samefile(str(dataset.queries[i].image), paths[images[i]]) for i in (0, 999)] == [True, True]
    assert len(dataset.support) == len(easy_vqa.get_train_questions()[0])
    assert {item.metadata["kind"] for item in dataset.queries} == {"yes/no", "shape", "colour"}
    colours = {item.answers[0] for item in dataset.queries if item.metadata["kind"] == "colour"}
    assert colours == {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}


def test_easy_vqas_images_have_the_answers_of_their_questions(tmp_path: Path) -> None:
    pytest.importorskip("easy_vqa")
    told = {
        (item.metadata["image"], item.metadata["kind"], item.answers[0]) for item in load("easy-vqa", tmp_path).queries
    }
    shapes, objects = load("easy-vqa-shape", tmp_path), load("easy-vqa-json", tmp_path)
    assert {(int(item.id), "shape", item.answers[0]) for item in shapes.queries} == {
        one for one in told if one[1] == "shape"
    }
    for item in objects.queries:
        found = json.loads(item.answers[0])
        assert {(int(item.id), kind, found[kind]) for kind in ("shape", "colour")} <= told
        assert str(item.image).endswith(f"{item.id}.png")
    both = [{image for image, found, _ in told if found == kind} for kind in ("shape", "colour")]
    assert {int(item.id) for item in objects.queries} == both[0] & both[1]
    for name, dataset in (("easy-vqa-shape", shapes), ("easy-vqa-json", objects)):
        for part in (dataset.queries, dataset.support):
            assert f"({len(part):,})" in tasks.get_task(name).splits
    assert {item.answers[0] for item in shapes.support} == set(tasks.get_task("easy-vqa-shape").choices)
    schema = tasks.get_task("easy-vqa-json").json_schema
    assert schema is not None
    for field, values in schema["properties"].items():
        assert {json.loads(item.answers[0])[field] for item in objects.support} == set(values["enum"])


def test_an_own_task_lies_beside_its_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = [
        {"id": 7, "image": "photos/a.png", "text": "Which bird?", "answer": "wren", "month": 6},
        {"image": "photos/b.png", "answers": ["robin", "redbreast"]},
    ]
    path = own_task(tmp_path / "task", queries, [{"image": str(image(tmp_path / "c.png")), "answer": 3}])
    for name in "ab":
        image(tmp_path / "task" / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    dataset = load(Path("task/task.yaml"), tmp_path / "elsewhere")
    monkeypatch.chdir("/")
    first, second = dataset.queries
    photo = str(tmp_path / "task" / "photos/a.png")
    assert first == Item("7", photo, "Which bird?", ("wren",), metadata={"month": 6}, named=True)
    assert (second.id, second.text, second.answers) == ("1", "", ("robin", "redbreast"))
    assert dataset.support[0].answers == ("3",)
    assert load(path, Path()).queries == dataset.queries


def test_an_own_task_may_use_any_loader(tmp_path: Path) -> None:
    WRITERS["textvqa"](tmp_path)
    config = tasks.get_task("textvqa").model_dump() | {"name": "my-textvqa"}
    path = own_task(tmp_path, [], [], **config)
    assert load(path, Path("nowhere")).queries == load("textvqa", tmp_path).queries


def test_choices_of_an_own_task(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    line = {"image": "a.png", "answer": "no", "choices": ["yes", "no"]}
    assert load(own_task(tmp_path, [line], [line]), tmp_path).queries[0].choices == ("yes", "no")


def test_status_says_what_is_missing_and_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["flickr30k"](tmp_path)
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    rows = {row.name: row for row in tasks.status(tmp_path)}
    assert [name for name, row in rows.items() if row.ready] == sorted([*PACKAGED, "flickr30k"])
    assert rows["coco"].missing.startswith(f"{tmp_path / 'coco'}{os.sep}: dataset_coco.json, train2014 (source: ")
    assert rows["coco"].metric == "cider"
    monkeypatch.setattr("aim_sdk.evaluation.tasks.registry.find_spec", lambda name: None)
    rows = {row.name: row for row in tasks.status(tmp_path)}
    assert rows["easy-vqa"].missing == "package easy_vqa: pip install easy-vqa"


def test_missing_files_are_all_listed(tmp_path: Path) -> None:
    config = tasks.get_task("okvqa")
    WRITERS["okvqa"](tmp_path)
    assert tasks.missing(config, tmp_path) == []
    (tmp_path / "coco" / "mscoco_val2014_annotations.json").unlink()
    assert tasks.missing(config, tmp_path) == [tmp_path / "coco" / "mscoco_val2014_annotations.json"]
    with pytest.raises(MissingDataError) as caught:
        tasks.load(config, tmp_path / "nowhere")
    assert all(str(tmp_path / "nowhere" / "coco" / name) in str(caught.value) for name in config.files.values())
    assert config.source in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_an_uninstalled_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_sdk.evaluation.tasks.registry.find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="pip install easy-vqa"):
        tasks.load(tasks.get_task("easy-vqa"), Path("data"))


def test_an_unknown_task_has_a_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean 'okvqa'.*aim-icl eval tasks"):
        tasks.get_task("ok-vqa")
    with pytest.raises(InputError, match="no such file"):
        tasks.get_task(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="Did you mean 'jsonl'"):
        tasks.get_task(own_task(tmp_path, [], [], loader="json"))
    with pytest.raises(InputError, match=r"no such setting\. Did you mean 'licence'"):
        tasks.get_task(own_task(tmp_path, [], [], license="MIT"))
