"""Which token should a carrier be? Name binding on pocket with the training-free carrier, under several formats.

Two drawings get a name each (k = 2); the query shows one of the two things in a style that no demonstration has. The
margin is the true name's log-probability minus the other's; an episode counts as right where it is positive. Chance is
.5 and 0. Episodes come in pairs that share their demonstrations, so standard errors are over pairs.

    python -m benchmarks.projectors.carrier_place            # one core: OMP_NUM_THREADS=1
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import FusedTokens, PromptFormat, Reading
from aim_sdk.projectors import CarrierProjector
from aim_sdk.support.provenance import provenance
from benchmarks.pocket.sets import PairQuery, pairs

FORMATS = {
    "pocket's own": "Question: {text}\n{image}\nAnswer: {answer}\n",
    "image first, own line": "{image}\nQuestion: {text}\nAnswer: {answer}\n",
    "image first": "{image}Question: {text} Short answer: {answer}\n",
    "chat-like": "<user>\n{image}{text}\n<assistant>\n{answer}\n",
    "before the answer's marker": "Question: {text}\n{image}Answer: {answer}\n",
    "no question": "A picture: {image} Its name: {answer}\n",
}
RULES: dict[str, Callable[[Reading], int]] = {
    "before": lambda reading: max(0, reading.image_position - 1),
    "after": lambda reading: reading.image_position,
    "late": lambda reading: reading.answer_start - 2,
}
"""Index of the carrier; all are held to `answer_start - 2`. A carrier "after" is put there by its image position."""
SHOTS, SEED = 2, 0
OUT = Path(__file__).parents[1] / "results"


class PlaceBench:
    """One backbone, and sets of name binding, each with a query for either name."""

    def __init__(self, episodes: int) -> None:
        self.backend = PocketBackend.from_pretrained(device="cpu")
        self.carrier = CarrierProjector.untrained(self.backend.vocabulary, place="after")
        self.pairs = list(pairs("emoji-names", shots=SHOTS, limit=episodes // 2, seed=SEED))

    def margins(self, template: str) -> dict[str, list[list[float]]]:
        """By rule, one row a pair of episodes. Rules that choose the same tokens are measured once."""
        form, found = PromptFormat.plain(template), defaultdict[str, list[list[float]]](list)
        for pair in self.pairs:
            readings = self.backend.reader.read(pair.demonstrations, prompt_format=form)
            seen: dict[tuple[int, ...], list[float]] = {}
            for rule, at in RULES.items():
                places = tuple(min(at(reading), reading.answer_start - 2) for reading in readings)
                if places not in seen:
                    moved = [replace(r, image_position=place) for r, place in zip(readings, places, strict=True)]
                    context = self.carrier.project(moved)
                    one, other = pair.queries
                    both = ((one, other), (other, one))
                    seen[places] = [self._margin(right, wrong, context, form) for right, wrong in both]
                found[rule].append(seen[places])
        return found

    def _margin(self, right: PairQuery, wrong: PairQuery, context: Sequence[FusedTokens], form: PromptFormat) -> float:
        names = [right.answer, wrong.answer]
        true, false = map(sum, self.backend.injector.score(right.query, context, names, prompt_format=form))
        return true - false

    def tokens(self, template: str) -> dict[str, str]:
        """What the carrier's token is by rule, in the first demonstration."""
        shown = self.pairs[0].demonstrations[:1]
        (reading,) = self.backend.reader.read(shown, prompt_format=PromptFormat.plain(template))
        ids = reading.token_ids.tolist()
        return {
            rule: self.backend.model.decode([ids[min(at(reading), reading.answer_start - 2)]])
            for rule, at in RULES.items()
        }


def summary(rows: list[list[float]], base: list[list[float]]) -> dict[str, Any]:
    """Accuracy and margin, and their gain on another rule in the same episodes: means and standard errors over rows."""

    def right(margins: list[list[float]]) -> list[list[float]]:
        return [[float(margin > 0) for margin in row] for row in margins]

    return {
        "n": sum(map(len, rows)),
        "accuracy": _estimate(right(rows)),
        "margin": _estimate(rows),
        "accuracy_gain_on_after": _estimate(_minus(right(rows), right(base))),
        "margin_gain_on_after": _estimate(_minus(rows, base)),
    }


def _minus(rows: list[list[float]], base: list[list[float]]) -> list[list[float]]:
    return [[a - b for a, b in zip(row, other, strict=True)] for row, other in zip(rows, base, strict=True)]


def _estimate(rows: list[list[float]]) -> dict[str, float]:
    means = [fmean(row) for row in rows]
    return {"mean": round(fmean(means), 4), "se": round(stdev(means) / len(means) ** 0.5, 4)}


def main() -> None:
    """Measure every format and write ``benchmarks/results/carrier-place-<date>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200, help="of each cell")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}")
    options = parser.parse_args()
    bench, started, formats = PlaceBench(options.episodes), time.time(), []
    for name, template in FORMATS.items():
        margins = bench.margins(template)
        cells = {rule: summary(rows, margins["after"]) for rule, rows in margins.items()}
        formats.append({"name": name, "template": template, "tokens": bench.tokens(template), "rules": cells})
        said = "  ".join(f"{rule} {cell['accuracy']} {cell['margin']}" for rule, cell in cells.items())
        print(f"{name:28} {said}  ({time.time() - started:.0f} s)", flush=True)
    result = {
        "what": "training-free carrier on pocket: name binding by which token carries",
        **provenance("tokenizers"),
        "seed": SEED,
        "shots": SHOTS,
        "formats": formats,
    }
    path = OUT / f"carrier-place-{options.date}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(path.name)


if __name__ == "__main__":
    main()
