"""``python -m benchmarks.recipes.estimate [NAME ...]``: memory and hours of the recipes, computed and not measured.

Without names it prints a table of all recipes; with names, what each recipe's header quotes and the terms of its
formula (`benchmarks.recipes.formula`). ``--markdown`` prints the table of the documentation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aim_sdk.errors import unknown
from aim_sdk.training import TrainingConfig
from benchmarks.recipes import formula
from benchmarks.recipes.backbones import BACKBONES
from benchmarks.recipes.formula import CARDS, FREE, Card, Run

FOLDER: Final = Path(__file__).parent
_LARGEST: Final = 8
"""Episodes of one forward: more fill no card better."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a recipe needs on one card, with the settings that suit it."""

    run: Run
    card: Card

    @property
    def memory(self) -> float:
        return sum(formula.memory(self.run).values())

    @property
    def hours(self) -> float:
        return formula.hours(self.run, self.card)

    @property
    def fits(self) -> bool:
        return self.memory <= (1 - FREE) * self.card.memory

    @property
    def overrides(self) -> str:
        """The settings, as ``aim-icl train`` takes them."""
        recompute = f"recompute_activations={str(self.run.recompute).lower()}"
        return f"batch_size={self.run.batch_size} batches_per_step={self.run.batches_per_step} {recompute}"


def load(name: str) -> TrainingConfig:
    """A recipe's settings."""
    return TrainingConfig.load(FOLDER / f"{name}.yaml")


def run_of(name: str, config: TrainingConfig) -> Run:
    """What of a recipe decides its needs."""
    fewest, most = config.episodes.shots
    return Run(
        BACKBONES[name],
        captions=config.objective.teacher == "captions",
        fewest=fewest,
        most=most,
        steps=config.steps,
        batch_size=config.batch_size,
        batches_per_step=config.batches_per_step,
        recompute=config.recompute_activations,
        reading_tokens=config.reading_tokens,
        layers_read=len(config.projector.layers),
    )


def suited(run: Run, card: Card) -> Needs:
    """The same steps with the largest batch that a card holds; activations are recomputed only if one episode needs it.

    Raises:
        ValueError: not even one episode fits.
    """
    step = run.batch_size * run.batches_per_step
    for recompute in (False, True):
        for size in (size for size in range(_LARGEST, 0, -1) if step % size == 0):
            changed = replace(run, batch_size=size, batches_per_step=step // size, recompute=recompute)
            if (needs := Needs(changed, card)).fits:
                return needs
    raise ValueError(f"{run.backbone.model} does not fit on a card of {card.name}.")


def quoted(name: str) -> list[str]:
    """What the recipe's header says of its needs."""
    run = run_of(name, load(name))
    lines = [f"Computed, not measured (python -m benchmarks.recipes.estimate {name}):"]
    for card in reversed(CARDS):
        needs = suited(run, card)
        stands = "as it stands" if needs.run == run else f"with\n    {needs.overrides}"
        lines.append(f"  {card.name}: {_gib(needs.memory)} GiB, {_hours(needs.hours)} hours, {stands}")
    kept = f"{formula.reading_bytes(run) / 1e9:.0f} GB"
    lines.append(f"  {run.episodes:,} episodes; {kept} of disk if every reading is kept; prompts of up to")
    lines.append(f"    {run.longest:,} positions (the context has {run.backbone.decoder.context:,})")
    return "\n".join(lines).splitlines()


def terms(name: str) -> list[str]:
    """The parts of the formula, with the settings for each card."""
    run = run_of(name, load(name))
    lines = []
    for needs in (suited(run, card) for card in CARDS):
        parts = ", ".join(f"{part} {_gib(size)}" for part, size in formula.memory(needs.run).items())
        shares = ", ".join(f"{part} {size / 1e12:.1f}" for part, size in formula.work(needs.run).items())
        lines += [
            f"{needs.card.name}: {needs.overrides}",
            f"  GiB: {parts}",
            f"  10^12 operations an episode: {shares}",
        ]
    return lines


def rows() -> Iterator[tuple[str, ...]]:
    """The table of all recipes."""
    for name in BACKBONES:
        config = load(name)
        run = run_of(name, config)
        cells = [name, str(config.objective.teacher), str(run.backbone.visual_tokens)]
        for card in CARDS:
            needs = suited(run, card)
            batch = f"{needs.run.batch_size}{'*' if needs.run.recompute else ''}"
            cells += [batch, _gib(needs.memory), _hours(needs.hours)]
        yield tuple(cells)


HEADS: Final = ("recipe", "teacher", "image", *("batch", "GiB", "hours") * len(CARDS))
NOTE: Final = (
    f"Computed, not measured: {formula.UTILISATION:.0%} of the cards' peak is assumed. image: visual\n"
    "tokens of 640 x 480 pixels. batch: episodes of one forward (* with\n"
    "recompute_activations=true)."
)


def table() -> str:
    """All recipes, in 80 columns."""
    first, second = (card.name for card in CARDS)
    lines = [f"{'':37}{first:>19}{second:>19}"]
    widths = (6, 5, 8) * len(CARDS)
    for name, teacher, image, *numbers in (HEADS, *rows()):
        aligned = "".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
        lines.append(f"{name:20}{teacher:11}{image:>6}{aligned}")
    return "\n".join([*lines, "", NOTE])


def markdown() -> str:
    """All recipes, as the documentation shows them."""
    cards = [f"{card.name}: {head}" for card in CARDS for head in ("batch", "GiB", "hours")]
    lines = [["recipe", "teacher", "visual tokens", *cards], ["---"] * (3 + len(cards)), *rows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BACKBONES))
    parser.add_argument("--markdown", action="store_true", help="the table of the documentation")
    asked = parser.parse_args(arguments)
    for name in asked.names:
        if name not in BACKBONES:
            parser.error(unknown("recipe", name, BACKBONES))
        print("\n".join([*quoted(name), "", *terms(name)]))
    if not asked.names:
        print(markdown() if asked.markdown else table())


if __name__ == "__main__":
    main()
