"""A corpus on disk: documents of four PNG images (noise and a shape) and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

IMAGES = 4
_WORDS = ["a", "small", "red", "thing", "on", "top", "of", "the", "wooden", "table", "where", "it", "was", "left"]


def corpus(folder: Path, documents: int, *, size: tuple[int, int]) -> Path:
    """Write the documents; their images are ``size`` (width, height)."""
    rng, (width, height) = np.random.default_rng(0), size
    lines = []
    for document in range(documents):
        pairs = []
        for number in range(IMAGES):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            left, top = rng.uniform(0.1, 0.5, 2)
            box = (left * width, top * height, (left + 0.45) * width, (top + 0.35) * height)
            ImageDraw.Draw(image).ellipse(box, fill=tuple(map(int, rng.integers(0, 256, 3))))
            image.save(folder / (name := f"{document}-{number}.png"))
            sentence = " ".join(rng.choice(_WORDS, int(rng.integers(6, 20)))).capitalize() + "."
            pairs.append({"image": name, "answer": sentence})
        lines.append(json.dumps({"pairs": pairs}))
    (path := folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return path
