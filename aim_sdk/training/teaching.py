"""The targets of episodes: from disk, where an earlier epoch has left them, or from the teacher's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from aim_sdk.backend.capabilities import Trainable, capability
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.files.record_cache import RecordCache
from aim_sdk.training.episode import Episode
from aim_sdk.training.targets import Target
from aim_sdk.training.teachers import Teacher
from aim_sdk.types import Demonstration


class TargetCache:
    """Targets by their episode's key, in files that a crash cannot spoil (`RecordCache`); thread-safe.

    Args:
        folder: where the files are; created if missing.
        scope: what targets depend on besides their episode.
        limit: bytes that this process may write.
        rank: which of the processes.
    """

    def __init__(self, folder: Path, scope: str, *, limit: float, rank: int = 0) -> None:
        self._records = RecordCache(folder, "targets", scope, limit=limit, rank=rank)

    def get(self, key: str) -> Target | None:
        """The target of an episode, on the CPU; None if there is none."""
        found = self._records.get(key, ["token_ids", "top", "ids", "rest"])
        return None if found is None else Target(*found[1])

    def add(self, key: str, target: Target) -> None:
        """Keep a target, while there is room."""
        assert target.ids is not None
        assert target.rest is not None
        tensors = {"token_ids": target.token_ids, "top": target.top, "ids": target.ids, "rest": target.rest}
        self._records.add(key, {}, tensors)

    def close(self) -> None:
        """Close the files; nothing more is kept."""
        self._records.close()


class Teaching:
    """A teacher, and what is kept of its distributions.

    Args:
        teacher: makes the prompts.
        top: tokens of each distribution that are told apart; 0: all.
        cache: for later epochs; None, or ``top`` 0: every target is computed.
    """

    def __init__(self, teacher: Teacher, *, top: int, cache: TargetCache | None = None) -> None:
        self.teacher, self._top, self._cache = teacher, top, cache if top else None
        self._trainable = capability(teacher.encoder.backend, Trainable)

    def kept(self, episode: Episode) -> Target | None:
        """The target that is on disk; None if there is none."""
        return None if self._cache is None or episode.key is None else self._cache.get(episode.key)

    @torch.no_grad()
    def logits(self, answers: PreparedAnswers, shown: Sequence[Sequence[Demonstration]]) -> list[AnswerLogits]:
        """What the teacher predicts at the answers' positions.

        Raises:
            InputError: a prompt is longer than the backbone's context, or an image cannot be used.
        """
        return self._trainable.answer_logits(answers, self.teacher.contexts(shown))

    def keep(self, episode: Episode, found: AnswerLogits) -> Target:
        """Make a target, and keep it on disk if the episode may come again."""
        target = Target.of(found.token_ids, found.logits, self._top)
        if self._cache is not None and episode.key is not None and target.ids is not None:
            self._cache.add(episode.key, target)
        return target
