"""What a reading says of how its image looks: the mean of the visual tokens that the inner LM takes in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aim_backends.auto import AutoBackend
from aim_backends.pocket.backend import PocketBackend
from aim_sdk import Demonstration
from aim_sdk.backend.interfaces import Backend
from aim_sdk.files.images import load_image
from aim_sdk.testing.samples import PICTURES

SHOWN = [
    Demonstration(image, text, answer)
    for image, text, answer in zip(
        PICTURES, ("What is it?", "", "Name it, please."), ("a lynx", "an owl", "x"), strict=False
    )
]
LAYERS = (1, -1)


def read(backend: Backend, shown: list[Demonstration], **options: object) -> list[torch.Tensor | None]:
    made = backend.reader.read(shown, prompt_format=backend.default_format, **options)  # type: ignore[arg-type]
    return [one.visual for one in made]


def test_pocket_s_are_its_connector_s() -> None:
    backend = PocketBackend.from_pretrained(device="cpu")
    images = backend.reader._images.prepare([item.image for item in SHOWN])  # type: ignore[attr-defined]
    expected = [tokens.mean(0) for tokens in backend.reader._images.run(images)]  # type: ignore[attr-defined]
    for found, mean in zip(read(backend, SHOWN, layers=LAYERS), expected, strict=True):
        torch.testing.assert_close(found, mean)
    assert read(backend, SHOWN, layers=LAYERS, with_images=False) == [None] * len(SHOWN)


def test_llava_s_are_its_projector_s(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    model, processor = backend.backbone.model, backend.backbone.processor
    for item, found in zip(SHOWN, read(backend, SHOWN, layers=LAYERS), strict=True):
        pixels = processor.image_processor(load_image(item.image), return_tensors="pt").pixel_values
        with torch.no_grad():
            features = model.get_image_features(pixel_values=pixels)
        tokens = getattr(features, "pooler_output", features)
        torch.testing.assert_close(found, torch.cat(list(tokens)).mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llava-1.5", "llava-next", "qwen2-vl", "qwen2.5-vl", "idefics2", "smolvlm"])
def test_they_do_not_depend_on_the_batch_or_the_text(tiny: Callable[[str], Path], family: str) -> None:
    backend = AutoBackend.from_pretrained(str(tiny(family)), device="cpu")
    together = read(backend, SHOWN, layers=LAYERS)
    for item, found in zip(SHOWN, together, strict=True):
        assert found is not None
        (alone,) = read(backend, [item], layers=LAYERS)
        torch.testing.assert_close(alone, found, atol=1e-5, rtol=1e-4)
        (renamed,) = read(backend, [Demonstration(item.image, item.text, "something else")], layers=LAYERS)
        torch.testing.assert_close(renamed, found, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])  # type: ignore[arg-type]
    assert read(backend, SHOWN, layers=LAYERS, with_images=False) == [None] * len(SHOWN)


def test_a_family_that_scales_its_embeddings_has_none(tiny: Callable[[str], Path]) -> None:
    """What its first layer takes in is not what is written into a prompt."""
    backend = AutoBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    inner = backend.backbone.model.model.language_model
    handle = inner.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "inputs_embeds": 8 * kwargs["inputs_embeds"]}), with_kwargs=True
    )
    try:
        assert read(backend, SHOWN, layers=LAYERS) == [None] * len(SHOWN)
    finally:
        handle.remove()
