"""Answers in pairs: two modes, or two runs, on the same queries."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aim_sdk.errors import InputError
from aim_sdk.evaluation.results import Prediction, Run, Score
from aim_sdk.support.clusters import clustered_error
from aim_sdk.support.permutations import holm_corrected, permutation_p
from aim_sdk.types import Mode

NORMAL_95: Final = 1.96

_SHOWN: Final = 60
"""Characters of a question that a message shows."""
_WORDS: Final = {
    "text": "question",
    "references": "right answers",
    "choices": "choices",
    "image_sha256": "image (SHA-256)",
}

Modes = tuple[Mode, Mode]


@dataclass(frozen=True, slots=True)
class Difference:
    """The second minus the first, for one task and number of shots."""

    task: str
    modes: Modes
    shots: tuple[int, int]
    metric: str
    first: float
    second: float
    difference: float
    standard_error: float
    """Clustered by query if answers have their own scores; otherwise the two runs' errors count as independent."""
    p: float | None
    """Two-sided, by a sign-flip permutation test over queries; None where answers have no scores of their own."""
    p_holm: float | None
    """Corrected for all differences that are reported together (Holm)."""
    pairs: int
    """Answers that are compared; those that no seed changes (zero-shot, nearest neighbours) count once."""
    queries: int
    """The number of queries that they answer."""
    better: int
    worse: int
    """Answers of the second that score higher, lower: the two counts of McNemar's test, where scores are binary."""
    same_demonstrations: bool
    """Whether both were shown the same demonstrations."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the difference, by the normal approximation."""
        return self.difference - NORMAL_95 * self.standard_error, self.difference + NORMAL_95 * self.standard_error


def difference(first: Run, a: Score, second: Run, b: Score) -> Difference:
    if a.metric != b.metric:
        raise InputError(f"task {a.task!r} is scored by {a.metric} in one run and by {b.metric} in the other.")
    options = [run.tasks.get(a.task, {}).get("metric_options", {}) for run in (first, second)]
    if options[0] != options[1]:
        raise InputError(
            f"task {a.task!r} is scored by {a.metric} with different options: {options[0]} in one run and {options[1]} "
            "in "
            "the other."
        )
    ours, theirs = _by_query(first, a), _by_query(second, b)
    both = _paired(a, ours, b, theirs)
    _check_same(first, second, a.task, sorted({query for query, _ in both}))
    made = Difference(
        task=a.task,
        modes=(a.mode, b.mode),
        shots=(a.shots, b.shots),
        metric=a.metric,
        first=a.value,
        second=b.value,
        difference=b.value - a.value,
        standard_error=math.hypot(a.standard_error, b.standard_error),
        p=None,
        p_holm=None,
        pairs=len(_distinct(both)),
        queries=len({query for query, _ in both}),
        better=0,
        worse=0,
        same_demonstrations=all(x.demonstrations == y.demonstrations for (_, x), (_, y) in both.values()),
    )
    if math.isnan(made.difference) or any(math.isnan(x) or math.isnan(y) for (x, _), (y, _) in both.values()):
        return made
    changes = {key: y - x for key, ((x, _), (y, _)) in both.items()}
    queries = [query for query, _ in changes]
    sums: dict[str, float] = defaultdict(float)
    for (query, _), change in changes.items():
        sums[query] += change
    return replace(
        made,
        difference=statistics.fmean(changes.values()),
        standard_error=clustered_error(list(changes.values()), queries),
        p=permutation_p(list(sums.values())),
        better=sum(changes[key] > 0 for key in _distinct(both)),
        worse=sum(changes[key] < 0 for key in _distinct(both)),
    )


def _check_same(first: Run, second: Run, task: str, queries: Sequence[str]) -> None:
    """Check that equal ids mean the same query, as far as the results record what was asked.

    Raises:
        InputError: they are not.
    """
    one, other = first.queries.get(task, {}), second.queries.get(task, {})
    for query in queries:
        if query not in one or query not in other or first is second:
            continue
        a, b = one[query], other[query]
        known = {"text", "references", "choices"} | ({"image_sha256"} if a.image_sha256 and b.image_sha256 else set())
        for name in sorted(known):
            if (ours := getattr(a, name)) != (theirs := getattr(b, name)):
                raise InputError(
                    f"task {task!r}: the runs use different data: query {query!r} has a different {_WORDS[name]}: "
                    f"{_short(ours)} in the first, {_short(theirs)} in the second. Their answers cannot be paired."
                )


def unchecked(first: Run, second: Run) -> list[str]:
    """Tasks of both runs for which a result does not record what was asked, because an older version wrote it."""
    tasks = first.tasks.keys() & second.tasks.keys()
    return sorted(task for task in tasks if not (first.queries.get(task) and second.queries.get(task)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


Pairs = Mapping[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]]
"""By query and seed: each one's score and answer."""


def _distinct(pairs: Pairs) -> list[tuple[str, int]]:
    """The pairs that count: only one seed's, if the seed changes neither what is shown nor what is answered."""
    alike = {
        (query, *((p.demonstrations, p.answer, str(score)) for score, p in pair)) for (query, _), pair in pairs.items()
    }
    if len(alike) > len({query for query, _ in pairs}):
        return list(pairs)
    return list({query: (query, seed) for query, seed in pairs}.values())


def _by_query(run: Run, score: Score) -> dict[int, dict[str, Prediction]]:
    return {
        cell.cell.seed: {p.item: p for p in cell.predictions}
        for cell in run.answered(score.task, score.mode, score.shots)
    }


def _paired(
    a: Score, ours: Mapping[int, Mapping[str, Prediction]], b: Score, theirs: Mapping[int, Mapping[str, Prediction]]
) -> dict[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]]:
    """Pair answers by query and seed; what is asked once (zero-shot, nearest) goes with every seed of the other."""
    seeds = sorted(ours.keys() | theirs.keys())
    found: dict[tuple[str, int], tuple[tuple[float, Prediction], tuple[float, Prediction]]] = {}
    for seed in seeds:
        one, other = _under(seed, a, ours), _under(seed, b, theirs)
        if one is None or other is None or one.keys() != other.keys():
            raise InputError(
                f"task {a.task!r}, {a.mode} at {a.shots} and {b.mode} at {b.shots} shots: different queries or seeds "
                f"were asked (seeds {sorted(ours)} and {sorted(theirs)}, {a.queries} and {b.queries} queries)."
            )
        found |= {(item, seed): (_scored(one[item]), _scored(other[item])) for item in one}
    return found


def _under(seed: int, score: Score, answers: Mapping[int, Mapping[str, Prediction]]) -> Mapping[str, Prediction] | None:
    if score.mode in ("zero-shot", "nearest") and len(answers) == 1:
        return next(iter(answers.values()))
    return answers.get(seed)


def _scored(prediction: Prediction) -> tuple[float, Prediction]:
    return math.nan if prediction.score is None else prediction.score, prediction


def holm(differences: Sequence[Difference]) -> list[Difference]:
    corrected = holm_corrected([one.p for one in differences])
    return [replace(one, p_holm=p) for one, p in zip(differences, corrected, strict=True)]
