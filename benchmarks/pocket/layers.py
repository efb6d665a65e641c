"""``python -m benchmarks.pocket.layers``: where a reading tells concepts apart, and what a carrier keeps of it.

Two drawings of each concept, in the held-out style and in another one, are read with unlike answers. Of every two
concepts: is a drawing more like its concept's other drawing than like the other concept's? States at the token before
the answer, standardised over all; the soft next token, which is what the training-free carrier carries; and what the
shipped carrier carries, centred.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from aim_backends.pocket.backend import PocketBackend
from aim_sdk.projectors.carrier import Carrier
from aim_sdk.support.provenance import provenance
from aim_sdk.types import Demonstration
from benchmarks.pocket.carrier import load_model
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.config import RESULTS, SHIPPED, WORK
from benchmarks.pocket.sources import HELD_OUT_STYLE

_LAYERS: Final = (3, 6, 9, 12, 15, 18, 21, 24, 27, -1)
_CONCEPTS: Final = 120
_BATCH: Final = 20


def told_apart(backend: PocketBackend, concepts: Sequence[Concept], carrier: Carrier | None) -> dict[str, float]:
    """Return the share of pairs of concepts told apart, by layer, by the soft next token, and by a trained carrier."""
    ones = _states(backend, [concept.drawings[HELD_OUT_STYLE] for concept in concepts], "moon")
    others = _states(backend, [concept.drawings[concept.styles()[0]] for concept in concepts], "river")
    found = {}
    for place, layer in enumerate(_LAYERS):
        one, other = ones[:, place], others[:, place]
        both = torch.cat([one, other])
        mean, deviation = both.mean(0), both.std(0) + 1e-6
        found[str(layer)] = _share((one - mean) / deviation, (other - mean) / deviation)
    table = backend.vocabulary.inputs
    soft = [backend.model.lm.head(states[:, -1]).softmax(-1) @ table - table.mean(0) for states in (ones, others)]
    found["soft next token"] = _share(*soft)
    if carrier:
        read = [_LAYERS.index(layer) for layer in carrier.layers]
        one, other = (carrier.value(states[:, read].flatten(1)) for states in (ones, others))
        mean = torch.cat([one, other]).mean(0)
        found["shipped carrier"] = _share(one - mean, other - mean)
    return found


def _states(backend: PocketBackend, drawings: Sequence[str], answer: str) -> Tensor:
    """States ``(drawings, layers, hidden)`` at the token before the answer."""
    shown = [Demonstration(WORK / path, "What is this?", answer) for path in drawings]
    rows = []
    for start in range(0, len(shown), _BATCH):
        readings = backend.reader.read(
            shown[start : start + _BATCH], prompt_format=backend.default_format, layers=_LAYERS
        )
        rows += [reading.hidden[reading.answer_start - 1].unflatten(0, (len(_LAYERS), -1)) for reading in readings]
    return torch.stack(rows)


def _shipped_carrier(backend: PocketBackend) -> Carrier:
    projector = backend.default_projector().attach(backend.vocabulary)
    assert isinstance(projector, Carrier)
    return projector


def _share(ones: Tensor, others: Tensor) -> float:
    likeness = F.normalize(ones, dim=-1) @ F.normalize(others, dim=-1).T
    more = (likeness.diagonal()[:, None] > likeness).float().sum() / (len(ones) * (len(ones) - 1))
    return round(float(more), 4)


@torch.no_grad()
def main() -> None:
    """Measure backbones, and write a result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--backbones", nargs="+", type=Path, default=[SHIPPED], help="folders with connector and LoRA")
    folders = parser.parse_args().backbones
    known = [c for c in load_catalog() if c.nameable and c.styles() and HELD_OUT_STYLE in c.drawings]
    splits = {"held-out concepts": True, "training concepts": False}
    found = {}
    for folder in folders:
        backend = PocketBackend(load_model(folder))
        carrier = _shipped_carrier(backend) if folder == SHIPPED else None
        found[folder.name] = {
            name: told_apart(backend, [c for c in known if c.held_out is held_out][:_CONCEPTS], carrier)
            for name, held_out in splits.items()
        }
        print(folder.name, json.dumps(found[folder.name], indent=1), flush=True)
    result = {
        "what": "share of pairs of concepts told apart by two drawings' readings, by layer; 120 concepts a split",
        **provenance("tokenizers"),
        "backbones": found,
    }
    path = RESULTS / f"pocket-layers-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
