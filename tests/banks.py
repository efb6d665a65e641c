"""Banks without a backbone: an encoder that counts what it reads and makes tokens of it by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from aim_sdk import Demonstration, DemonstrationBank, FusedTokens
from aim_sdk.bank.store import MemoryStore
from aim_sdk.config import Binding, Fingerprint, PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.files.images import load_image
from aim_sdk.reading.encoder import Encoded
from aim_sdk.types import Reading


def fingerprint(name: str = "toy") -> Fingerprint:
    return Fingerprint(
        backend="toy",
        model=name,
        weights_hash=name,
        embedding_hash=name,
        tokenizer_hash="bytes",
        hidden_size=4,
        embedding_size=2,
        embedding_rms=1.0,
    )


def binding(name: str = "toy", projector: str = "p") -> Binding:
    return Binding(
        fingerprint=fingerprint(name),
        projector_kind="linear",
        projector_hash=projector,
        prompt_format=PromptFormat.chat(),
    )


def fused_of(item: Demonstration) -> torch.Tensor:
    """One token a byte of the answer; ``(tokens, 2)``."""
    data = list(item.answer.encode())
    return torch.tensor([[float(byte), float(len(item.text))] for byte in data])


class CountingEncoder:
    """Stands where an `aim_sdk.reading.encoder.Encoder` does; fails on the answer "bad"."""

    def __init__(self, name: str = "toy", projector: str = "p", batch: int = 4) -> None:
        self.binding, self.batch = binding(name, projector), batch
        self.read: list[str] = []

    def stream(
        self, demonstrations: Sequence[Demonstration], *, batch_tokens: int = 0, on_error: Any = None
    ) -> Iterator[list[tuple[int, Encoded]]]:
        places = list(range(len(demonstrations)))
        for start in range(0, len(places), self.batch):
            made = []
            for place in places[start : start + self.batch]:
                item = demonstrations[place]
                try:
                    load_image(item.image)
                    if item.answer == "bad":
                        raise InputError("bad")
                except InputError as error:
                    if on_error is None:
                        raise
                    on_error(place, error)
                    continue
                self.read.append(item.answer)
                made.append((place, Encoded(self.reading(item), FusedTokens(fused_of(item)))))
            yield made

    def reading(self, item: Demonstration) -> Reading:
        tokens = len(item.answer.encode())
        hidden = torch.arange(tokens * 4, dtype=torch.float32).view(tokens, 4)
        return Reading(torch.arange(tokens), hidden, hidden[:, :2], 0, 1)

    def pooled(self, reading: Reading) -> Any:
        return reading.hidden[0].numpy()

    def on_device(self, fused: torch.Tensor) -> torch.Tensor:
        return fused


def open_bank(encoder: CountingEncoder, path: Path | None, **options: Any) -> DemonstrationBank:
    if path is None:
        return DemonstrationBank(MemoryStore(), encoder.binding, encoder)  # type: ignore[arg-type]
    return DemonstrationBank.open(path, encoder=encoder, create=True, **options)  # type: ignore[arg-type]


Open = Callable[[CountingEncoder], DemonstrationBank]


def answers(bank: DemonstrationBank) -> list[str]:
    """In the order of the bank."""
    return [entry.demonstration.answer for entry in bank.values()]


def segment(path: Path) -> Path:
    """The file that a bank on disk was last written to."""
    return max(path.glob("segment-*.aim"))
