"""Every answer of runs next to its question, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Final

from aim_sdk.evaluation.results import Run

HEAD: Final = ("run", "task", "mode", "shots", "seed", "id", "question", "reference", "answer", "score", "not answered")


def answers_csv(runs: Mapping[str, Run]) -> bytes:
    """One line per answer; several references share one field, one per line. Old results hold no questions."""
    file = io.StringIO(newline="")
    out = csv.writer(file)
    out.writerow(HEAD)
    for name, run in runs.items():
        out.writerows(_rows(name, run))
    return file.getvalue().encode("utf-8", errors="replace")


def _rows(name: str, run: Run) -> Iterator[tuple[object, ...]]:
    for answers in run.answers:
        cell = answers.cell
        asked = run.queries.get(cell.task, {})
        for found in answers.predictions:
            question = asked.get(found.item)
            words = ("", "") if question is None else (question.text, "\n".join(dict.fromkeys(question.references)))
            why = found.refused or ("" if found.fits else "too long")
            yield name, cell.task, cell.mode, cell.shots, cell.seed, found.item, *words, found.answer, found.score, why
