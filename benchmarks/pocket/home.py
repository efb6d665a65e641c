"""``python -m benchmarks.pocket.home``: the picture of the documentation's home page, with what pocket really answers.

Nothing is chosen: it shows the first set of demonstrations of the demo's two tasks that only demonstrations can answer,
4 of them, and for each of the set's two words the first query that it is right for. The answers are kept next to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from aim_backends.pocket.demo import QUERIES_A_SET, demo_tasks
from aim_sdk import AIMPipeline
from aim_sdk.demo.tasks import DemoTask, Episode
from aim_sdk.files.images import load_image
from aim_sdk.support.machine import machine
from aim_sdk.types import Generation, ImageInput, Mode

_ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = _ROOT / "docs" / "assets" / "home.png"
RESULT: Final = _ROOT / "benchmarks" / "results" / "home-2026-11-28.json"
SEED: Final = 0
SHOTS: Final = 4
ROWS: Final[dict[Mode, str]] = {"aim": "AIM", "interleaved": "interleaved", "text-only": "texts alone"}
GREY, RIGHT, WRONG, QUERY = "#52525b", "#15803d", "#b91c1c", "#c2410c"


def main() -> None:
    """Answer, draw, and keep both."""
    pipe = AIMPipeline.from_pretrained("pocket", device="cpu")
    sets = {task.name: _asked(task) for task in demo_tasks(QUERIES_A_SET, seed=SEED) if task.name != "easy-VQA"}
    answers = {name: [_answers(pipe, episode) for episode in asked] for name, asked in sets.items()}
    kept = {
        name: {
            "demonstrations": [[Path(str(d.image)).name, d.answer] for d in asked[0].demonstrations[:SHOTS]],
            "queries": [
                {
                    "image": Path(str(episode.query.image)).name,
                    "right": episode.answer,
                    "answers": {mode: [a.text, a.prompt_tokens] for mode, a in found.items()},
                }
                for episode, found in zip(asked, answers[name], strict=True)
            ],
        }
        for name, asked in sets.items()
    }
    head = {"command": "python -m benchmarks.pocket.home", "seed": SEED, "shots": SHOTS, "machine": machine()}
    RESULT.write_text(json.dumps({**head, "projector": pipe.projector.identity, "sets": kept}, indent=1) + "\n")
    _draw([(asked, answers[name]) for name, asked in sets.items()])


def _asked(task: DemoTask) -> list[Episode]:
    """Of the first set, the first query of each word."""
    by_word: dict[str, Episode] = {}
    for episode in task.episodes:
        if episode.group == 0:
            by_word.setdefault(episode.answer, episode)
    return list(by_word.values())


def _answers(pipe: AIMPipeline, episode: Episode) -> dict[Mode, Generation]:
    shown = episode.demonstrations[:SHOTS]
    return {mode: pipe.generate([episode.query], demonstrations=shown, mode=mode, max_new_tokens=4)[0] for mode in ROWS}


def _draw(sets: list[tuple[list[Episode], list[dict[Mode, Generation]]]]) -> None:
    widths = [1.0] * SHOTS + [1.0, 1.6] * 2
    size = (1.5 * sum(widths), 1.9 * len(sets))
    figure, grid = plt.subplots(len(sets), len(widths), figsize=size, width_ratios=widths, layout="constrained")
    for row, (asked, answers) in zip(grid, sets, strict=True):
        for place, demonstration in enumerate(asked[0].demonstrations[:SHOTS]):
            _image(row[place], demonstration.image, f"demonstration {place + 1}", f'"{demonstration.answer}"')
        for place, (episode, found) in enumerate(zip(asked, answers, strict=True)):
            left, right = row[SHOTS + 2 * place : SHOTS + 2 * place + 2]
            _image(left, episode.query.image, "query", episode.query.text, frame=QUERY)
            _table(right, found, episode.answer)
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
