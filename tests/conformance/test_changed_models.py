"""Models that somebody else also uses or changes: the same answers, or an error that says what was changed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_backends.auto import AutoBackend
from aim_backends.hf.backbone import Backbone
from aim_sdk import Demonstration, PromptFormat, Query
from aim_sdk.errors import InputError, UnsupportedModelError
from aim_sdk.types import FusedTokens

IMAGE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
QUERY = Query(IMAGE, "What is it?")
CHOICES = ["a cat", "dog"]


@pytest.fixture(scope="module", params=["internvl", "qwen2.5-vl"])
def folder(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Path:
    return tiny(request.param)


@pytest.fixture
def backend(folder: Path) -> AutoBackend:
    return AutoBackend.from_pretrained(str(folder), device="cpu")


def shown(backend: AutoBackend) -> list[FusedTokens]:
    """Fused tokens that are not the embeddings of the text that they stand for, with keys, so that they are kept."""
    text = Demonstration(IMAGE, "What is it? " * 4, "a cat")
    found = backend.reader.text_only([text, text], prompt_format=backend.default_format)
    return [replace(one, embeddings=one.embeddings.flip(0) * 3, key=str(n)) for n, one in enumerate(found)]


def answered(backend: AutoBackend, form: PromptFormat, **options: Any) -> tuple[int, ...]:
    (answer,) = backend.injector.generate([QUERY], [shown(backend)], prompt_format=form, max_new_tokens=6, **options)
    return answer.token_ids


def scored(backend: AutoBackend) -> torch.Tensor:
    rows = backend.injector.score(QUERY, shown(backend), CHOICES, prompt_format=backend.default_format)
    return torch.tensor([value for row in rows for value in row])


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Another thread works all the time."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_two_backends_share_a_model(backend: AutoBackend) -> None:
    again = type(backend)(type(backend.backbone)(backend.model, backend.backbone.processor, "again"))
    expected, answer = scored(backend), answered(backend, backend.default_format)
    assert torch.equal(scored(again), expected)
    assert answered(again, backend.default_format) == answer
    other = Query(IMAGE.resize((300, 40)), "Who?")
    form = backend.default_format
    with meanwhile(lambda: again.injector.score(other, [], CHOICES, prompt_format=form)):
        for _ in range(20):
            assert torch.allclose(scored(backend), expected, atol=1e-5)
            assert answered(backend, form) == answer


def test_another_threads_forward_is_not_taken_for_ours(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("internvl")), device="cpu")
    for _ in range(3):  # the prefix is kept
        expected = scored(backend)
    other = backend.injector.prepare([Query(IMAGE, "Who?")], [[]], prompt_format=backend.default_format).inputs
    with torch.no_grad(), meanwhile(lambda: backend.model(**other)):
        for _ in range(20):
            assert torch.allclose(scored(backend), expected, atol=1e-5)


def test_settings_that_were_changed_later_do_not_change_how_prompts_run(backend: AutoBackend) -> None:
    expected = answered(backend, backend.default_format)
    backend.model.generation_config.prefill_chunk_size = 4
    assert answered(backend, backend.default_format) == expected


def test_a_token_that_pads_may_end_an_answer(backend: AutoBackend) -> None:
    expected = answered(backend, backend.default_format)
    assert answered(backend, backend.default_format, pad_token_id=expected[-1]) == expected


def test_training_mode_is_refused(backend: AutoBackend) -> None:
    backend.model.train()
    for use in (scored, lambda backend: answered(backend, backend.default_format)):
        with pytest.raises(InputError, match=r"set to training mode.*\nNext: model\.eval\(\)"):
            use(backend)
    with pytest.raises(InputError, match="set to training mode"):
        backend.reader.read([Demonstration(IMAGE, "What?", "a cat")], prompt_format=backend.default_format)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.resize_token_embeddings(model.get_input_embeddings().num_embeddings + 8),
        lambda model: model.set_output_embeddings(
            torch.nn.Linear(*reversed(model.get_output_embeddings().weight.shape))
        ),
        lambda model: setattr(model, "peft_config", {"default": None}),
    ],
    ids=["embeddings", "head", "adapter"],
)
def test_a_model_with_other_parts_is_refused(backend: AutoBackend, change: Callable[[Any], None]) -> None:
    change(backend.model)
    for use in (scored, lambda backend: answered(backend, backend.default_format)):
        with pytest.raises(UnsupportedModelError, match=r"other ones than when it was loaded.*\nNext: save"):
            use(backend)


def test_a_wrapper_is_refused(backend: AutoBackend) -> None:
    wrapper = torch.compile(backend.model, backend="eager")
    with pytest.raises(UnsupportedModelError, match="OptimizedModule is not itself a model of transformers"):
        Backbone(wrapper, backend.backbone.processor, "wrapped")
