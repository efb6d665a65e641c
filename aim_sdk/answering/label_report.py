"""Accuracy of labels whose right ones are known: share, confusion, and the nearest neighbours for comparison."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from aim_sdk.errors import did_you_mean
from aim_sdk.files.atomic import write_atomic
from aim_sdk.injection.choices import alike, alike_in_words
from aim_sdk.support.clusters import clustered_error
from aim_sdk.support.terminal import clean

WIDTH: Final = 80
_NAME: Final = 18
"""Characters of a class's name in a row."""


class Share(BaseModel):
    """How many of some labels are right."""

    model_config = ConfigDict(frozen=True)
    right: int
    n: int
    """Those that have a label."""
    accuracy: float
    """From 0 to 1."""
    standard_error: float | None
    """Of the accuracy; None for one label."""

    def __str__(self) -> str:
        return f"{self.right} of {self.n}, {_percent(self.accuracy, self.standard_error)}"


class LabelReport(BaseModel):
    """What `x.report.json` holds."""

    model_config = ConfigDict(frozen=True)
    labels: Share
    unanswered: int
    """Queries whose right label is known, but that have no label: they count neither as right nor as wrong."""
    nearest: Share | None
    """The vote of the nearest demonstrations on the same images, if each has one."""
    nearest_ahead: float | None
    """Its accuracy less the labels', on the same images."""
    nearest_ahead_error: float | None
    """The standard error of this paired difference."""
    confusion: dict[str, dict[str, int]]
    """Right label, then given label, then how many; pairs that never occurred are left out."""
    classes: list[str]
    unknown: list[str]
    """Right labels that are not among the choices: they count as wrong."""


def report_of(
    answers: Sequence[Mapping[str, object]], choices: Sequence[str], *, unanswered: int = 0
) -> LabelReport | None:
    """Count the lines of answers that hold a `reference`; None if none does.

    Args:
        answers: the lines.
        choices: what the labels are chosen from.
        unanswered: how many queries with a known right label have no line.
    """
    known = [
        (reference.strip(), str(line["answer"]), line.get("nearest"))
        for line in answers
        if isinstance(reference := line.get("reference"), str) and reference.strip()
    ]
    if not known:
        return None
    confusion: dict[str, Counter[str]] = {}
    for reference, label, _ in known:
        confusion.setdefault(reference, Counter())[label] += 1
    right = [float(reference == label.strip()) for reference, label, _ in known]
    voted = [isinstance(vote, str) and float(vote.strip() == reference) for reference, _, vote in known]
    compared = all(isinstance(vote, str) for *_, vote in known)
    differences = [float(other) - own for own, other in zip(right, voted, strict=True)]
    names = [choice.strip() for choice in choices]
    unknown = [name for name in confusion if name not in names]
    return LabelReport(
        labels=_share(right),
        unanswered=unanswered,
        nearest=_share([float(other) for other in voted]) if compared else None,
        nearest_ahead=sum(differences) / len(differences) if compared else None,
        nearest_ahead_error=_error(differences) if compared else None,
        confusion={name: dict(confusion[name]) for name in [*names, *unknown] if name in confusion},
        classes=names,
        unknown=unknown,
    )


def write_report(report: LabelReport, out: Path) -> list[Path]:
    """Write `OUT.report.json` and `OUT.report.md` next to the answers."""
    made = [out.with_name(f"{out.name}.report{suffix}") for suffix in (".json", ".md")]
    write_atomic(made[0], (report.model_dump_json(indent=2) + "\n").encode())
    write_atomic(made[1], markdown(report).encode())
    return made


def lines(report: LabelReport) -> list[str]:
    """The report for a terminal of 80 columns."""
    return [f"right: {_right(report)}", *_nearest(report), *_alike(report), "", *_table(report)]


def markdown(report: LabelReport) -> str:
    """The report with its whole table."""
    rows = [*report.classes, *report.unknown]
    head = ["right label", *report.classes, "n", "right"]
    body = [
        [row, *(str(report.confusion[row].get(name, 0)) for name in report.classes), *_ends(report, row)]
        for row in rows
        if row in report.confusion
    ]
    table = ["| " + " | ".join(_cell(one) for one in row) + " |" for row in (head, ["---"] * len(head), *body)]
    said = [f"Right: {_cell(_right(report))}.", *_nearest(report), *map(_cell, _alike(report))]
    return "# Labels\n\n" + "\n\n".join(said) + "\n\n" + "\n".join(table) + "\n"


def _right(report: LabelReport) -> str:
    """The accuracy, and whatever makes it misleading."""
    share, missing = report.labels, report.unanswered
    answered = " answered" if missing else ""
    named = ["standard error"] if share.standard_error is not None else []
    named += [f"{missing} without an answer"] if missing else []
    said = f"{share.right} of {share.n}{answered}, {_percent(share.accuracy, share.standard_error)}"
    said += f" ({'; '.join(named)})" if named else ""
    if not report.unknown:
        return said
    count = sum(sum(report.confusion[name].values()) for name in report.unknown)
    listed = ", ".join(repr(clean(name)) + _near(name, report.classes) for name in report.unknown[:5])
    more = ", ..." if len(report.unknown) > 5 else ""
    which = "the right label of 1 query is" if count == 1 else f"the right labels of {count} queries are"
    return f"{said}; {which} no choice, which counts as wrong: {listed}{more}"


def _alike(report: LabelReport) -> list[str]:
    found = alike(report.classes)
    return [f"In the table, {alike_in_words(found)}."] if found else []


def _nearest(report: LabelReport) -> list[str]:
    if report.nearest is None or report.nearest_ahead is None:
        return []
    found = [f"nearest neighbours (a vote, no LLM): {report.nearest}"]
    if report.nearest_ahead > 0:
        ahead = _percent(report.nearest_ahead, report.nearest_ahead_error).replace(" %", " points")
        found.append(f"The vote is right more often: +{ahead} (paired). See --mode nearest.")
    return found


def _table(report: LabelReport) -> list[str]:
    """Right labels as rows, given ones as numbered columns; the most common mistakes if it is too wide."""
    rows = [*report.classes, *report.unknown]
    numbers = {name: str(place) for place, name in enumerate(report.classes, 1)}
    largest = max(count for row in report.confusion.values() for count in row.values())
    wide = max(len(str(largest)), len(str(len(numbers)))) + 2
    labels = {name: f"{numbers.get(name, '-'):>2} {_short(name)}" for name in rows}
    first = max(len("right label"), *map(len, labels.values()))
    if first + wide * len(numbers) + 14 > WIDTH:
        pairs = [(count, a, b) for a, row in report.confusion.items() for b, count in row.items() if a != b]
        worst = sorted(pairs, key=lambda pair: -pair[0])[:10]
        return ["the commonest mistakes:", *(f"  {n} x {_short(a)}, labelled {_short(b)}" for n, a, b in worst)]
    head = f"{'right label':<{first}}" + "".join(f"{number:>{wide}}" for number in numbers.values())
    body = [
        f"{labels[row]:<{first}}"
        + "".join(f"{report.confusion.get(row, {}).get(name, 0) or '.':>{wide}}" for name in report.classes)
        + "{:>5} {:>8}".format(*_ends(report, row)).rstrip()
        for row in rows
    ]
    return [f"{head}{'n':>5} {'right':>8}", *body, "columns: the labels given, numbered as the rows"]


def _near(name: str, classes: Sequence[str]) -> str:
    near = did_you_mean(name, classes).strip()
    return f" ({near[0].lower()}{near[1:]})" if near else ""


def _ends(report: LabelReport, row: str) -> tuple[str, str]:
    count = sum(report.confusion.get(row, {}).values())
    return str(count), "" if not count else f"{100 * report.confusion[row].get(row, 0) / count:.1f} %"


def _share(right: Sequence[float]) -> Share:
    return Share(right=int(sum(right)), n=len(right), accuracy=sum(right) / len(right), standard_error=_error(right))


def _error(values: Sequence[float]) -> float | None:
    error = clustered_error(values, range(len(values)))
    return None if math.isnan(error) else error


def _percent(value: float, error: float | None) -> str:
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} +- {100 * error:.1f} %"


def _short(name: str) -> str:
    name = " ".join(clean(name).split())
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _cell(text: str) -> str:
    return " ".join(clean(text).split()).replace("|", "\\|")
