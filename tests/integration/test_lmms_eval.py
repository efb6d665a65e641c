"""The model for lmms-eval, found by the real package's registry and asked by its own request objects."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Shots
from aim_sdk.errors import ArtifactNotFoundError, InputError
from aim_sdk.evaluation.lmms_eval.arguments import (
    batch_size_of,
    check_bank,
    check_known,
    generation_of,
    stopped,
    text_of,
)
from aim_sdk.evaluation.lmms_eval.likelihood import likelihoods
from aim_sdk.types import Query
from tests.conftest import torchrun

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60)}
TEXT = "What colour is it?"


FUNCTIONS = """
from PIL import Image

def image(document):
    return [Image.open(document["image"])]

def text(document, lmms_eval_specific_kwargs=None):
    return document["text"]

def score(document, answers):
    return {"correct": float(answers[0] == document["answer"])}
"""
"""What the YAML file of a task of one's own names."""


def test_lmms_evals_arguments_are_the_pipelines() -> None:
    assert generation_of({}) == ({"max_new_tokens": 1024}, [])
    assert generation_of({"until": None, "num_beams": 1}) == ({"max_new_tokens": 1024}, [])
    greedy = {"until": "\n", "max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 3, "do_sample": False}
    assert generation_of(greedy) == ({"max_new_tokens": 8, "num_beams": 3}, ["\n"])
    sampled, _ = generation_of({"temperature": 0.7, "top_p": 0.9})
    assert sampled == {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}
    with pytest.raises(InputError, match="until=3"):
        generation_of({"until": 3})
    assert stopped("red\nASSISTANT: blue", ["ASSISTANT:", "\n"]) == "red"
    assert text_of("<image>\nWhat?") == "What?"
    assert batch_size_of("4") == 4


@pytest.mark.parametrize("given", ["auto", 0, -1, "2.5"])
def test_a_batch_size_is_a_whole_number(given: int | str) -> None:
    with pytest.raises(InputError, match=f"batch_size {given}"):
        batch_size_of(given)


def test_a_bank_must_be_there(tmp_path: Path) -> None:
    check_bank(None)
    with pytest.raises(ArtifactNotFoundError, match="aim-icl bank add"):
        check_bank(str(tmp_path / "typo"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no argument named 'shot'\. Did you mean 'shots'"):
        check_known({"shot": 3}, ["bank", "shots"])


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.new("RGB", (30 + n, 40), colour) for n, colour in enumerate(COLOURS.values())]


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> str:
    return str(tiny("llava-1.5"))


@pytest.fixture
def bank(folder: str, pictures: list[Image.Image], tmp_path: Path) -> Path:
    pipe = AIMPipeline.from_pretrained("llava", model=folder, projector="carrier", device="cpu", bank=tmp_path / "bank")
    pipe.bank.add([Demonstration(p.rotate(90), TEXT, name) for p, name in zip(pictures, COLOURS, strict=True)])
    pipe.bank.close()
    return tmp_path / "bank"


def asked(pictures: list[Image.Image], kind: str, *arguments: Any) -> tuple[list[Any], dict[str, Any]]:
    """One request a picture, and the documents that the requests are about."""
    instance = pytest.importorskip("lmms_eval.api.instance").Instance
    documents = [{"image": picture} for picture in pictures]
    requests = [
        instance(
            kind,
            (f"{TEXT} {place}", *arguments, lambda doc: [doc["image"]], place, "task", "test"),
            0,
            metadata={"task": "task", "doc_id": place, "repeats": 1},
        )
        for place in range(len(documents))
    ]
    return requests, {"task": {"test": documents}}


def aim(**arguments: Any) -> Any:
    """The model as ``lmms-eval --model aim --model_args ...`` makes it."""
    models = pytest.importorskip("lmms_eval.models")
    assert "aim" in models.list_available_models()
    text = ",".join(f"{name}={value}" for name, value in arguments.items())
    return models.get_model("aim").create_from_arg_string(text, {"batch_size": 2, "device": "cpu"})


@pytest.mark.parametrize("mode", ["aim", "text-only"])
def test_its_answers_are_the_pipelines(mode: str, folder: str, bank: Path, pictures: list[Image.Image]) -> None:
    pytest.importorskip("lmms_eval")
    model = aim(backend="llava", model=folder, projector="carrier", bank=bank, shots=2, selector="first", mode=mode)
    requests, model.task_dict = asked(pictures, "generate_until", {"max_new_tokens": 6, "until": ["\n\n"]})
    pipe = AIMPipeline.from_pretrained("llava", model=folder, projector="carrier", device="cpu", bank=bank)
    expected = pipe.generate(
        [Query(picture, f"{TEXT} {place}") for place, picture in enumerate(pictures)],
        shots=2,
        selector="first",
        mode=mode,  # type: ignore[arg-type]
        max_new_tokens=6,
    )
    assert model.generate_until(requests) == [answer.text for answer in expected]


def test_without_a_bank_it_is_the_plain_backbone(folder: str, pictures: list[Image.Image]) -> None:
    pytest.importorskip("lmms_eval")
    model = aim(backend="llava", model=folder, projector="carrier")
    requests, model.task_dict = asked(pictures, "generate_until", {"max_new_tokens": 6})
    backend = model.pipe.backend
    for picture, request, answer in zip(pictures, requests, model.generate_until(requests), strict=True):
        query = Query(picture, request.args[0])
        ids = backend.plain_answer(query, prompt_format=backend.default_format, max_new_tokens=6)
        assert answer == backend.backbone.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_continuation_costs_its_mean_negative_log_probability(
    folder: str, bank: Path, pictures: list[Image.Image]
) -> None:
    pytest.importorskip("lmms_eval")
    model = aim(backend="llava", model=folder, projector="carrier", bank=bank, shots=2, selector="first")
    requests, model.task_dict = asked(pictures, "loglikelihood", " red")
    others, _ = asked(pictures, "loglikelihood", lambda document: "a blue one")
    both = [request for pair in zip(requests, others, strict=True) for request in pair]  # a document's stand together
    expected = [
        score
        for n, picture in enumerate(pictures)
        for score in model.pipe.score(
            Query(picture, f"{TEXT} {n}"), ["red", "a blue one"], normalize="tokens", shots=2, selector="first"
        )
    ]
    found = [result.text for result in model.loglikelihood(both)]
    assert [-loss for loss, _ in found] == pytest.approx(expected)


def test_the_greedy_continuation_is_known_as_such() -> None:
    pipe = AIMPipeline.from_pretrained("pocket", device="cpu")
    query = Query(Image.new("RGB", (64, 64), COLOURS["red"]), TEXT)
    answer = pipe(query.image, query.text, mode="zero-shot")
    found = likelihoods(pipe, query, [answer, f" {answer}", f"{answer} dog", "blue"], Shots(mode="zero-shot"))
    assert [greedy for _, greedy in found] == [True, True, False, False]
    assert found[0] == found[1]


def test_what_it_cannot_do_is_said(folder: str, pictures: list[Image.Image], tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval")
    with pytest.raises(InputError, match=r"no argument named 'shot'\. Did you mean 'shots'"):
        aim(backend="llava", model=folder, shot=3)
    pipe = AIMPipeline.from_pretrained("llava", model=folder, projector="carrier", device="cpu", bank=tmp_path / "none")
    pipe.bank.close()
    with pytest.raises(InputError, match="the bank is empty"):
        aim(backend="llava", model=folder, projector="carrier", bank=tmp_path / "none")
    model = aim(backend="llava", model=folder, projector="carrier", shots=3)
    requests, model.task_dict = asked(pictures, "generate_until", {})
    with pytest.raises(InputError, match="shots=3, but no demonstrations"):  # and not zero-shot
        model.generate_until(requests)
    model = aim(backend="llava", model=folder, projector="carrier")
    for images in (2, 0):
        requests, model.task_dict = asked(pictures, "generate_until", {})
        shown = [*requests[0].args]
        shown[2] = lambda document, images=images: [document["image"]] * images
        requests[0].arguments = tuple(shown)
        with pytest.raises(InputError, match=f"task task, document 0: {images} images"):
            model.generate_until(requests)
    requests[0].arguments = ("", "red")  # how mutual information asks
    with pytest.raises(InputError, match="without a document"):
        model.loglikelihood(requests[:1])
    with pytest.raises(NotImplementedError, match="single-round tasks"):
        model.generate_until_multi_round(requests)


@pytest.fixture
def task(pictures: list[Image.Image], tmp_path: Path) -> Path:
    """The folder of a task of one's own, whose data lies on disk."""
    lines = []
    for number, (picture, name) in enumerate(zip(pictures, COLOURS, strict=True)):
        picture.save(image := tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": str(image), "text": f"{TEXT} {number}", "answer": name}))
    (data := tmp_path / "test.jsonl").write_text("\n".join(lines))
    (folder := tmp_path / "task").mkdir()
    (folder / "functions.py").write_text(FUNCTIONS)
    content = {
        "task": "colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 6, "temperature": 0},
        "metric_list": [{"metric": "correct", "aggregation": "mean", "higher_is_better": True}],
    }
    named = {"doc_to_visual": "image", "doc_to_text": "text", "process_results": "score"}
    text = yaml.safe_dump(content) + "".join(f"{key}: !function functions.{name}\n" for key, name in named.items())
    (folder / "colours.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("processes", [1, 2])
def test_its_command_runs_a_task_of_ones_own(
    processes: int, folder: str, bank: Path, task: Path, pictures: list[Image.Image], tmp_path: Path
) -> None:
    pytest.importorskip("lmms_eval.evaluator")
    launcher = torchrun(processes) if processes > 1 else [sys.executable]
    command = [*launcher, "-m", "lmms_eval", "--model", "aim"]
    command += ["--tasks", "colours", "--include_path", str(task), "--batch_size", "2", "--device", "cpu"]
    command += ["--model_args", f"backend=llava,model={folder},projector=carrier,bank={bank},shots=2,selector=random"]
    command += ["--log_samples", "--output_path", str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline})
    assert finished.returncode == 0, finished.stderr
    written = list((tmp_path / "out").rglob("*samples*.jsonl"))
    assert len(written) == 1, finished.stdout + finished.stderr
    samples = sorted(map(json.loads, written[0].read_text().splitlines()), key=lambda sample: sample["doc_id"])
    pipe = AIMPipeline.from_pretrained("llava", model=folder, projector="carrier", device="cpu", bank=bank)
    queries = [Query(p, f"{TEXT} {n}", id=f"colours/{n}") for n, p in enumerate(pictures)]
    expected = pipe.generate(queries, shots=2, selector="random", max_new_tokens=6)
    assert [sample["filtered_resps"] for sample in samples] == [answer.text for answer in expected]
