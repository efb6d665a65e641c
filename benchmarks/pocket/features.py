"""Stage ``features``: run the frozen trunk once over every drawing (with augmented views) and over easy-VQA."""

import json
import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor

from aim_backends.pocket.memory import keep_freed_memory
from aim_backends.pocket.vision import Trunk, preprocess
from aim_backends.pocket.weights import prepare_weights
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.config import EASY_VQA, EXTRA_VIEWS, FEATURES, THREADS, WIDE_FEATURES, WIDE_VIEWS, WORK
from benchmarks.pocket.sources import HELD_OUT_STYLE, STYLES, WIDE_STYLES, DrawingStyle
from benchmarks.pocket.wide import load_wide

_BATCH: Final = 32
_TEST_IMAGES: Final = 1000


@dataclass(frozen=True)
class Picture:
    """A drawing's views: rows of the feature matrix, the unaugmented one first."""

    concept: int
    style: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class DrawingFeatures:
    """Features of all drawings: ``matrix`` is ``float16 (N, 16, 1416)``."""

    matrix: Tensor
    pictures: dict[tuple[int, str], Picture]


@dataclass(frozen=True)
class QuestionFeatures:
    text: str
    answer: str
    image: int


@dataclass(frozen=True)
class EasyVQA:
    """One split of easy-VQA: questions, and their images' features ``float16 (N, 16, 1416)``."""

    questions: tuple[QuestionFeatures, ...]
    matrix: Tensor


def build() -> None:
    """Compute the feature files that are missing."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    trunk = Trunk.load(prepare_weights().trunk).to(memory_format=torch.channels_last)
    for path, compute in ((FEATURES, _build_drawings), (EASY_VQA, _build_easy_vqa), (WIDE_FEATURES, _build_wide)):
        if not path.exists():
            compute(trunk)


def load_drawings() -> DrawingFeatures:
    """Read the catalogue's drawings' features, regrouped into pictures."""
    return _load(FEATURES, STYLES)


def load_wide_drawings() -> DrawingFeatures:
    """Read the wide concepts' drawings' features."""
    return _load(WIDE_FEATURES, WIDE_STYLES)


def _load(path: Path, styles: Sequence[DrawingStyle]) -> DrawingFeatures:
    data = load_file(path)
    rows: dict[tuple[int, str], list[int]] = {}
    for row, (concept, style) in enumerate(data["index"].tolist()):
        rows.setdefault((concept, styles[style].name), []).append(row)
    return DrawingFeatures(data["matrix"], {key: Picture(*key, tuple(value)) for key, value in rows.items()})


def load_easy_vqa(split: str) -> EasyVQA:
    """Read ``train`` or ``test``."""
    entries = json.loads((easy_vqa_folder(split) / "questions.json").read_text(encoding="utf-8"))
    questions = tuple(QuestionFeatures(text[0].upper() + text[1:], answer, image) for text, answer, image in entries)
    return EasyVQA(questions, load_file(EASY_VQA)[split])


def _build_drawings(trunk: Trunk) -> None:
    numbers = {style.name: number for number, style in enumerate(STYLES)}
    jobs: list[tuple[int, Concept, str, int]] = []
    for index, concept in enumerate(load_catalog()):
        for style in concept.drawings:
            trained = not concept.held_out and style != HELD_OUT_STYLE
            jobs += [(index, concept, style, view) for view in range(1 + EXTRA_VIEWS * trained)]
    views = (partial(_view, concept, style, view) for _, concept, style, view in jobs)
    owners = torch.tensor([[job[0], numbers[job[2]]] for job in jobs], dtype=torch.int16)
    save_file({"matrix": _run(trunk, views, len(jobs), "drawings"), "index": owners}, FEATURES)


def _build_wide(trunk: Trunk) -> None:
    numbers = {style.name: number for number, style in enumerate(WIDE_STYLES)}
    jobs = [
        (index, style, view)
        for index, concept in enumerate(load_wide())
        for style in concept.drawings
        for view in range(WIDE_VIEWS)
    ]
    views = (partial(_wide_view, load_wide()[index].drawings[style], view) for index, style, view in jobs)
    owners = torch.tensor([[index, numbers[style]] for index, style, _ in jobs], dtype=torch.int16)
    save_file({"matrix": _run(trunk, views, len(jobs), "wide drawings"), "index": owners}, WIDE_FEATURES)


def _build_easy_vqa(trunk: Trunk) -> None:
    tensors = {}
    for split in ("train", "test"):
        folder = easy_vqa_folder(split) / "images"
        paths = [folder / f"{number}.png" for number in range(len(list(folder.glob("*.png"))))]
        tensors[split] = _run(trunk, (partial(Image.open, path) for path in paths), len(paths), f"easy-VQA {split}")
    save_file(tensors, EASY_VQA)


def easy_vqa_folder(split: str) -> Path:
    spec = find_spec("easy_vqa")
    if spec is None or spec.origin is None:
        raise ImportError("easy-VQA is missing: pip install --no-deps easy-vqa")
    return Path(spec.origin).parent / "data" / split


def _run(trunk: Trunk, views: Iterable[Callable[[], Image.Image]], total: int, what: str) -> Tensor:
    """Return ``float16 (N, 16, 1416)``."""
    out: list[Tensor] = []
    pending: list[Tensor] = []
    for number, view in enumerate(views, 1):
        pending.append(preprocess(view()))
        if len(pending) == _BATCH or number == total:
            out.append(trunk.features(torch.stack(pending)).half())
            pending = []
        if number % (_BATCH * 80) == 0:
            print(f"{what}: {number}/{total}", flush=True)
    return torch.cat(out)


def _view(concept: Concept, style: str, view: int) -> Image.Image:
    path = concept.drawings[style]
    image = Image.open(WORK / path).convert("RGBA")
    if view == 0:
        return image
    return _augment(image, random.Random(zlib.crc32(f"{path}:{view}".encode())), flip=concept.category != "symbol")


def _wide_view(path: str, view: int) -> Image.Image:
    image = Image.open(WORK / path).convert("RGBA")
    return _augment(image, random.Random(zlib.crc32(f"{path}:{view}".encode())), flip=True)


def _augment(image: Image.Image, rng: random.Random, flip: bool) -> Image.Image:
    """Flip, turn, shift, scale or crop, and tint a drawing; mostly on white."""
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-16, 16), Image.Resampling.BICUBIC)
    side = round(image.width * rng.uniform(0.88, 1.35))
    canvas = Image.new("RGBA", (side, side), _background(rng))
    room = side - image.width
    at = tuple(rng.randint(min(room, 0), max(room, 0)) for _ in range(2))
    canvas.alpha_composite(image.crop((max(0, -at[0]), max(0, -at[1]), *image.size)), (max(0, at[0]), max(0, at[1])))
    out = canvas.convert("RGB")
    changes: Sequence[tuple[Any, float]] = (
        (ImageEnhance.Color, 0.5),
        (ImageEnhance.Brightness, 0.2),
        (ImageEnhance.Contrast, 0.3),
        (ImageEnhance.Sharpness, 0.9),
    )
    for enhance, strength in changes:
        out = enhance(out).enhance(1 + rng.uniform(-strength, strength))
    if rng.random() < 0.08:
        out = ImageOps.grayscale(out).convert("RGB")
    elif rng.random() < 0.05:  # a line drawing: the edges, dark on light
        out = ImageOps.autocontrast(ImageOps.invert(ImageOps.grayscale(out.filter(ImageFilter.FIND_EDGES))))
        out = out.convert("RGB")
    return out


def _background(rng: random.Random) -> tuple[int, int, int, int]:
    """White, or a light or any colour."""
    kind = rng.random()
    lowest = 256 if kind < 0.6 else 170 if kind < 0.85 else 0
    red, green, blue = (255 if lowest > 255 else rng.randint(lowest, 255) for _ in range(3))
    return red, green, blue, 255
