"""The probe: what held-out episodes say of a projector while it trains, next to its start, its teacher and controls.

Half of the episodes bind new names to a page's images, half continue a page with its own text. Each row shows the same
demonstrations in its own way, and three things are measured: the loss, the divergence to the teacher (`Target`) and,
of an episode's new names, whether the right one is the likeliest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch

from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.errors import InputError
from aim_sdk.projectors.base import Projector
from aim_sdk.training.episode import Episode
from aim_sdk.training.estimates import Estimate, Pair, difference, of_shares, summarize
from aim_sdk.training.forward import Forward, project
from aim_sdk.training.targets import Target
from aim_sdk.training.teaching import Teaching
from aim_sdk.training.work import Work
from aim_sdk.types import FusedTokens, Reading

Row = Literal["aim", "no-image", "text-only", "start", "teacher"]
ROWS: Final[tuple[Row, ...]] = get_args(Row)
FIXED: Final[frozenset[Row]] = frozenset({"text-only", "start", "teacher"})
"""What does not change while a projector trains: measured once."""

Measure = Literal["loss", "kl", "names"]
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)
TITLES: Final[dict[Measure, str]] = {
    "loss": "loss, nats per token",
    "kl": "divergence to the teacher, nats per token",
    "names": "new names bound rightly",
}

TOP: Final = 256
"""Tokens of the teacher's distributions that the divergence tells apart."""


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured of one episode in one row."""

    loss: Pair
    """Summed over the answer's tokens; their number."""
    kl: Pair
    names: Pair | None
    """1 if the right name is the likeliest; None if the episode has no new names."""


Scores = dict[Row, list["Score | None"]]
"""Of each row, the episodes in their order; None where an episode cannot be used."""
Estimates = dict[Measure, dict[Row, Estimate]]


def estimates(scores: Scores) -> Estimates:
    """Each measure of each row."""
    found = {m: {row: summarize(pairs(each, m)) for row, each in scores.items()} for m in MEASURES}
    return _without_certainty(found)


def aim_minus(scores: Scores) -> Estimates:
    """Each measure's difference between ``aim`` and the other rows, paired by episode."""
    own = scores["aim"]
    others = {row: found for row, found in scores.items() if row != "aim"}
    found: Estimates = {
        m: {row: difference(pairs(own, m), pairs(each, m)) for row, each in others.items()} for m in MEASURES
    }
    return _without_certainty(found)


def _without_certainty(found: Estimates) -> Estimates:
    return found | {"names": {row: of_shares(estimate) for row, estimate in found["names"].items()}}


def pairs(scores: Sequence[Score | None], measure: Measure) -> list[Pair | None]:
    """One measure of each episode."""
    return [None if score is None else getattr(score, measure) for score in scores]


class Probe:
    """Measures projectors on the same episodes.

    Args:
        forward: the backbone, without a teacher; its own projector is not used.
        teaching: whose answers the others are compared with.
        episodes: what is measured.
        start: the projector as training began with it.
        batch_size: prompts of one forward.
    """

    def __init__(
        self, forward: Forward, teaching: Teaching, episodes: Sequence[Episode], start: Projector, batch_size: int
    ) -> None:
        self.episodes = episodes
        self._forward, self._teaching, self._start, self._batch = forward, teaching, start, batch_size
        self._fixed: Scores = {}
        self._targets: dict[int, Target] = {}
        self._refused = Counter[str]()

    @torch.no_grad()
    def measure(self, projector: Projector, done: Callable[[int], None]) -> Scores:
        """The scores of all rows; the first time, of those that do not depend on the projector too."""
        rows = [row for row in ROWS if row not in self._fixed]
        found: Scores = {row: [] for row in rows}
        for first in range(0, len(self.episodes), self._batch):
            places = range(first, min(first + self._batch, len(self.episodes)))
            scores = self._scores(places, rows, projector)
            for row in rows:
                found[row] += [scores[row].get(place) for place in places]
            done(len(places))
        self._fixed |= {row: scored for row, scored in found.items() if row in FIXED}
        return {row: found[row] if row in found else self._fixed[row] for row in ROWS}

    def check(self, scores: Scores) -> None:
        """Check that something was measured; ``scores`` are those of all processes, of which one may have no episode.

        Raises:
            InputError: no episode can be measured; the message counts the reasons in this process.
        """
        if not any(scores["teacher"]):
            raise InputError(
                f"evaluation: none of the {len(scores['teacher'])} held-out episodes can be measured: the teacher "
                f"answers none ({dict(self._refused)}). Next: fewer episodes.shots, shorter texts "
                "(episodes.max_characters), objective.teacher=captions, or evaluation.every=0."
            )

    def _scores(self, places: range, rows: Sequence[Row], projector: Projector) -> dict[Row, dict[int, Score]]:
        work = self._forward.prepare([self.episodes[place] for place in places])
        readings = self._forward.read(work)
        self._refused += work.dropped
        place_of = {id(self.episodes[place].demonstrations): place for place in places}
        left = [place_of[id(episode.demonstrations)] for episode in work.episodes]
        names = [self._names(lesson.episode) for lesson in work.lessons]
        scores: dict[Row, dict[int, Score]] = {}
        for row in sorted(rows, key=lambda row: row != "teacher"):  # it gives the others' targets
            answered = dict(zip(left, self._answered(row, work, readings, projector), strict=True))
            found = {place: answer for place, answer in answered.items() if answer is not None}
            if row == "teacher":
                self._targets |= {n: Target.of(answer.token_ids, answer.logits, TOP) for n, answer in found.items()}
            scores[row] = {
                place: score
                for place, others in zip(left, names, strict=True)
                if place in found and (score := _score(found[place], self._targets.get(place), others))
            }
        return scores

    def _names(self, episode: Episode) -> list[tuple[int, ...]]:
        """The tokens of the names that are not the answer."""
        others = [name for name in episode.names if name != episode.answer]
        return list(self._forward.prepared([episode.query] * len(others), others).token_ids) if others else []

    def _answered(
        self, row: Row, work: Work, readings: Mapping[str, Reading], projector: Projector
    ) -> list[AnswerLogits | None]:
        """What a row predicts at each lesson's answer; None where its prompt is refused."""
        each = self._forward.each
        if row == "teacher":
            return each(work.lessons, work.answers, work.episodes, self._taught, self._refused)
        contexts = self._contexts(row, work, readings, projector)
        return each(work.lessons, work.answers, contexts, self._forward.answer_logits, Counter())

    def _taught(self, answers: PreparedAnswers, episodes: Sequence[Episode]) -> list[AnswerLogits]:
        return self._teaching.logits(answers, [self._teaching.teacher.shown(episode) for episode in episodes])

    def _contexts(
        self, row: Row, work: Work, readings: Mapping[str, Reading], projector: Projector
    ) -> list[list[FusedTokens]]:
        """What a row's prompts hold before each query; the teacher makes its own."""
        encoder, shown = self._forward.encoder, [episode.demonstrations for episode in work.episodes]
        if row == "aim" or row == "start":
            return project(work, readings, projector if row == "aim" else self._start)
        if row == "no-image":
            return [projector.project(encoder.read(items, with_images=False)) for items in shown]
        reader, form = encoder.backend.reader, encoder.prompt_format
        return [reader.text_only(items, prompt_format=form) for items in shown]


def _score(answer: AnswerLogits, target: Target | None, names: Sequence[Sequence[int]]) -> Score | None:
    """Score one episode by what was predicted at its answer; ``names``: the tokens of its other names."""
    if target is None or not torch.equal(answer.token_ids, target.token_ids):
        return None
    loss = -float(answer.log_probs.double().sum())
    right = all(_preferred(answer, name) for name in names)
    divergence = float(target.divergence(answer.logits).double().mean())
    return Score((loss, float(len(answer))), (divergence, 1.0), (float(right), 1.0) if names else None)


def _preferred(answer: AnswerLogits, name: Sequence[int]) -> bool:
    """Whether the answer is likelier than another name at the first token in which they differ: decoding that may only
    write one of them would choose it."""
    own = answer.token_ids.tolist()
    place = next((n for n, (a, b) in enumerate(zip(own, name, strict=False)) if a != b), None)
    return place is not None and bool(answer.logits[place, own[place]] > answer.logits[place, name[place]])
