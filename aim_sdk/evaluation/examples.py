"""One query of each task as a run asked it: its demonstrations, and what was answered in each mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aim_sdk.evaluation.results import Prediction, Question, Run
from aim_sdk.support.modes import LABELS, PROMPTED
from aim_sdk.types import Mode


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """One query of a task."""

    title: str
    """Of the task."""
    demonstrations: tuple[tuple[str, str, str], ...]
    """Id, text and answer of each."""
    question: Question
    answers: dict[Mode, Prediction]
    """In the order of the tables' rows."""


def examples(run: Run, shots: int) -> Iterator[ExampleQuery]:
    """Yield a query of each task for which the run kept a whole prompt, at ``shots`` shots (and zero-shot).

    Tasks that show it other demonstrations at ``shots`` than the first of its most are left out.
    """
    for task, by_mode in run.examples.items():
        kept = next((example for example in by_mode.values() if example.shots), None)
        if kept is None:
            continue
        asked = (
            (mode, _prediction(run, task, mode, 0 if mode == "zero-shot" else shots, kept.item)) for mode in LABELS
        )
        answers = {mode: found for mode, found in asked if found is not None}
        texts = dict(zip(_names(run, task, kept.item), kept.shown, strict=False))
        shown = next((p.demonstrations for mode, p in answers.items() if mode in PROMPTED - {"zero-shot"}), ())
        if shown and all(name in texts for name in shown):
            demonstrations = tuple((name, *texts[name]) for name in shown)
            yield ExampleQuery(run.tasks[task]["title"], demonstrations, run.queries[task][kept.item], answers)


def _names(run: Run, task: str, item: str) -> tuple[str, ...]:
    """The demonstrations of a query at the most shots."""
    found = [
        p.demonstrations
        for answers in run.answers
        if answers.cell.task == task and answers.cell.mode != "nearest"
        for p in answers.predictions
        if p.item == item
    ]
    return max(found, key=len, default=())


def _prediction(run: Run, task: str, mode: Mode, shots: int, item: str) -> Prediction | None:
    """The first seed's answer to a query."""
    found = (p for answers in run.answered(task, mode, shots) for p in answers.predictions if p.item == item)
    return next(found, None)
