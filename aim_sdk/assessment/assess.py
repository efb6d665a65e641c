"""Assesses a bank: asks every item in every setting, and looks at what came out."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aim_sdk.assessment.asking import Asker, Outcome
from aim_sdk.assessment.assessment import Assessment, Calibration, Row, Wrong
from aim_sdk.assessment.candidates import SHOTS, Candidate
from aim_sdk.assessment.choice import Comparison, Scores, compared, cross_fitted, error_of, folds_of
from aim_sdk.assessment.influence import Doubtful, Influence, doubtful, influences, removals
from aim_sdk.assessment.items import Item
from aim_sdk.assessment.journal import OUTCOMES, Journal, Unit
from aim_sdk.assessment.plan import Plan, identity_of, plan_of
from aim_sdk.assessment.scores import scores_of, unit_of
from aim_sdk.assessment.verdict import verdict_of
from aim_sdk.bank.adding import POOLED
from aim_sdk.bank.view import BankView
from aim_sdk.errors import InputError
from aim_sdk.files.atomic import expanded
from aim_sdk.files.jobs import LOCK, alone
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.support.numbers import whole_number
from aim_sdk.support.permutations import holm_corrected
from aim_sdk.support.progress import advancing
from aim_sdk.support.provenance import provenance
from aim_sdk.types import Demonstration, Mode

REMOVALS = 300
"""Prompts without one of their demonstrations, at most."""
_BINS = 10


def assess(
    model: FewShotModel,
    validation: Iterable[Demonstration] | None = None,
    *,
    shots: Iterable[int] = SHOTS,
    modes: Iterable[Mode] | None = None,
    selectors: Iterable[str] | None = None,
    choices: Iterable[str] | None = None,
    limit: int | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Assessment:
    """Ask every item in every setting; see `aim_sdk.pipeline.AIMPipeline.assess`."""
    started = time.monotonic()
    batch_size, max_new_tokens = (
        whole_number("batch_size", batch_size, 1),
        whole_number("max_new_tokens", max_new_tokens, 1),
    )
    plan = plan_of(
        model, validation, shots=shots, modes=modes, selectors=selectors, choices=choices, limit=limit, seed=seed
    )
    most = max(one.shots for one in plan.settings)
    asker = Asker(model, plan.items, plan.choices, most_shots=most, max_new_tokens=max_new_tokens)
    identity = identity_of(model, plan, max_new_tokens=max_new_tokens)
    where = None if folder is None else _usable(expanded(folder), model.bank.path)
    with nullcontext() if where is None else alone(where / LOCK):
        run = _Run(plan, asker, Journal(where, identity), batch_size, progress)
        return run.assessed(model, started)


def _usable(folder: Path, bank: Path | None) -> Path:
    """A folder that is new, empty, or of an earlier assessment.

    Raises:
        InputError: it is something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file; expected a folder for the assessment, or a new name.")
    if bank is not None and folder.resolve() == bank.resolve():
        raise InputError(f"{folder}: this is the bank itself; choose another folder for its assessment.")
    if folder.exists() and any(folder.iterdir()) and not any(folder.glob(OUTCOMES)):
        raise InputError(f"{folder}: holds other files; choose another folder for the assessment.")
    return folder


@dataclass(frozen=True)
class _Run:
    """One assessment while it is made."""

    plan: Plan
    asker: Asker
    journal: Journal
    batch_size: int
    progress: bool

    def assessed(self, model: FewShotModel, started: float) -> Assessment:
        """Ask, and look at the answers."""
        plan, names = self.plan, [item.name for item in self.plan.items]
        units = [(setting, name, None) for setting in plan.settings for name in names]
        self._ask(units, "assessing")
        outcomes = {one: [self.journal[one, name, None] for name in names] for one in plan.settings}
        scores = np.array([scores_of(outcomes[one], plan.answers, plan.metric) for one in plan.settings])
        folds = folds_of(plan.answers, seed=plan.seed)
        verdict = verdict_of(plan.settings, scores, folds, unit_of(plan.metric))
        chosen = cross_fitted(scores, folds) if verdict.helps else 1 + cross_fitted(scores[1:], folds)
        looked_at = verdict.looked_at
        own = scores[plan.settings.index(looked_at)]
        refused = {o.refused for found in outcomes.values() for o in found if o.refused is not None}
        return Assessment(
            verdict=verdict,
            metric=plan.metric,
            validation=plan.validation,
            demonstrations=len(plan.keys),
            keys=tuple(plan.keys),
            left_out=tuple(plan.left_out),
            choices=None if plan.choices is None else tuple(plan.choices),
            rows=tuple(_rows(plan.settings, scores, outcomes)),
            calibration=None if plan.choices is None else _calibration(plan, outcomes, chosen.tolist()),
            confusion=None if plan.choices is None else _confusion(plan.answers, outcomes[looked_at]),
            without_images=self._without_images(looked_at, own),
            wrong=tuple(self._wrong(looked_at, outcomes[looked_at], own.tolist())),
            influence=tuple(self._influence(looked_at, outcomes[looked_at])),
            doubtful=() if plan.choices is None else tuple(_doubtful(model.bank.view())),
            refused=tuple(sorted(refused)),
            seconds=time.monotonic() - started,
            made={**provenance(), "binding": model.encoder.binding.model_dump(mode="json")},
        )

    def _without_images(self, setting: Candidate, own: NDArray[np.float64]) -> Comparison | None:
        """AIM against its control: the same demonstrations, read without their images; None for other modes."""
        if setting.mode != "aim":
            return None
        control, names = replace(setting, mode="no-image"), [item.name for item in self.plan.items]
        self._ask([(control, name, None) for name in names], "asking the control")
        outcomes = [self.journal[control, name, None] for name in names]
        theirs = np.array(scores_of(outcomes, self.plan.answers, self.plan.metric))
        return compared(own, theirs, str(control))

    def _ask(self, units: Sequence[Unit], what: str) -> None:
        """Answer what the journal lacks, batches of one setting."""
        items = {item.name: item for item in self.plan.items}
        missing: dict[Candidate, list[Unit]] = defaultdict(list)
        for unit in units:
            if unit not in self.journal:
                missing[unit[0]].append(unit)
        with advancing(what, sum(map(len, missing.values())), shown=self.progress) as advance:
            for setting, mine in missing.items():
                for start in range(0, len(mine), self.batch_size):
                    batch = mine[start : start + self.batch_size]
                    asked, without = [items[name] for _, name, _ in batch], [taken for _, _, taken in batch]
                    made = self.asker.ask(setting, asked, without=without)
                    self.journal.add(list(zip(batch, made, strict=True)))
                    advance(len(batch))

    def _wrong(self, setting: Candidate, outcomes: Sequence[Outcome], scores: Sequence[float]) -> Iterable[Wrong]:
        """Answers that score nothing, the surest first."""
        made = [
            Wrong(
                item=item.name,
                text=item.query.text,
                answer=item.answer,
                said=outcome.answer,
                probability=None if outcome.probabilities is None else max(outcome.probabilities),
                shown=tuple(key for key, _ in self.asker.shown(setting, item)),
            )
            for item, outcome, score in zip(self.plan.items, outcomes, scores, strict=True)
            if not score and outcome.answer is not None
        ]
        return sorted(made, key=lambda one: -(one.probability or 0))

    def _influence(self, setting: Candidate, outcomes: Sequence[Outcome]) -> list[Influence]:
        """What each demonstration does to the items that it is shown to."""
        items = self.plan.items
        shown = [[key for key, _ in self.asker.shown(setting, item)] for item in items]
        pairs = removals(shown, REMOVALS, self.plan.seed)
        self._ask([(setting, items[place].name, key) for place, key in pairs], "asking again without one")
        again = [self.journal[setting, items[place].name, key] for place, key in pairs]
        before = np.array(self._reached(items, outcomes))
        return influences(before, pairs, self._reached([items[place] for place, _ in pairs], again))

    def _reached(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> list[float]:
        """The right answer's probability in points, if the answers are a closed set; otherwise the score."""
        plan = self.plan
        if plan.choices is None:
            return scores_of(outcomes, [item.answer for item in items], plan.metric)
        places = {choice.strip(): place for place, choice in enumerate(plan.choices)}
        return [
            0.0
            if outcome.probabilities is None or (place := places.get(item.answer)) is None
            else 100.0 * outcome.probabilities[place]
            for item, outcome in zip(items, outcomes, strict=True)
        ]


def _doubtful(view: BankView) -> list[Doubtful]:
    """Demonstrations of the whole bank whose answers the others contradict."""
    keys = [entry.key for entry in view.entries]
    answers = [view.demonstration(key).answer.strip() for key in keys]
    return doubtful(keys, answers, view.features(POOLED))


def _rows(
    settings: Sequence[Candidate], scores: Scores, outcomes: Mapping[Candidate, Sequence[Outcome]]
) -> Iterable[Row]:
    against = [None, *(compared(own, scores[0], "zero-shot") for own in scores[1:])]
    corrected = holm_corrected([None if one is None else one.p for one in against])
    for setting, own, comparison, p in zip(settings, scores, against, corrected, strict=True):
        yield Row(
            setting=setting,
            value=float(own.mean()),
            standard_error=error_of(own.tolist()),
            against_zero_shot=comparison,
            p_corrected=p,
            refused=sum(outcome.refused is not None for outcome in outcomes[setting]),
        )


def _calibration(
    plan: Plan, outcomes: Mapping[Candidate, Sequence[Outcome]], chosen: Sequence[int]
) -> Calibration | None:
    """Of each item's setting, which other items chose."""
    found = [outcomes[plan.settings[setting]][place] for place, setting in enumerate(chosen)]
    asked = [
        (max(outcome.probabilities), outcome.answer == item.answer)
        for item, outcome in zip(plan.items, found, strict=True)
        if outcome.probabilities is not None
    ]
    if not asked:
        return None
    sure, right = np.array([one for one, _ in asked]), np.array([float(one) for _, one in asked])
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    bins = [
        (int((places == place).sum()), float(sure[places == place].mean()), float(right[places == place].mean()))
        for place in np.unique(places)
    ]
    error = sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins) / len(asked)
    return Calibration(confidence=float(sure.mean()), accuracy=float(right.mean()), error=error, bins=tuple(bins))


def _confusion(answers: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for answer, outcome in zip(answers, outcomes, strict=True):
        counts[answer]["(no answer)" if outcome.answer is None else outcome.answer] += 1
    return {answer: dict(counts[answer]) for answer in sorted(counts)}
