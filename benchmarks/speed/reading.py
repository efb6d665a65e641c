"""Demonstrations that ``bank.add`` reads per second, over its floor: the bare forward of the same batches.

The floor has its inputs ready (decoded, preprocessed, tokenised, padded) and keeps nothing. ``bank.add`` hashes,
decodes and tokenises, runs the forward, projects, and writes to a bank on disk.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.vision import preprocess
from aim_sdk import AIMPipeline, Backend, Demonstration
from aim_sdk.reading.encoder import batches_of
from aim_sdk.testing.tiny import build
from benchmarks.pocket.prompts import answer_segment, question_segment
from benchmarks.speed.measure import in_turns, ratio, summary, write_result

Floor = Callable[[], None]


SIZES = ((480, 640), (640, 480))


def photographs(folder: Path, count: int, seed: int = 0, *, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Path]:
    """JPEG files of these sizes in turn: smooth noise, about 60 KB each."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        size = sizes[number % len(sizes)]
        image = Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        image.save(path := folder / f"{number}.jpg", quality=90)
        paths.append(path)
    return paths


def demonstrations(paths: Sequence[Path], seed: int = 0) -> list[Demonstration]:
    """Questions and answers of 4 to 40 words."""
    rng = random.Random(seed)
    words = ["what", "is", "the", "small", "red", "thing", "on", "top", "of", "a", "wooden", "table", "today"]
    return [
        Demonstration(
            path,
            " ".join(rng.choices(words, k=rng.randint(3, 20))) + "?",
            " ".join(rng.choices(words, k=rng.randint(1, 20))),
        )
        for path in paths
    ]


def small_llava(folder: Path) -> str:
    """Save LLaVA-1.5 at its real resolution (336 pixels, 576 visual tokens), with 4 narrow layers in tower and LM."""
    processor = AutoProcessor.from_pretrained(build("llava-1.5", folder / "tiny"))
    processor.image_processor.size = {"shortest_edge": 336}
    processor.image_processor.crop_size = {"height": 336, "width": 336}
    processor.patch_size = 14
    sizes: dict[str, Any] = {"num_hidden_layers": 4, "num_attention_heads": 8}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=256, intermediate_size=1024, image_size=336, patch_size=14, **sizes),
        text_config=LlamaConfig(
            hidden_size=512,
            intermediate_size=1376,
            vocab_size=len(processor.tokenizer) + 64,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            **sizes,
        ),
        image_token_index=processor.image_token_id,
        image_seq_length=576,
    )
    torch.manual_seed(0)
    saved = folder / "small-llava"
    LlavaForConditionalGeneration(config).save_pretrained(saved)
    processor.save_pretrained(saved)
    return str(saved)


def tiny_llava(folder: Path) -> LlavaBackend:
    """The tests' model: 32 wide, 2 layers, 16 visual tokens. Its forward is shorter than its tokeniser's work."""
    return LlavaBackend.from_pretrained(str(build("llava-1.5", folder / "tiny-16")), device="cpu")


def pocket_floor(backend: PocketBackend, batches: Sequence[Sequence[Demonstration]]) -> Floor:
    """Trunk, connector and LM on ready pixels and ids."""
    model, ready = backend.model, []
    for batch in batches:
        pixels = [preprocess(Image.open(item.image)) for item in batch]  # type: ignore[arg-type]
        texts = [
            (
                model.tokenize(question_segment(d.text)),
                model.tokenize("\nAnswer:") + model.tokenize(answer_segment(d.answer)),
            )
            for d in batch
        ]
        ready.append((pixels, texts))

    @torch.no_grad()
    def run() -> None:
        for pixels, texts in ready:
            visual = model.vision.encode_pixels(pixels)
            rows = [
                torch.cat(
                    [
                        model.lm.embed(torch.tensor([*model.opening_ids, *before])),
                        tokens,
                        model.lm.embed(torch.tensor(after)),
                    ]
                )
                for (before, after), tokens in zip(texts, visual, strict=True)
            ]
            lengths = torch.tensor([len(row) for row in rows])
            padded = pad_sequence(rows, batch_first=True)
            model.lm(padded, attention_mask=torch.arange(padded.shape[1]) < lengths[:, None])

    return run


def transformers_floor(backend: TransformersBackend, batches: Sequence[Sequence[Demonstration]]) -> Floor:
    """The model on the processor's ready outputs, the LM head at one position."""
    ready = []
    for batch in batches:
        prompts = backend.backbone.prompts(backend.default_format)
        texts = [prompts.prefix + prompts.demonstration(d.text, d.answer).text for d in batch]
        images = [[Image.open(d.image).convert("RGB")] for d in batch]  # type: ignore[arg-type]
        ready.append(backend.backbone.process(texts, images, padding_side="right"))

    @torch.no_grad()
    def run() -> None:
        for inputs in ready:
            backend.backbone.model(**inputs, use_cache=False, logits_to_keep=1)

    return run


def measure(
    backend: Backend, make_floor: Any, items: list[Demonstration], rounds: int, batch_tokens: int
) -> dict[str, Any]:
    """Time ``bank.add`` and its floor in turns, into a new bank on disk each time."""
    folder = Path(tempfile.mkdtemp())
    fresh = (lambda: PocketBackend(backend.model)) if isinstance(backend, PocketBackend) else (lambda: backend)
    pipe = AIMPipeline(backend, backend.default_projector())
    lengths = pipe.encoder.lengths_by_place(items)
    batches = [[items[place] for place in batch] for batch in batches_of(lengths, batch_tokens)]
    pipes = iter([AIMPipeline(fresh(), pipe.projector, bank=folder / str(n)) for n in range(rounds + 1)])
    next(pipes).bank.add(items, batch_tokens=batch_tokens)  # warm
    floor = make_floor(backend, batches)
    floor()
    times = in_turns(
        {"floor": floor, "bank.add": lambda: next(pipes).bank.add(items, batch_tokens=batch_tokens)}, rounds
    )
    shutil.rmtree(folder)
    each = {name: len(items) / (summary(found)["median_ms"] / 1e3) for name, found in times.items()}
    return {
        "demonstrations": len(items),
        "batches": len(batches),
        "batch_tokens": batch_tokens,
        "tokens": sum(lengths.values()),
        "rounds": rounds,
        "seconds": times,
        "demonstrations_per_second": {name: round(value, 2) for name, value in each.items()},
        "of_floor": ratio(times["floor"], times["bank.add"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=128, help="demonstrations")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = demonstrations(photographs(folder, options.count))
        llava = LlavaBackend.from_pretrained(small_llava(folder), device="cpu")
        models: dict[str, tuple[Backend, Any, int]] = {
            "pocket": (PocketBackend.from_pretrained(), pocket_floor, 1024),
            "LLaVA-1.5, 336 px, 4 layers": (llava, transformers_floor, 4096),
            "tests' tiny LLaVA": (tiny_llava(folder), transformers_floor, 4096),
        }
        found = {}
        for model, (backend, floor, tokens) in models.items():
            shown = items[: len(items) // 2] if backend.name == "llava" else items  # its demonstrations are long
            found[model] = measure(backend, floor, shown, options.rounds, tokens)
            print(model, found[model]["demonstrations_per_second"], found[model]["of_floor"], flush=True)
    print(write_result("reading", {"models": found}, packages=["transformers", "pillow"]))


if __name__ == "__main__":
    main()
