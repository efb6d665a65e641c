"""``--num_fewshot`` in the real lmms-eval: demonstrations are of the task's own training split, with their images."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.types import Mode, Query
from tests.conftest import torchrun
from tests.lmms_tasks import Document, Results, documents, evaluate, write_task

pytest.importorskip("lmms_eval")

TRAIN = ["red", "blue", "green", "red", "blue", "green", "a grey one", "none"]
TEST = ["red", "blue", "green"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where data sets and lmms-eval keep theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.setattr("lmms_eval.caching.cache.PATH", str(tmp_path_factory.mktemp("requests")))
        yield


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> str:
    """The arguments of a tiny model."""
    return f"backend=llava,model={tiny('llava-1.5')},projector=carrier"


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, list[Document]]:
    return {"train": documents(tmp_path, "train", TRAIN), "test": documents(tmp_path, "test", TEST)}


@pytest.fixture
def folder(splits: dict[str, list[Document]], tmp_path: Path) -> Path:
    return write_task(tmp_path / "tasks", "colours", splits)


@pytest.fixture
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")


def demonstration(document: Document) -> Demonstration:
    return Demonstration(document["images"][0], document["text"], document["answer"])


def query(document: Document) -> Query:
    return Query(document["images"][0], document["text"])


def named(splits: dict[str, list[Document]], names: Sequence[str]) -> list[Demonstration]:
    """The demonstrations that a run says it showed."""
    places = [name.split("/") for name in names]
    return [demonstration(splits[split][int(place)]) for split, place in places]


def asked(results: Results, task: str) -> list[str]:
    return [sample["arguments"][0] for sample in results.samples(task)]


@pytest.mark.parametrize(
    ("selector", "mode"), [("random", "aim"), ("random", "text-only"), ("reading", "aim"), ("first", "no-image")]
)
def test_answers_are_the_pipelines_after_documents_of_the_training_split(
    selector: str, mode: Mode, model: str, folder: Path, splits: dict[str, list[Document]], pipe: AIMPipeline
) -> None:
    found = evaluate(folder, ["colours"], 2, f"{model},selector={selector},mode={mode}")
    shown = found.shown("colours")
    assert [len(set(names)) for names in shown] == [2, 2, 2]
    assert {name.split("/")[0] for names in shown for name in names} == {"train"}
    queries = [query(document) for document in splits["test"]]
    given = [named(splits, names) for names in shown]
    expected = pipe.generate(queries, demonstrations=given, mode=mode, max_new_tokens=6)
    assert found.answers("colours") == [answer.text for answer in expected]
    assert found.answers("colours") != [a.text for a in pipe.generate(queries, mode="zero-shot", max_new_tokens=6)]
    assert asked(found, "colours") == [document["text"] for document in splits["test"]]  # no demonstrations as text


@pytest.mark.parametrize("selector", ["reading", "first"])
def test_the_selector_chooses_as_from_a_bank_of_the_split(
    selector: str, model: str, folder: Path, splits: dict[str, list[Document]], pipe: AIMPipeline
) -> None:
    found = evaluate(folder, ["colours"], 3, f"{model},selector={selector}")
    keys = pipe.bank.add([demonstration(document) for document in splits["train"]])
    queries = [query(document) for document in splits["test"]]
    answers = pipe.generate(queries, shots=3, selector=selector, max_new_tokens=6)
    names = {key: f"train/{place}" for place, key in enumerate(keys)}
    assert found.shown("colours") == [[names[key] for key in answer.demonstrations] for answer in answers]
    assert found.answers("colours") == [answer.text for answer in answers]


@pytest.mark.parametrize("shots", [0, None])
def test_without_shots_it_is_the_plain_backbone(
    shots: int | None, model: str, folder: Path, splits: dict[str, list[Document]], pipe: AIMPipeline
) -> None:
    found = evaluate(folder, ["colours"], shots, model)
    expected = pipe.generate([query(d) for d in splits["test"]], mode="zero-shot", max_new_tokens=6)
    assert found.answers("colours") == [answer.text for answer in expected]
    assert found.config("colours")["num_fewshot"] == 0
    assert "fewshot_config" not in found.config("colours")
    assert found.samples("colours")[0]["arguments"][-1] == "test"  # nothing is said to have been shown


def test_the_seed_decides_the_draw_and_nothing_else(model: str, folder: Path) -> None:
    def draw(**options: Any) -> list[list[str]]:
        return evaluate(folder, ["colours"], 3, f"{model},selector=random", **options).shown("colours")

    first = draw(fewshot_random_seed=1)
    assert len({tuple(names) for names in first}) == 3  # each query has its own
    assert draw(fewshot_random_seed=1, random_seed=5, torch_random_seed=5) == first
    assert draw(fewshot_random_seed=1, limit=1, offset=1) == first[1:2]
    assert draw(fewshot_random_seed=2) != first


def test_the_results_state_the_protocol(model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("aim_sdk.evaluation.lmms_eval.model.eval_logger", SimpleNamespace(info=lines.append))
    found = evaluate(folder, ["colours"], 2, f"{model},selector=random,pool=5", fewshot_random_seed=7)
    assert found.all["n-shot"] == {"colours": 2}
    assert found.config("colours")["num_fewshot"] == 2
    assert found.config("colours")["fewshot_config"] == {
        "sampler": "aim",
        "split": "train",
        "documents": 8,
        "pool": 5,
        "selector": "random",
        "mode": "aim",
        "seed": 7,
        "shots": 2,
    }
    line = "colours: 2 demonstrations per query from 5 of the 8 documents of split 'train'; selector random, mode aim"
    assert lines == [f"{line}, seed 7."]


@pytest.mark.parametrize("description", ["", "In a word: "])  # it stands before the query's text alone
@pytest.mark.parametrize("selector", ["random", "reading"])
def test_a_query_is_never_shown_itself(
    selector: str, description: str, model: str, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    same = write_task(tmp_path / "same", "same", splits, description=description)
    found = evaluate(same, ["same"], 2, f"{model},selector={selector},fewshot_split=test")
    others = [{"test/1", "test/2"}, {"test/0", "test/2"}, {"test/0", "test/1"}]
    assert [set(names) for names in found.shown("same")] == others
    assert asked(found, "same")[0] == description + "What is test 0?"
    if description:
        return
    with pytest.raises(ShotsError, match=r"--num_fewshot 3, but split 'test' has 3 documents, and a query's own"):
        evaluate(same, ["same"], 3, f"{model},fewshot_split=test")
    leaked = {**splits, "train": [*splits["train"][:3], *splits["test"]]}  # its image and text, in another split
    twice = write_task(tmp_path / "twice", "twice", leaked)
    found = evaluate(twice, ["twice"], 5, f"{model},selector={selector}")
    assert [{"train/3", "train/4", "train/5"} - set(names) for names in found.shown("twice")] == [
        {"train/3"},
        {"train/4"},
        {"train/5"},
    ]


def test_only_what_is_shown_is_read(model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aim_sdk.evaluation.lmms_eval.splits import Split

    opened: list[int] = []
    image = Split.image

    def opening(split: Split, place: int) -> bytes:
        opened.append(place)
        return image(split, place)

    monkeypatch.setattr(Split, "image", opening)
    found = evaluate(folder, ["colours"], 1, f"{model},selector=random", limit=1)
    (names,) = found.shown("colours")
    assert {f"train/{place}" for place in opened} <= {"train/0", *names}  # the first: whether there is one image
    assert max(map(opened.count, opened)) <= 4  # that look, and once its key, its size and its pixels
    opened.clear()
    found = evaluate(folder, ["colours"], 1, f"{model},selector=reading,pool=3")
    assert len(set(opened) | {0}) <= 4
    assert {name for names in found.shown("colours") for name in names} <= {f"train/{place}" for place in opened}
    assert found.config("colours")["fewshot_config"]["pool"] == 3


def test_tasks_of_one_run_do_not_see_each_other(
    model: str, folder: Path, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    other = {"train": splits["test"], "test": splits["train"][:4]}
    write_task(folder, "others", other)
    both = evaluate(folder, ["colours", "others"], 2, f"{model},selector=reading")
    for task in ("colours", "others"):
        alone = evaluate(folder, [task], 2, f"{model},selector=reading")
        assert both.shown(task) == alone.shown(task)
        assert both.answers(task) == alone.answers(task)
        assert both.config(task)["fewshot_config"] == alone.config(task)["fewshot_config"]


def test_choices_are_scored_after_demonstrations(
    model: str, splits: dict[str, list[Document]], pipe: AIMPipeline, tmp_path: Path
) -> None:
    choices = ["red", "blue", "a green one"]
    numbers = [0, 1, 2, 2, 1, 0, 1, 2]
    for split, held in splits.items():
        splits[split] = [{**d, "answer": number} for d, number in zip(held, numbers, strict=False)]
    folder = write_task(
        tmp_path / "choice",
        "choice",
        splits,
        output_type="multiple_choice",
        doc_to_choice=choices,
        generation_kwargs=None,
        process_results=None,
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    found = evaluate(folder, ["choice"], 2, f"{model},selector=random")
    right = 0
    for document, sample, names in zip(splits["test"], found.samples("choice"), found.shown("choice"), strict=True):
        given = named({s: [{**d, "answer": choices[d["answer"]]} for d in held] for s, held in splits.items()}, names)
        scores = pipe.score(query(document), choices, normalize="tokens", demonstrations=given)
        assert [-loss for loss, _ in sample["filtered_resps"]] == pytest.approx(scores, abs=1e-5)
        right += scores.index(max(scores)) == document["answer"]
        plain = pipe.score(query(document), choices, normalize="tokens", mode="zero-shot")
        assert scores != pytest.approx(plain, abs=1e-5)
    assert found.all["results"]["choice"]["acc,none"] == pytest.approx(right / 3)


def test_of_several_answers_the_most_frequent_is_shown(
    model: str, splits: dict[str, list[Document]], pipe: AIMPipeline, tmp_path: Path
) -> None:
    several = {
        split: [{**d, "said": ["a cat", d["answer"], d["answer"]], "answer": "x"} for d in held]
        for split, held in splits.items()
    }
    folder = write_task(tmp_path / "many", "many", several, doc_to_target="{{said}}")
    by_target = evaluate(folder, ["many"], 2, f"{model},selector=random")
    write_task(folder, "many", several, doc_to_target="a constant")
    by_column = evaluate(folder, ["many"], 2, f"{model},selector=random,fewshot_answer=said")
    expected = pipe.generate(
        [query(document) for document in splits["test"]],
        demonstrations=[named(splits, names) for names in by_target.shown("many")],
        max_new_tokens=6,
    )
    assert by_target.answers("many") == by_column.answers("many") == [answer.text for answer in expected]


def test_a_bank_gives_as_many_as_num_fewshot_says(
    model: str, folder: Path, splits: dict[str, list[Document]], tmp_path: Path, tiny: Callable[[str], Path]
) -> None:
    arguments = {"model": tiny("llava-1.5"), "projector": "carrier", "device": "cpu"}
    with pytest.warns(UserWarning, match="created an empty one"):
        pipe = AIMPipeline.from_pretrained("llava", bank=tmp_path / "bank", **arguments)  # type: ignore[arg-type]
    pipe.bank.add([demonstration(document) for document in splits["train"]])
    queries = [query(document) for document in splits["test"]]
    expected = [answer.text for answer in pipe.generate(queries, shots=2, selector="first", max_new_tokens=6)]
    pipe.bank.close()
    bank = f"{model},bank={tmp_path / 'bank'},selector=first"
    for shots, more in ((2, ""), (None, ",shots=2"), (2, ",shots=2")):
        found = evaluate(folder, ["colours"], shots, bank + more)
        assert found.answers("colours") == expected
        assert asked(found, "colours") == [document["text"] for document in splits["test"]]
        assert found.all["n-shot"] == {"colours": 2}
        stated = found.config("colours")["fewshot_config"]
        assert (stated["bank"], stated["shots"], stated["selector"]) == (str(tmp_path / "bank"), 2, "first")
    with pytest.raises(InputError, match="shots=3, but --num_fewshot"):
        evaluate(folder, ["colours"], 2, f"{bank},shots=3")
    with pytest.raises(InputError, match="pool=3: demonstrations come from bank="):
        evaluate(folder, ["colours"], 2, f"{bank},pool=3")
    typed = argparse.Namespace(num_fewshot=0, process_with_media=False)
    with pytest.raises(InputError, match="--num_fewshot 0, but bank="):
        evaluate(folder, ["colours"], 0, bank, cli_args=typed)


@pytest.mark.parametrize(
    ("shots", "arguments", "config", "message"),
    [
        (
            2,
            "",
            {"training_split": None},
            r"no training split: .*'test'.*train \(8 documents\)\.\nNext: .*split=train",
        ),
        (2, ",fewshot_split=trian", {}, r"no split named 'trian'\. Did you mean 'train'"),
        (2, "", {"doc_to_target": "reply"}, r"doc_to_target is 'reply' for every document.*\n.*images, text, answer"),
        (2, ",fewshot_answer=anser", {}, r"no column named 'anser'\. Did you mean 'answer'"),
        (9, "", {}, r"--num_fewshot 9, but split 'train' has 8 documents\. Ask for at most 8"),
        (4, ",pool=3", {}, r"--num_fewshot 4, but pool=3\. Ask for at most 3"),
        (-1, "", {}, r"--num_fewshot -1: expected a whole number of at least 0"),
        (2, ",shots=3", {}, r"shots=3, but --num_fewshot .* says 2"),
        (2, ",mode=zero-shot", {}, r"mode=zero-shot shows none, but --num_fewshot is 2"),
        (2, ",pool=0", {}, r"pool=0"),
        (0, ",shots=3", {}, r"shots=3, but no demonstrations.*\nNext: --num_fewshot 3 .*bank=FOLDER"),
        (None, ",pool=3", {}, r"pool=3, but no demonstrations.*\nNext: --num_fewshot N"),
        (2, "", {"doc_to_text": 3}, r"document 0 of split 'train': doc_to_text gives int"),
    ],
)
def test_what_cannot_be_is_refused(
    shots: int | None,
    arguments: str,
    config: dict[str, Any],
    message: str,
    model: str,
    splits: dict[str, list[Document]],
    tmp_path: Path,
) -> None:
    folder = write_task(tmp_path / "task", "task", splits, **config)
    with pytest.raises(InputError, match=message):
        evaluate(folder, ["task"], shots, model + arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, r"task task, document 3 of split 'train': 0 images; model aim shows one"),
        (
            {"answer": " "},
            r"document 3 of split 'train': doc_to_target gives ' '; expected.*\n.*fewshot_answer=",
        ),
        ({"images": ["nowhere.png"]}, r"document 3 of split 'train': the task's doc_to_visual fails \(FileNotFound"),
    ],
)
@pytest.mark.parametrize("selector", ["random", "reading"])
def test_a_document_that_cannot_be_shown_is_named(
    selector: str, change: Document, message: str, model: str, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    splits["train"][3] = {**splits["train"][3], **change}
    folder = write_task(tmp_path / "task", "task", splits)
    with pytest.raises(InputError, match=message):
        evaluate(folder, ["task"], 8, f"{model},selector={selector}")


def test_a_label_that_is_no_choice_is_no_answer(model: str, splits: dict[str, list[Document]], tmp_path: Path) -> None:
    labelled = {split: [{**d, "answer": -(split == "train")} for d in held] for split, held in splits.items()}
    folder = write_task(tmp_path / "task", "task", labelled, doc_to_choice=["red", "blue"])
    with pytest.raises(InputError, match="document 0 of split 'train': doc_to_target gives -1; expected an answer"):
        evaluate(folder, ["task"], 2, model)


def test_a_split_that_the_task_does_not_name_is_prepared_as_the_others(
    model: str, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    folder = write_task(tmp_path / "task", "task", splits, training_split=None, process_docs="!prepared")
    (folder / "functions.py").open("a").write("\ndef prepared(split):\n    return split.select(range(3))\n")
    found = evaluate(folder, ["task"], 3, f"{model},selector=first,fewshot_split=train")
    assert found.shown("task") == [["train/0", "train/1", "train/2"]] * 3
    assert found.config("task")["fewshot_config"]["documents"] == 3


def test_a_task_of_several_images_is_refused_before_anything_is_read(
    model: str, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    for held in splits.values():
        held[:] = [{**document, "images": document["images"] * 2} for document in held]
    folder = write_task(tmp_path / "task", "task", splits)
    with pytest.raises(InputError, match="document 0 of split 'train': 2 images; model aim shows one"):
        evaluate(folder, ["task"], 2, model)


def test_a_run_that_is_not_what_was_typed_is_refused(
    model: str, splits: dict[str, list[Document]], tmp_path: Path
) -> None:
    typed = argparse.Namespace(num_fewshot=2, process_with_media=False)
    fixed = write_task(tmp_path / "fixed", "fixed", splits, num_fewshot=0)
    with pytest.raises(InputError, match=r"--num_fewshot 2 is ignored by lmms-eval, .* says num_fewshot: 0"):
        evaluate(fixed, ["fixed"], 2, model, cli_args=typed)
    own = write_task(tmp_path / "own", "own", splits, num_fewshot=2)  # the task's own number
    assert [len(names) for names in evaluate(own, ["own"], None, model).shown("own")] == [2, 2, 2]


def test_lmms_evals_caches_never_give_answers_of_other_demonstrations(model: str, folder: Path, tmp_path: Path) -> None:
    def run(seed: int, **options: Any) -> Results:
        return evaluate(folder, ["colours"], 2, f"{model},selector=random", fewshot_random_seed=seed, **options)

    answers = {seed: run(seed).answers("colours") for seed in (1, 2)}
    assert answers[1] != answers[2]
    for seed in (1, 2):
        assert run(seed, use_cache=str(tmp_path / "cache")).answers("colours") == answers[seed]
    assert run(1, cache_requests=True).answers("colours") == answers[1]
    with pytest.raises(InputError, match="leave --cache_requests out"):
        run(1, cache_requests=True)


def test_tasks_of_other_models_are_left_alone(model: str, folder: Path) -> None:
    from lmms_eval.tasks import TaskManager, get_task_dict

    evaluate(folder, ["colours"], 2, f"{model},selector=random", limit=1)
    manager = TaskManager(include_path=str(folder), include_defaults=False, model_name="llava")
    (task,) = get_task_dict(["colours"], manager, "simple").values()
    task.set_config("num_fewshot", 2)
    task.set_fewshot_seed(seed=3)
    assert not hasattr(task, "sampler")
    assert task.config.fewshot_config is None
    assert task.fewshot_rnd.random() == pytest.approx(0.23796462709189137)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_command_shows_the_same_in_any_number_of_processes(
    processes: int, model: str, folder: Path, tmp_path: Path
) -> None:
    launcher = torchrun(processes) if processes > 1 else [sys.executable]
    command = [*launcher, "-m", "lmms_eval", "--model", "aim", "--tasks", "colours", "--include_path", str(folder)]
    command += ["--num_fewshot", "2", "--batch_size", "2", "--device", "cpu", "--model_args", model]
    command += ["--log_samples", "--output_path", str(tmp_path / "out")]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert finished.returncode == 0, finished.stderr
    (written,) = (tmp_path / "out").rglob("*samples*.jsonl")
    samples = sorted(map(json.loads, written.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    expected = evaluate(folder, ["colours"], 2, model)
    assert [sample["filtered_resps"] for sample in samples] == expected.answers("colours")
    (results,) = (tmp_path / "out").rglob("*results.json")
    assert json.loads(results.read_text())["configs"]["colours"]["fewshot_config"]["split"] == "train"
