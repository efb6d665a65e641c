"""The tiny models load as real checkpoints do and really look at their image."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2Processor,
    Cosmos3EdgeProcessor,
    FuyuProcessor,
    GotOcr2Processor,
    IdeficsProcessor,
    InstructBlipProcessor,
    Kosmos2Processor,
    ProcessorMixin,
)

from aim_sdk.testing.tiny import NEEDS, TINY_MODELS, build


@pytest.fixture(scope="module", params=TINY_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return build(request.param, tmp_path_factory.mktemp("tiny"))


def gradient(turn: int) -> Image.Image:
    return Image.linear_gradient("L").resize((64, 48)).convert("RGB").rotate(turn)


def encode(processor: ProcessorMixin, image: Image.Image) -> Mapping[str, torch.Tensor]:
    if isinstance(processor, IdeficsProcessor):
        return processor(text=[["User:", image, "What is it?\nAssistant:"]], return_tensors="pt")
    if getattr(processor, "chat_template", None) is None:
        puts_it_first = isinstance(processor, Kosmos2Processor | Blip2Processor | InstructBlipProcessor | FuyuProcessor)
        mark = "" if puts_it_first else processor.image_token
        images = [image] if isinstance(processor, GotOcr2Processor) else [[image]]
        return processor(text=[f"{mark}What is it?"], images=images, return_tensors="pt")
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    # Cosmos 3 Edge says only if it is asked what its model needs.
    options = {"return_mm_token_type_ids": True} if isinstance(processor, Cosmos3EdgeProcessor) else {}
    # Llama 4's pixels are bf16.
    return processor(text=[prompt], images=[[image]], return_tensors="pt", **options).to(torch.float32)


def test_loads_and_sees_its_image(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    first, second = encode(processor, gradient(0)), encode(processor, gradient(180))
    assert torch.equal(first["input_ids"], second["input_ids"])
    with torch.inference_mode():
        logits, other = (model(**inputs).logits[:, -1] for inputs in (first, second))
        assert (logits - other).abs().max() > 0.05 * min(1, float(logits.std()))
        assert model.generate(**first, max_new_tokens=2).shape[1] > first["input_ids"].shape[1]


def test_same_weights_each_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    once, again = (build("llava-1.5", tmp_path / name) for name in ("once", "again"))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (once / name).read_bytes() == (again / name).read_bytes()
    assert torch.equal(torch.get_rng_state(), state)
