"""What a backbone cannot take is refused by name, before its forward, and the others of its batch are read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_backends.auto import AutoBackend
from aim_backends.hf import TransformersBackend
from aim_backends.hf.blame import naming_the_image
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend
from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import ContextLengthError, FormatError, ImageError, InputError
from aim_sdk.projectors import untrained
from tests.conformance.families import Family, picture

LONG = "word " * 8000
"""40 kB: about 24,000 tokens of the tiny tokenizers."""


@contextmanager
def _no_forward(backend: TransformersBackend) -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise AssertionError("the backbone ran")

    handle = backend.model.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def test_a_demonstration_over_the_context_is_refused_before_it_is_read(family: Family) -> None:
    reader, form, image = family.backend.reader, family.form, picture(20, 20, 0)
    for item in (Demonstration(image, LONG, "a cat"), Demonstration(image, "What?", LONG)):
        good = Demonstration(image, "What?", "a cat")
        with _no_forward(family.backend):
            for call in (reader.read, reader.prepare, reader.lengths, reader.text_only):
                with pytest.raises(ContextLengthError, match=r"PIL image 20 x 20 .* takes \d+,\d+ tokens"):
                    call([good, item], prompt_format=form)


def test_a_query_over_the_context_is_named(family: Family) -> None:
    queries = [Query(picture(20, 20, 0), text) for text in ("What?", LONG)]
    with _no_forward(family.backend), pytest.raises(ContextLengthError) as caught:
        family.backend.injector.generate(queries, [[], []], prompt_format=family.form, max_new_tokens=1)
    assert caught.value.query == 1
    if family.variant != "instructblip":  # its Q-Former's context is shorter
        assert "query 2 of 2 ('word word" in str(caught.value)


@pytest.mark.parametrize("variant", ["llava-1.5", "blip-2", "instructblip"])
def test_a_bank_keeps_the_others(variant: str, tiny: Callable[[str], Path]) -> None:
    pipe = AIMPipeline.from_pretrained("auto", model=tiny(variant), projector="carrier", device="cpu")
    texts = ["What?", LONG, "Hi</s>", "And here?"]
    items = [Demonstration(picture(20, 20 + n, 0), text, "a cat") for n, text in enumerate(texts)]
    heard: list[tuple[str, type[InputError]]] = []
    keys = pipe.bank.add(items, on_error=lambda item, error: heard.append((item.text, type(error))))
    assert sorted(heard) == [("Hi</s>", FormatError), (LONG, ContextLengthError)]
    assert len(keys) == len(pipe.bank) == 2
    with pytest.raises(InputError):
        pipe.bank.add(items)
    assert len(pipe.generate([Query(picture(20, 20, 0), "What?")], max_new_tokens=1)) == 1


def test_how_many_demonstrations_fit_is_said(tiny: Callable[[str], Path]) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")
    pipe.bank.add([Demonstration(picture(20, 20 + n, 0), "word " * 400, "a cat") for n in range(5)])
    queries = [Query(picture(20, 20, 0), text) for text in ("What?", "Which animal is it?", "What?")]
    for shots, fits in ((5, 3), (3, None)):
        if fits is None:
            assert len(pipe.generate(queries, shots=shots, max_new_tokens=1)) == 3
            continue
        with pytest.raises(ContextLengthError, match=f"about {fits} demonstrations fit with") as caught:
            pipe.generate(queries, shots=shots, max_new_tokens=1)
        assert caught.value.query == 1, "the longest"
    alone = [queries[0], Query(picture(20, 20, 0), "word " * 2000)]
    with pytest.raises(ContextLengthError, match="shorten the text") as caught:
        pipe.generate(alone, shots=1, max_new_tokens=1)
    assert caught.value.query == 1, "it does not fit without demonstrations either"


# Of a shape that the SDK takes and the family's processor or model does not.
BAD_IMAGES = [
    ("lfm2-vl", (190, 1), 3),
    ("fuyu", (190, 1), 3),
    ("mistral3", (1, 1), 1),  # padded to its neighbours it passes
    ("mistral3", (3, 3), 1),
    ("mistral3", (190, 1), 3),
    ("qwen2.5-vl", (804, 4), 3),
    ("glm4v", (4, 804), 3),
]


@pytest.mark.parametrize(("variant", "size", "batch"), BAD_IMAGES)
def test_an_image_that_a_family_fails_at_is_named(
    variant: str, size: tuple[int, int], batch: int, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "odd.png"
    Image.new("RGB", size, "red").save(path)
    backend = AutoBackend.from_pretrained(str(tiny(variant)), device="cpu")
    pipe = AIMPipeline(backend, untrained("carrier", backend.vocabulary))
    shots = [Demonstration(image, "What?", "a cat") for image in (picture(40, 40, 0), path, picture(50, 40, 0))]
    heard: list[InputError] = []
    window = 10_000 if batch > 1 else 1
    assert len(pipe.bank.add(shots, batch_tokens=window, on_error=lambda item, error: heard.append(error))) == 2
    queries = [Query(item.image, "What?") for item in shots]
    for call in (
        lambda: pipe.generate(queries, max_new_tokens=1, batch_size=batch),
        lambda: pipe.generate(queries[1:2], max_new_tokens=1),
        lambda: pipe.generate(queries, mode="zero-shot", max_new_tokens=1, batch_size=batch),
        lambda: pipe.score(queries[1], ["a", "b"]),
        lambda: list(pipe.stream(path, "What?", max_new_tokens=1)),
        lambda: pipe.encoder.encode(shots[1:2]),
    ):
        with pytest.raises(ImageError) as caught:
            call()
        heard.append(caught.value)
    for error in heard:
        assert str(path) in str(error)
        assert f"{size[0]} x {size[1]}" in str(error)
    with pytest.raises(ImageError) as caught:
        pipe.generate(queries, max_new_tokens=1, batch_size=batch)
    assert caught.value.query == 1
    good = [query for place, query in enumerate(queries) if place != caught.value.query]
    assert len(pipe.generate(good, max_new_tokens=1)) == 2


def test_an_interleaved_image_is_named(tiny: Callable[[str], Path]) -> None:
    backend = QwenVLBackend.from_pretrained(str(tiny("qwen2-vl")), device="cpu")
    shots = [Demonstration(picture(40, 40, 0), "What?", "a cat"), Demonstration(picture(804, 4, 0), "What?", "a cat")]
    queries = [Query(picture(40, 40, 0), "What?")] * 2
    with pytest.raises(ImageError, match="804 x 4") as caught:
        backend.injector.generate(queries, [[], shots], prompt_format=backend.default_format, max_new_tokens=1)
    assert caught.value.query == 1


@pytest.fixture(scope="module")
def own(tiny: Callable[[str], Path]) -> LlavaBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")


@pytest.mark.parametrize("error", [RuntimeError("broken kernel"), MemoryError(), ZeroDivisionError(), KeyError("x")])
def test_what_no_image_causes_is_not_blamed_on_one(own: LlavaBackend, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, naming_the_image(own.backbone, [[picture(20, 20, 0)]]):
        raise error
    assert caught.value is error

    def fail(*_: Any) -> None:
        raise error

    handle = own.model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(type(error)) as caught:
            own.reader.read([Demonstration(picture(20, 20, 0), "What?", "a cat")], prompt_format=own.default_format)
        assert caught.value is error
    finally:
        handle.remove()


def test_a_processor_that_fails_in_its_own_way_is_an_input_error(
    own: LlavaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prompts: Any, *_: Any) -> Any:
        raise IndexError("no such row")

    monkeypatch.setattr(own.backbone, "_processed", refuse)
    with pytest.raises(InputError, match="no such row") as caught:
        own.injector.generate(
            [Query(picture(20, 20, 0), "What?")], [[]], prompt_format=own.default_format, max_new_tokens=1
        )
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"do_sample": True, "temperature": -1.0}, "temperature=-1.0"),
        ({"do_sample": True, "temperature": "hot"}, "temperature='hot'"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
    ],
)
def test_a_generation_option_with_a_wrong_value_is_named(
    options: dict[str, Any], named: str, tiny: Callable[[str], Path]
) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")
    with pytest.raises(InputError, match=re.escape(named)):
        pipe.generate([Query(picture(20, 20, 0), "What?")], mode="zero-shot", max_new_tokens=1, **options)
