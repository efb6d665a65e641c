"""One batch of episodes: its readings, its targets, its fused tokens, and what the backbone predicts after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from PIL import Image

from aim_sdk.backend.capabilities import Trainable, capability
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.errors import ContextLengthError, ImageError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.projectors.base import Projector
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder, OnError, PreparedBatch, batches_of
from aim_sdk.training.episode import Episode
from aim_sdk.training.teaching import Teaching
from aim_sdk.training.work import Lesson, Work
from aim_sdk.types import Context, Demonstration, FusedTokens, Query, Reading

Shown = TypeVar("Shown")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a forward gave."""

    students: list[AnswerLogits]
    """What the student predicts at each lesson's answer; the work holds the lessons that are left, in this order."""
    tokens: int
    """Tokens of texts that the backbone saw: demonstrations where they were read, fused tokens, answers."""


class Forward:
    """Prepares and runs batches on one backbone.

    Args:
        encoder: the backbone, the format and the projector.
        reading_tokens: positions of one forward of the reader.
        cache: readings on disk.
        teaching: whose answers are learnt; None: nobody's.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        reading_tokens: int,
        cache: ReadingCache | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        self.encoder, self.cache, self.teaching, self._budget = encoder, cache, teaching, reading_tokens
        self.backend, self.projector = encoder.backend, encoder.projector
        self._trainable = capability(encoder.backend, Trainable)

    def prepare(self, episodes: Sequence[Episode]) -> Work:
        """Do the work that needs no backbone; what cannot be used is dropped and counted. May run in another thread."""
        dropped, demonstrations = Counter[str](), dict[str, Demonstration]()
        keys = [[_key(item) for item in episode.demonstrations] for episode in episodes]
        for episode, names in zip(episodes, keys, strict=True):
            demonstrations.update(zip(names, episode.demonstrations, strict=True))
        cached = {key: found for key in demonstrations if self.cache is not None and (found := self.cache.get(key))}
        bad: dict[str, str] = {}
        missing: dict[str, Demonstration] = {}
        for key in demonstrations.keys() - cached.keys():
            try:
                missing[key] = replace(demonstrations[key], image=load_image(demonstrations[key].image))
            except ImageError:
                bad[key] = "image cannot be decoded"
        wanted = [key for key in demonstrations if key in missing]
        reads = self._reads([missing[key] for key in wanted], _noting(bad, wanted))
        lessons = []
        for episode, names in zip(episodes, keys, strict=True):
            reason = next((bad[name] for name in names if name in bad), None)
            if reason is None:
                try:
                    lessons.append(self._lesson(episode, names))
                except ImageError:
                    reason = "image cannot be decoded"
            if reason is not None:
                dropped[reason] += 1
        lessons, answers = self._answerable(lessons, dropped)
        teaches = self.teaching is not None and any(lesson.target is None for lesson in lessons)
        asked = self._asked([lesson for lesson in lessons if lesson.target is None]) if teaches else None
        return Work(lessons, cached, wanted, reads, answers, teaches, asked, dropped)

    def run(self, work: Work) -> Outcome:
        """Read, ask the teacher, project, answer; gradients flow to the projector if they are enabled."""
        readings = self.read(work)
        if work.teaches:
            self._teach(work)
        contexts = project(work, readings, self.projector)
        students = self.each(work.lessons, work.answers, contexts, self.answer_logits, work.dropped)
        pairs = [pair for pair in zip(work.lessons, students, strict=True) if self._usable(*pair, work.dropped)]
        self._keep(work, [lesson for lesson, _ in pairs])
        found = [student for _, student in pairs if student is not None]
        read = sum(len(readings[name]) for name in work.names if name in readings)
        shown = sum(len(readings[key]) for lesson in work.lessons for key in lesson.keys)
        return Outcome(found, read + shown + sum(map(len, found)))

    def read(self, work: Work) -> dict[str, Reading]:
        """The readings of the lessons' demonstrations by name; lessons that cannot be read are dropped."""
        refused: dict[str, str] = {}
        read = {work.names[n]: reading for n, reading in self.encoder.run(work.reads, _noting(refused, work.names))}
        if self.cache is not None:
            for key, reading in read.items():
                if not key.startswith(_UNNAMED):
                    self.cache.add(key, reading.kept())
        if refused:
            for lesson in work.lessons:
                work.dropped.update([refused[key] for key in lesson.keys if key in refused][:1])
            self._keep(work, [lesson for lesson in work.lessons if not refused.keys() & set(lesson.keys)])
        names = dict.fromkeys(key for lesson in work.lessons for key in lesson.keys)
        return {name: read[name] if name in read else self.encoder.whole(work.cached[name]) for name in names}

    def answer_logits(self, answers: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        """What the backbone predicts at each answer after its context; nothing is run if there are none."""
        return self._trainable.answer_logits(answers, contexts) if len(answers) else []

    def prepared(
        self, queries: Sequence[Query], answers: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> PreparedAnswers:
        """Tokenise answers with the token that ends them; ``contexts``: what stands before the queries, if known."""
        return self._trainable.prepare_answers(
            queries, answers, prompt_format=self.encoder.prompt_format, ended=True, contexts=contexts
        )

    def readings(self, demonstrations: Sequence[Demonstration]) -> list[Reading]:
        """Read demonstrations; those that cannot be read are left out."""
        left_out = _noting({}, list(map(str, range(len(demonstrations)))))
        return [reading for _, reading in self.encoder.run(self._reads(demonstrations, left_out), left_out)]

    def idle_forward(self) -> None:
        """A forward that nobody uses: with a sharded backbone all processes run as many."""
        self.encoder.encode(_IDLE.demonstrations)

    def idle_step(self) -> None:
        """A forward and backward without a gradient, instead of a batch whose episodes were all left out."""
        contexts = [self.projector.project(self.encoder.read(_IDLE.demonstrations))]
        (found,) = self.answer_logits(self.prepared([_IDLE.query], [_IDLE.answer]), contexts)
        (found.log_probs.sum() * 0).backward()  # type: ignore[no-untyped-call]

    def _lesson(self, episode: Episode, keys: list[str]) -> Lesson:
        decoded = replace(episode, query=replace(episode.query, image=load_image(episode.query.image)))
        if self.teaching is None:
            return Lesson(decoded, keys)
        if (target := self.teaching.kept(episode)) is not None:
            return Lesson(decoded, keys, target)
        return Lesson(decoded, keys, shown=self.teaching.teacher.shown(episode))

    def _asked(self, lessons: Sequence[Lesson]) -> PreparedAnswers | None:
        """The teacher's prompts; None if it runs the backbone for them, or one is refused: it is found when it asks."""
        assert self.teaching is not None
        if not self.teaching.teacher.ahead:
            return None
        try:
            contexts = self.teaching.teacher.contexts([lesson.shown for lesson in lessons])
            return self._prepared(lessons, contexts)
        except InputError:
            return None

    def _teach(self, work: Work) -> None:
        """Ask the teacher for the targets that are not known; lessons that it cannot answer are dropped."""
        assert self.teaching is not None
        asked = [lesson for lesson in work.lessons if lesson.target is None]
        if not asked:  # those that were to be asked about are dropped, but other processes may wait for this forward
            self.idle_forward()
            return
        answers = work.asked
        if answers is None or len(answers) != len(asked):  # some were dropped since
            answers = work.answers if len(asked) == len(work.lessons) else self._prepared(asked)
        shown = [lesson.shown for lesson in asked]
        refused = Counter[str]()
        found = self.each(asked, answers, shown, self.teaching.logits, refused)
        work.dropped.update({f"the teacher's prompt: {reason}": count for reason, count in refused.items()})
        for lesson, logits in zip(asked, found, strict=True):
            if logits is not None:
                lesson.target = self.teaching.keep(lesson.episode, logits)
        self._keep(work, [lesson for lesson in work.lessons if lesson.target is not None])

    def each(
        self,
        lessons: Sequence[Lesson],
        answers: PreparedAnswers,
        contexts: Sequence[Shown],
        run: Callable[[PreparedAnswers, Sequence[Shown]], list[AnswerLogits]],
        dropped: Counter[str],
    ) -> list[AnswerLogits | None]:
        """Run a batch; if one of its prompts is refused, run each on its own, and count those that are."""
        try:
            return list(run(answers, contexts))
        except InputError:
            found: list[AnswerLogits | None] = []
            for lesson, context in zip(lessons, contexts, strict=True):
                try:
                    found += run(self._prepared([lesson]), [context])
                except InputError as error:
                    dropped[_reason(error)] += 1
                    found.append(None)
            return found

    def _usable(self, lesson: Lesson, student: AnswerLogits | None, dropped: Counter[str]) -> bool:
        """Whether there is a student, and it predicts the tokens that the teacher did."""
        if student is None or lesson.target is None:
            return student is not None
        lesson.target = lesson.target.to(student.logits.device)  # those of an earlier epoch come from the disk
        same = torch.equal(student.token_ids, lesson.target.token_ids)
        dropped.update([] if same else ["answer tokenised otherwise in the teacher's prompt"])
        return same

    def _keep(self, work: Work, lessons: list[Lesson]) -> None:
        """Leave out all other lessons."""
        if len(lessons) < len(work.lessons):
            work.lessons, work.answers = lessons, self._prepared(lessons)

    def _reads(self, items: Sequence[Demonstration], refused: OnError) -> list[PreparedBatch]:
        batches = batches_of(self.encoder.lengths_by_place(items, refused), self._budget)
        return [part for batch in batches for part in self.encoder.prepare(items, batch, refused)]

    def _answerable(self, lessons: list[Lesson], dropped: Counter[str]) -> tuple[list[Lesson], PreparedAnswers]:
        """The lessons whose queries and answers can be used, and what was prepared of these."""
        try:
            return lessons, self._prepared(lessons)
        except InputError:
            usable = []
            for lesson in lessons:
                try:
                    self._prepared([lesson])
                    usable.append(lesson)
                except InputError as error:
                    dropped[_reason(error)] += 1
            return usable, self._prepared(usable)

    def _prepared(self, lessons: Sequence[Lesson], contexts: Sequence[Context] | None = None) -> PreparedAnswers:
        queries = [lesson.episode.query for lesson in lessons]
        return self.prepared(queries, [lesson.episode.answer for lesson in lessons], contexts)


def project(work: Work, readings: Mapping[str, Reading], projector: Projector) -> list[list[FusedTokens]]:
    """The fused tokens before each lesson's query."""
    names = list(dict.fromkeys(key for lesson in work.lessons for key in lesson.keys))
    fused = dict(zip(names, projector.project([readings[name] for name in names]), strict=True))
    return [[fused[key] for key in lesson.keys] for lesson in work.lessons]


_UNNAMED = "@"
_BLANK = Image.new("RGB", (64, 64))
_IDLE = Episode((Demonstration(_BLANK, "Is it?", "yes"),), Query(_BLANK, "Is it?"), "no", "")


def _key(item: Demonstration) -> str:
    return str(item.metadata.get("id", f"{_UNNAMED}{id(item)}"))


def _noting(reasons: dict[str, str], names: Sequence[str]) -> OnError:
    """Record why the demonstrations with these names cannot be used."""

    def note(place: int, error: InputError) -> None:
        reasons[names[place]] = _reason(error)

    return note


def _reason(error: InputError) -> str:
    if isinstance(error, ContextLengthError):
        return "longer than the backbone's context"
    return "image refused by the backbone" if isinstance(error, ImageError) else "text refused by the backbone"
