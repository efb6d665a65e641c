"""The model for lmms-eval, found by the real package's registry and asked by its own request objects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.errors import InputError
from aim_sdk.evaluation.lmms_eval.arguments import generation_of, stopped, text_of
from aim_sdk.types import Query

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60)}
TEXT = "What colour is it?"


def test_lmms_evals_arguments_are_the_pipelines() -> None:
    assert generation_of({}) == ({"max_new_tokens": 1024}, [])
    greedy = {"until": "\n", "max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 3, "do_sample": False}
    assert generation_of(greedy) == ({"max_new_tokens": 8, "num_beams": 3}, ["\n"])
    sampled, _ = generation_of({"temperature": 0.7, "top_p": 0.9})
    assert sampled == {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 1024}
    with pytest.raises(InputError, match="until=3"):
        generation_of({"until": 3})
    assert stopped("red\nASSISTANT: blue", ["ASSISTANT:", "\n"]) == "red"
    assert text_of("<image>\nWhat?") == "What?"


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
        assert answer == backend.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_continuation_costs_its_mean_negative_log_probability(folder: str, pictures: list[Image.Image]) -> None:
    pytest.importorskip("lmms_eval")
    model = aim(backend="llava", model=folder, projector="carrier")
    greedy = model.pipe.generate([Query(pictures[0], f"{TEXT} 0")], max_new_tokens=4)[0].text
    for target in ("red", lambda doc: "red", greedy or "blue"):
        requests, model.task_dict = asked(pictures[:1], "loglikelihood", target)
        ((loss, is_greedy),) = model.loglikelihood(requests)
        said = target if isinstance(target, str) else "red"
        (mean,) = model.pipe.score(Query(pictures[0], f"{TEXT} 0"), [said], normalize="tokens")
        assert loss == pytest.approx(-mean)
        assert is_greedy in (True, False)


def test_what_it_cannot_do_is_said(folder: str, pictures: list[Image.Image]) -> None:
    pytest.importorskip("lmms_eval")
    with pytest.raises(InputError, match="no such arguments: shot"):
        aim(backend="llava", model=folder, shot=3)
    model = aim(backend="llava", model=folder, projector="carrier")
    requests, model.task_dict = asked(pictures, "generate_until", {})
    requests[0].arguments = (*requests[0].args[:2], lambda doc: [doc["image"]] * 2, *requests[0].args[3:])
    with pytest.raises(InputError, match="2 images"):
        model.generate_until(requests)
    with pytest.raises(NotImplementedError, match="single rounds"):
        model.generate_until_multi_round(requests)
