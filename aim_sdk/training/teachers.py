"""Whose answers a student learns: the same frozen backbone, shown the demonstrations in a way that it can read.

A teacher sees the same demonstrations, query and answer as its student. Its prompt is text and images alone: it has no
fused tokens, so no projector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from aim_sdk.backend.capabilities import Interleaves, find, why_not
from aim_sdk.errors import InputError
from aim_sdk.files.images import load_image
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.plugins import Registry
from aim_sdk.training.episode import Episode
from aim_sdk.types import Context, Demonstration

if TYPE_CHECKING:
    from aim_sdk.training.config import TrainingConfig


class Teacher(ABC):
    """Makes the contexts of a teacher's prompts.

    Args:
        encoder: the backbone and the prompt format.
        folder: where it may keep what it computes: the run's folder.
        rank: which of the processes.
    """

    ahead: ClassVar[bool] = False
    """Whether `contexts` runs no backbone, so that prompts can be prepared while it computes."""

    def __init__(self, encoder: Encoder, folder: Path, rank: int) -> None:
        self.encoder = encoder

    def check(self, config: TrainingConfig) -> None:  # noqa: B027
        """Check that the backbone can be this teacher in a run.

        Raises:
            InputError: it cannot; the message says why, and what could be set instead.
        """

    @abstractmethod
    def shown(self, episode: Episode) -> tuple[Demonstration, ...]:
        """The demonstrations as they will be shown, their images decoded. May run in another thread.

        Raises:
            ImageError: an image cannot be decoded.
        """

    @abstractmethod
    def contexts(self, shown: Sequence[Sequence[Demonstration]]) -> list[Context]:
        """What stands before each query in its prompt; may run the backbone."""

    def close(self) -> None:  # noqa: B027
        """Close what it keeps open."""


class Interleaved(Teacher):
    """Sees all demonstrations with their images in one prompt, as interleaved prompting does."""

    ahead = True

    def check(self, config: TrainingConfig) -> None:
        most = config.episodes.shots[1]
        backend = self.encoder.backend
        if (takes := images_at_once(self.encoder)) is not None and takes <= most:
            reason = why_not(backend, Interleaves) or f"a prompt of {backend.name!r} holds at most {takes} images"
            fewer = f", or episodes.shots=[1, {takes - 1}]" if takes > 1 else ""
            raise InputError(
                f"teacher 'interleaved': {reason}; episodes of {most} demonstrations need {most + 1} images in one "
                f"prompt.\nNext: objective.teacher=captions{fewer}."
            )

    def shown(self, episode: Episode) -> tuple[Demonstration, ...]:
        return tuple(replace(item, image=load_image(item.image)) for item in episode.demonstrations)

    def contexts(self, shown: Sequence[Sequence[Demonstration]]) -> list[Context]:
        return list(shown)


def images_at_once(encoder: Encoder) -> int | None:
    """How many images one prompt of the backbone holds; None if only its context's length limits them."""
    interleaving = find(encoder.backend, Interleaves)
    return 1 if interleaving is None else interleaving.most_images


class _Teachers(Registry["type[Teacher]"]):
    def check(self, name: str, part: Any) -> str:
        return "" if isinstance(part, type) and issubclass(part, Teacher) else "expected a Teacher"


TEACHERS: Final = _Teachers(
    "teacher",
    "aim_sdk.teachers",
    {
        "interleaved": "aim_sdk.training.teachers:Interleaved",
        "captions": "aim_sdk.training.captions:Captions",
    },
)
"""Every teacher by its name; installed distributions may bring more."""


def teacher_for(config: TrainingConfig, encoder: Encoder, rank: int) -> Teacher:
    """The teacher that a run's settings name or, without a name, the best one that the backbone can be.

    Raises:
        InputError: no teacher has that name, or the backbone cannot be it.
    """
    name = config.objective.teacher
    if name is None:
        takes = images_at_once(encoder)
        name = "interleaved" if takes is None or takes > config.episodes.shots[1] else "captions"
    teacher = TEACHERS[name](encoder, config.output, rank)
    teacher.check(config)
    return teacher
