"""``python -m benchmarks.pocket.home``: the picture of the documentation's home page, with what pocket really answers.

Nothing is chosen: it shows the first query of the demo's two tasks that only demonstrations can answer, its 4
demonstrations, and the first query that the set's other word is right for. The answers are kept next to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from aim_sdk import AIMPipeline
from aim_sdk.files.images import load_image
from aim_sdk.support.provenance import provenance
from aim_sdk.types import Generation, ImageInput, Mode, Query
from benchmarks.pocket.sets import NamedPair, pairs

_ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = _ROOT / "docs" / "assets" / "home.png"
RESULT: Final = _ROOT / "benchmarks" / "results" / "home-2026-11-29.json"
TASKS: Final = ("emoji-names", "emoji-labels")
SEED: Final = 0
SHOTS: Final = 4
ROWS: Final[dict[Mode, str]] = {"aim": "AIM", "interleaved": "interleaved", "text-only": "texts alone"}
GREY, RIGHT, WRONG, QUERY = "#52525b", "#15803d", "#b91c1c", "#c2410c"


def main() -> None:
    """Answer, draw, and keep both."""
    pipe = AIMPipeline.from_pretrained("pocket", device="cpu")
    sets = {task: next(pairs(task, shots=SHOTS, limit=None, seed=SEED)) for task in TASKS}
    answers = {task: [_answers(pipe, asked.query, pair) for asked in pair.queries] for task, pair in sets.items()}
    kept = {
        task: {
            "demonstrations": [[Path(str(d.image)).name, d.answer] for d in pair.demonstrations],
            "queries": [
                {
                    "image": Path(str(asked.query.image)).name,
                    "right": asked.answer,
                    "answers": {mode: [a.text, a.prompt_tokens] for mode, a in found.items()},
                }
                for asked, found in zip(pair.queries, answers[task], strict=True)
            ],
        }
        for task, pair in sets.items()
    }
    head = {**provenance("tokenizers"), "command": "python -m benchmarks.pocket.home", "seed": SEED, "shots": SHOTS}
    RESULT.write_text(json.dumps({**head, "projector": pipe.projector.identity, "sets": kept}, indent=1) + "\n")
    _draw([(pair, answers[task]) for task, pair in sets.items()])


def _answers(pipe: AIMPipeline, query: Query, pair: NamedPair) -> dict[Mode, Generation]:
    shown = pair.demonstrations
    return {mode: pipe.generate([query], demonstrations=shown, mode=mode, max_new_tokens=4)[0] for mode in ROWS}


def _draw(sets: list[tuple[NamedPair, list[dict[Mode, Generation]]]]) -> None:
    widths = [1.0] * SHOTS + [1.0, 1.6] * 2
    size = (1.5 * sum(widths), 1.9 * len(sets))
    figure, grid = plt.subplots(len(sets), len(widths), figsize=size, width_ratios=widths, layout="constrained")
    for row, (pair, answers) in zip(grid, sets, strict=True):
        for place, demonstration in enumerate(pair.demonstrations):
            _image(row[place], demonstration.image, f"demonstration {place + 1}", f'"{demonstration.answer}"')
        for place, (asked, found) in enumerate(zip(pair.queries, answers, strict=True)):
            left, right = row[SHOTS + 2 * place : SHOTS + 2 * place + 2]
            _image(left, asked.query.image, "query", asked.query.text, frame=QUERY)
            _table(right, found, asked.answer)
    figure.savefig(PICTURE, facecolor="white")


def _image(axes: Axes, image: ImageInput, title: str, label: str, frame: str = "#d4d4d8") -> None:
    axes.imshow(load_image(image))
    axes.set_title(title, fontsize=11, color=GREY)
    axes.set_xlabel(label, fontsize=13)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=2)


def _table(axes: Axes, answers: dict[Mode, Generation], right: str) -> None:
    axes.axis("off")
    for place, (mode, label) in enumerate(ROWS.items()):
        hit = answers[mode].text.casefold() == right.casefold()
        height = 0.84 - 0.33 * place
        axes.text(0, height, f"{label} ({answers[mode].prompt_tokens} tokens)", fontsize=9, color=GREY)
        sign = "\N{CHECK MARK}" if hit else "\N{BALLOT X}"
        axes.text(0, height - 0.15, f'{sign} "{answers[mode].text}"', fontsize=14, color=RIGHT if hit else WRONG)


if __name__ == "__main__":
    main()
