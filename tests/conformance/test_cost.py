"""What is foreseen from configuration and processor is what a real run takes, for every family."""

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import pytest
import torch
from PIL import Image

from aim_backends.auto import AutoBackend
from aim_backends.hf.footprint import TransformersFootprint
from aim_backends.hf.kv_cache import held
from aim_sdk import Demonstration, PromptFormat, Query
from aim_sdk.types import Context
from tests.conformance.families import Family

SIZES = (((50, 40), (64, 64)), ((640, 480), (480, 640)), ((1920, 1080), (37, 53)), ((300, 900), (900, 500)))
"""Of the demonstrations' images in turn; the query has the second one's."""


def _asked(sizes: Sequence[tuple[int, int]]) -> tuple[list[Demonstration], Query]:
    images = [Image.new("RGB", size, "red") for size in sizes]
    shown = [Demonstration(images[n % 2], "What colour is it? " * (n + 1), "a red fox") for n in range(3)]
    return shown, Query(images[1], "How many people are there?")


class _Described:
    """A family's checkpoint without its weights."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.folder = folder / "described"
        shutil.copytree(family.folder, self.folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))

    @cached_property
    def footprint(self) -> TransformersFootprint:
        return AutoBackend.footprint_of(str(self.folder), device="cpu")


@pytest.fixture(scope="session")
def described(family: Family, tmp_path_factory: pytest.TempPathFactory) -> TransformersFootprint:
    return _Described(family, tmp_path_factory.mktemp(f"cost-{family.variant}")).footprint


def _contexts(family: Family, shown: list[Demonstration], form: PromptFormat) -> dict[str, Context]:
    found: dict[str, Context] = {
        "zero-shot": [],
        "text-only": family.backend.reader.text_only(shown, prompt_format=form),
    }
    if family.backend.most_images != 1:
        found |= {"interleaved, 1": shown[:1], "interleaved, 3": shown}
    return found


def _counted(
    footprint: TransformersFootprint, name: str, query: Query, shown: list[Demonstration], form: PromptFormat
) -> int:
    if name == "text-only":
        return footprint.prompt_tokens(query, [], prompt_format=form) + sum(
            footprint.text_tokens(shown, prompt_format=form)
        )
    images = {"zero-shot": 0, "interleaved, 1": 1, "interleaved, 3": 3}[name]
    return footprint.prompt_tokens(query, shown[:images], prompt_format=form)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_tokens_are_those_of_a_real_prompt(
    family: Family, described: TransformersFootprint, sizes: tuple[tuple[int, int], ...]
) -> None:
    shown, query = _asked(sizes)
    for name, context in _contexts(family, shown, family.form).items():
        (made,) = family.backend.injector.generate([query], [context], prompt_format=family.form, max_new_tokens=1)
        for footprint in (described, family.backend.footprint):
            assert _counted(footprint, name, query, shown, family.form) == made.prompt_tokens, name


def test_aim_tokens_are_those_of_a_real_prompt(family: Family, described: TransformersFootprint) -> None:
    from aim_sdk import AIMPipeline

    shown, query = _asked(SIZES[1])
    with pytest.warns(UserWarning, match="untrained"):
        pipe = AIMPipeline(family.backend, selector="first")
    pipe.bank.add(shown)
    (made,) = pipe.generate([query], shots=2, max_new_tokens=1)
    expected = described.prompt_tokens(query, [], prompt_format=family.form)
    expected += sum(described.text_tokens(shown[:2], prompt_format=family.form))
    assert expected == made.prompt_tokens


@torch.no_grad()
def test_kv_bytes_are_those_of_a_real_cache(family: Family, described: TransformersFootprint) -> None:
    shown, query = _asked(SIZES[1])
    backend = family.backend
    for name, context in _contexts(family, shown, family.form).items():
        prepared = backend.injector.prepare([query], [context], prompt_format=family.form)
        with backend.backbone.lock, backend.injector.injected(prepared):
            made = backend.model(**prepared.inputs, use_cache=True)
        cache = getattr(made, "language_model_outputs", made).past_key_values
        taken = sum(part.nbytes for layer in cache.layers for part in held(layer))
        images = {"interleaved, 1": 2, "interleaved, 3": 4}.get(name, 1)
        for footprint in (described, backend.footprint):
            assert footprint.kv_bytes(prepared.lengths[0], images) == taken, name


def test_weights_are_those_of_the_loaded_model(family: Family, described: TransformersFootprint) -> None:
    assert described.sizes.weights_bytes == sum(part.nbytes for part in family.backend.model.parameters())
    assert described.sizes == type(described.sizes)(
        **{name: getattr(family.backend.footprint.sizes, name) for name in described.sizes.__slots__}
        | {"model": described.sizes.model}
    )


@torch.no_grad()
def test_the_reader_knows_the_length_of_a_demonstration(family: Family) -> None:
    """Frame tokens are counted and BOS is not: what sorts demonstrations into batches is the length of their rows."""
    shown = [_asked(sizes)[0][0] for sizes in SIZES[1:3]]
    backbone, form = family.backend.backbone, family.form
    if not backbone.visual.counts:
        shown = [Demonstration(Image.new("RGB", (336, 336)), "What is it?", "a cat")]
    rows = family.backend.reader.prepare(shown, prompt_format=form).inputs["attention_mask"].sum(1).tolist()
    assert family.backend.reader.lengths(shown, prompt_format=form) == rows


def test_an_image_of_idefics2_is_its_tokens_and_the_two_that_frame_it(tiny: Callable[[str], Path]) -> None:
    """In the tiny model 6 and two frame tokens; in the real one 64 and two. BOS is no part of it."""
    backbone = AutoBackend.footprint_of(str(tiny("idefics2")), device="cpu").backbone
    inputs = backbone.process(["<image>"], [[Image.new("RGB", (336, 336))]], padding_side="left")
    (ids,) = inputs["input_ids"].tolist()
    unexpanded, _ = backbone.tokens.encode(backbone.tokens.layout("<image>"))
    assert backbone.visual.quick([(336, 336)]) == [len(ids) - len(unexpanded)]
    assert sum(index in backbone.image_ids for index in ids) == len(ids) - 1
    assert sum(index in backbone.image_ids for index in unexpanded) == 2
