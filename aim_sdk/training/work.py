"""Batches whose images are decoded and whose texts are tokenised: they wait for the backbone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from aim_sdk.backend.prepared import PreparedAnswers
from aim_sdk.reading.encoder import PreparedBatch
from aim_sdk.training.episode import Episode
from aim_sdk.training.targets import Target
from aim_sdk.types import Demonstration, KeptReading


@dataclass(slots=True)
class Lesson:
    """One episode of a batch."""

    episode: Episode
    keys: list[str]
    """Its demonstrations by name."""
    target: Target | None = None
    """What is learnt, if it is known already."""
    shown: tuple[Demonstration, ...] = ()
    """What the teacher is to be shown, if it is to be asked."""


@dataclass(slots=True)
class Work:
    """What a forward of the student and, before it, of the reader and of the teacher need."""

    lessons: list[Lesson]
    cached: dict[str, KeptReading]
    names: list[str]
    """The demonstrations that are to be read, by name; `reads` says their places here."""
    reads: list[PreparedBatch]
    """A forward each."""
    answers: PreparedAnswers
    """Of the lessons, in their order."""
    teaches: bool
    """Whether the teacher is asked about some of the lessons, in one forward."""
    asked: PreparedAnswers | None
    """Of those lessons, with what the teacher sees before them; None if that is not known, or was refused."""
    dropped: Counter[str]

    @property
    def episodes(self) -> list[Episode]:
        """Of the lessons that are left."""
        return [lesson.episode for lesson in self.lessons]

    @property
    def forwards(self) -> int:
        """Forwards without gradients."""
        return len(self.reads) + self.teaches
