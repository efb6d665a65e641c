"""What a run began with besides its settings: the weights and files under a name may change."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from aim_sdk.config import Fingerprint
from aim_sdk.errors import TrainingError
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.corpora import Corpus, open_corpus

_WHOLE: Final = 2**24
"""Bytes of a file that are hashed; of a longer file, half of them at each end."""


class Origin(BaseModel):
    """The backbone and the corpora of a run."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: Fingerprint
    corpus: str
    """SHA-256 of the names, sizes and contents (`_WHOLE`) of its files."""
    held_out: str | None = None
    """The same, of the evaluation's own corpus."""

    @classmethod
    def of(cls, config: TrainingConfig, fingerprint: Fingerprint) -> Origin:
        """Record what a run begins with now."""
        own = config.evaluation.corpus
        return cls(
            fingerprint=fingerprint,
            corpus=_digest(open_corpus(config.corpus)),
            held_out=None if own is None else _digest(open_corpus(own)),
        )

    def check(self, now: Origin, folder: Path) -> None:
        """Check that the run in a folder resumes with what it began with.

        Raises:
            TrainingError: the weights or files have changed.
        """
        names = self.fingerprint.differences(now.fingerprint)
        other = [f"the backbone ({', '.join(names)})"] if names else []
        other += ["the corpus's files"] if self.corpus != now.corpus else []
        other += ["the files of evaluation.corpus"] if self.held_out != now.held_out else []
        if other:
            raise TrainingError(
                f"{folder} holds a run, and since it began these have changed: {', '.join(other)}.\n"
                "Next: put them back, or start a new run: output=<another folder>."
            )


def _digest(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for number, path in enumerate(corpus.files):
        digest.update(f"{corpus.name(number)}\0".encode(errors="surrogateescape"))
        with contextlib.suppress(OSError):  # a file that cannot be read gives the corpus nothing either
            digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode())
        digest.update(file.read(_WHOLE if size <= _WHOLE else _WHOLE // 2))
        if size > _WHOLE:
            file.seek(size - _WHOLE // 2)
            digest.update(file.read(_WHOLE // 2))
    return digest.digest()
