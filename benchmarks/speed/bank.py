"""A bank on disk at 1e3, 1e4 and 1e5 demonstrations: add, open, read, list, verify, compact, and bytes each.

The demonstrations are of pocket's size (20 fused tokens of 576 fp32 numbers, a pooled reading) and are not read by a
model: what is timed is the bank. The floor of adding is the same bytes, written and synced as often, without a bank.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, FusedTokens, PromptFormat
from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.binding import key_of
from aim_sdk.bank.disk.segments import write_whole
from aim_sdk.bank.disk.store import DiskStore
from aim_sdk.bank.store import NewEntry
from aim_sdk.config import Binding, Fingerprint
from benchmarks.speed.measure import ASSETS, seconds, write_result

TOKENS, WIDTH, BATCH = 20, 576, 64
BINDING = Binding(
    fingerprint=Fingerprint(
        backend="bench",
        model="bench",
        weights_hash="0",
        embedding_hash="0",
        tokenizer_hash="0",
        hidden_size=WIDTH,
        embedding_size=WIDTH,
        embedding_rms=1.0,
    ),
    projector_kind="linear",
    projector_hash="0",
    prompt_format=PromptFormat.chat(),
)


def entries(count: int, folder: Path) -> Iterator[list[NewEntry]]:
    """Batches of demonstrations, their tensors drawn at random."""
    image = folder / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    drawn = torch.randn(BATCH, TOKENS, WIDTH)
    for start in range(0, count, BATCH):
        batch = []
        for place in range(start, min(start + BATCH, count)):
            shown = Demonstration(image, "What is this?", f"answer {place}", {"label": place % 10})
            key = key_of(BINDING, "digest", shown)
            batch.append(NewEntry(key, place, "digest", shown, FusedTokens(drawn[place - start])))
        yield batch


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Seconds of everything that a bank of ``count`` demonstrations does."""
    path = folder / "bank"
    batches = list(entries(count, folder))
    vectors = np.random.default_rng(0).standard_normal((BATCH, WIDTH)).astype(np.float32)
    store = DiskStore(path, BINDING)

    def add() -> None:
        for batch in batches:
            store.add(batch, features={POOLED: vectors[: len(batch)]})

    found: dict[str, Any] = {"demonstrations": count, "add": seconds(add)}
    size = sum(file.stat().st_size for file in path.iterdir())
    segments = sum(file.stat().st_size for file in path.glob("segment-*"))
    found |= {
        "bytes": size,
        "bytes_a_demonstration": size / count,
        "index_bytes_a_demonstration": (size - segments) / count,
    }
    found["floor_of_add"] = seconds(lambda: _floor(folder / "floor", segments, len(batches)))
    (folder / "floor").unlink()
    keys = store.ordered_keys()
    store.close()

    chosen = [keys[n] for n in np.random.default_rng(1).choice(count, 16, replace=False)]
    with DemonstrationBank.open(path) as bank:
        found["read_16_first"] = seconds(lambda: [bank[key].fused for key in chosen])
        found["read_16_again"] = seconds(lambda: [bank[key].fused for key in chosen])
        found["first_16"] = seconds(lambda: list(bank.values())[:16])
        found["list_all"] = seconds(bank.view)
        found["list_again"] = seconds(bank.view)
        found["load_vectors"] = seconds(lambda: bank.view().features(POOLED))
        found["load_vectors_again"] = seconds(lambda: bank.view().features(POOLED))
        found["verify"] = seconds(bank.verify)
        bank.remove(*keys[::2])
        found["compact_half"] = seconds(bank.compact)
        found["bytes_after"] = bank.stats().bytes
    found["open"] = min(seconds(lambda: DemonstrationBank.open(path).close()) for _ in range(5))
    return found


def _floor(path: Path, size: int, syncs: int) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    data, place = os.urandom(size // syncs), 0
    for _ in range(syncs):
        place = write_whole(handle, data, place)
        os.fsync(handle)
    os.close(handle)


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    """Seconds over the number of demonstrations."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    names = {
        "open": "open",
        "read_16_first": "read 16, the first time",
        "first_16": "the first 16",
        "list_all": "list all",
        "load_vectors": "load all vectors",
        "verify": "verify every byte",
        "add": "add all",
    }
    for name, label in names.items():
        axes.plot([f["demonstrations"] for f in sizes], [f[name] for f in sizes], marker=".", label=label)
    axes.set(xscale="log", yscale="log", xlabel="demonstrations", ylabel="seconds", title="a bank on disk")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    sizes = []
    for count in options.sizes:
        with tempfile.TemporaryDirectory(dir=".") as folder:  # /tmp may be memory
            sizes.append(measure(count, Path(folder)))
        print({name: round(value, 4) for name, value in sizes[-1].items()}, flush=True)
    plot(sizes, ASSETS / "speed-bank.png")
    settings = {"tokens": TOKENS, "width": WIDTH, "dtype": "float32", "batch": BATCH}
    print(write_result("bank", {"settings": settings, "sizes": sizes}, packages=["numpy"]))


if __name__ == "__main__":
    main()
