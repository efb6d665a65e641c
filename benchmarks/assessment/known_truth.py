"""``python -m benchmarks.assessment.known_truth``: banks whose truth is known, and what `pipe.assess` says of them.

Pictures and questions are easy-VQA's (red and blue shapes), the backbone is pocket. Of every kind many banks are drawn:

* ``helpful``: red shapes are called one word and blue ones another, which nothing but the other examples tells;
* ``useless``: the same pictures, each called one of the two words at random;
* ``mislabelled``: helpful, but a fifth of the answers is the other word;
* ``text``: the text next to the picture decides the word; the pictures are at random;
* ``harmful``: the question is what colour the shape has, and the bank's answers are at random; other pictures, with
  their true answers, are the validation set.

The result file keeps what was said of each bank: the same command resumes, also on another machine.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.assessment.assessment import Assessment
from aim_sdk.files.atomic import write_atomic
from aim_sdk.support.provenance import provenance
from benchmarks.pocket.trials import pictures

_COLOUR: Final = "What color is the shape?"
_COLOURS: Final = ("red", "blue")
_WORDS: Final = ("blick", "dax")
_KINDS: Final = ("helpful", "useless", "mislabelled", "text", "harmful")
_TEXTS: Final = ("cat", "train")
_RESULT: Final = Path(__file__).parents[1] / "results" / "assessment-known-truth-2026-11-30.json"

Bank = tuple[list[Demonstration], list[Demonstration] | None, set[int]]
"""Demonstrations, the validation set, and the places of wrong answers."""


class Banks:
    """Draws banks; the same kind and number give the same bank."""

    def __init__(self, items: int) -> None:
        self._items, found = items, pictures("train", _COLOUR)
        self._pictures = {colour: list(dict.fromkeys(found[colour])) for colour in _COLOURS}
        self.kinds: dict[str, Callable[[random.Random], Bank]] = {
            "helpful": lambda rng: (self._called(rng), None, set()),
            "useless": self._useless,
            "mislabelled": self._mislabelled,
            "text": self._by_text,
            "harmful": self._harmful,
        }

    def _drawn(self, rng: random.Random) -> list[tuple[int, Path]]:
        """As many pictures of each colour, in random order, with the colour's number."""
        half = self._items // 2
        drawn = [
            (n, picture) for n, colour in enumerate(_COLOURS) for picture in rng.sample(self._pictures[colour], half)
        ]
        return rng.sample(drawn, len(drawn))

    def _called(self, rng: random.Random) -> list[Demonstration]:
        return [Demonstration(picture, "What is this?", _WORDS[n]) for n, picture in self._drawn(rng)]

    def _useless(self, rng: random.Random) -> Bank:
        words = rng.sample(_WORDS * (self._items // 2), self._items)
        drawn = zip(self._drawn(rng), words, strict=True)
        return [Demonstration(picture, "What is this?", word) for (_, picture), word in drawn], None, set()

    def _mislabelled(self, rng: random.Random) -> Bank:
        wrong = set(rng.sample(range(self._items), self._items // 5))
        shown = [
            Demonstration(one.image, one.text, _WORDS[1 - _WORDS.index(one.answer)] if n in wrong else one.answer)
            for n, one in enumerate(self._called(rng))
        ]
        return shown, None, wrong

    def _by_text(self, rng: random.Random) -> Bank:
        codes = rng.sample([0, 1] * (self._items // 2), self._items)
        drawn = zip(self._drawn(rng), codes, strict=True)
        return [Demonstration(picture, _TEXTS[code], _WORDS[code]) for (_, picture), code in drawn], None, set()

    def _harmful(self, rng: random.Random) -> Bank:
        drawn = self._drawn(rng)
        asked = [Demonstration(picture, _COLOUR, _COLOURS[n]) for n, picture in drawn]
        others = self._drawn(rng)
        held = {picture for _, picture in drawn}
        shown = [Demonstration(p, _COLOUR, rng.choice(_COLOURS)) for _, p in others if p not in held]
        return shown, asked, set()


def right(kind: str, found: Assessment) -> bool:
    """Whether the verdict is the truth."""
    verdict = found.verdict
    if kind in ("helpful", "mislabelled"):
        return verdict.helps and verdict.images_matter
    if kind == "text":
        return verdict.helps and not verdict.images_matter
    return not verdict.helps


def main() -> None:
    """Assess what is not assessed yet, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banks", type=int, default=20, help="of each kind")
    parser.add_argument("--items", type=int, default=40, help="demonstrations of a bank")
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=_KINDS, metavar="KIND", help=", ".join(_KINDS))
    parser.add_argument("--output", type=Path, default=_RESULT, help="the result file")
    arguments = parser.parse_args()
    path: Path = arguments.output
    kept: dict[str, list[dict[str, Any]]] = json.loads(path.read_bytes())["banks"] if path.exists() else {}
    if any(one["items"] != arguments.items for found in kept.values() for one in found):
        parser.error(f"{path} has banks of another size. Next: the same --items, or another --output.")
    banks, loaded = Banks(arguments.items), AIMPipeline.from_pretrained("pocket", device="cpu")
    for number in range(arguments.banks):
        for kind in arguments.kinds:
            found = kept.setdefault(kind, [])
            if number < len(found):
                continue
            made = _assessed(loaded, kind, banks.kinds[kind](random.Random(f"{kind}:{number}")))
            found.append({"items": arguments.items, **made})
            write_atomic(path, (json.dumps(_summary(kept), indent=1) + "\n").encode())
            print(f"{kind} {number}: {made['right']}: {made['sentence']}", flush=True)
    print(json.dumps(_summary(kept)["kinds"], indent=1))


def _assessed(loaded: AIMPipeline, kind: str, bank: Bank) -> dict[str, Any]:
    shown, asked, wrong = bank
    pipe = AIMPipeline(loaded.backend, loaded.projector)
    keys = pipe.bank.add(shown)
    found = pipe.assess(asked, shots=[2, 4], modes=["aim", "text-only", "nearest"])
    named = [one.key for one in found.doubtful][: len(wrong)]
    return {
        "right": right(kind, found),
        "sentence": found.verdict.sentence,
        "doubtful": len(found.doubtful),
        "wrong_among_first": sum(keys[n] in named for n in wrong),
        "wrong": len(wrong),
        "seconds": found.seconds,
    }


def _summary(banks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    kinds = {}
    for kind, found in banks.items():
        share = sum(one["right"] for one in found) / len(found)
        wrong = sum(one["wrong"] for one in found)
        kinds[kind] = {
            "banks": len(found),
            "right": share,
            "standard_error": math.sqrt(share * (1 - share) / len(found)),
            "precision_of_doubtful": sum(one["wrong_among_first"] for one in found) / wrong if wrong else None,
        }
    return {
        "what": "verdicts of `pipe.assess` on banks whose truth is known (pocket, easy-VQA)",
        **provenance("transformers"),
        "command": "python -m benchmarks.assessment.known_truth",
        "kinds": kinds,
        "banks": banks,
    }


if __name__ == "__main__":
    main()
