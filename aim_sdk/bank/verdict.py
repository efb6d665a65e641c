"""The verdict that is kept with a bank: whether its demonstrations help, and which setting is best.

A bank on disk keeps it as ``verdict.json`` in its folder. It is one of these demonstrations: `stale` after any change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files.atomic import write_atomic
from aim_sdk.types import Mode

FILE: Final = "verdict.json"


class VerdictWarning(UserWarning):
    """A bank's verdict is stale, or says that no demonstrations are to be shown."""


class BankVerdict(BaseModel):
    """What was found out about a bank's demonstrations."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mode: Mode = Field(description="what to run; zero-shot if the demonstrations do not help")
    shots: int = Field(ge=0, description="how many demonstrations to show")
    selector: str | None = Field(description="which selector chooses them; none for zero-shot")
    sentence: str = Field(description="the verdict, for people")
    items: int = Field(ge=0, description="how many questions it was made from")
    demonstrations: int = Field(ge=0, description="how many the bank held")
    keys: str = Field(description="a hash of their keys, in order")
    date: str = Field(description="when it was made, UTC")

    def stale(self, keys: Iterable[str]) -> bool:
        """Whether a bank that holds these keys now is another one than was assessed."""
        return digest_of(keys) != self.keys


def verdict_of(
    mode: Mode, shots: int, selector: str | None, sentence: str, *, items: int, keys: Iterable[str]
) -> BankVerdict:
    """A verdict about a bank that held these keys."""
    held = list(keys)
    return BankVerdict(
        mode=mode,
        shots=shots,
        selector=selector,
        sentence=sentence,
        items=items,
        demonstrations=len(held),
        keys=digest_of(held),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def digest_of(keys: Iterable[str]) -> str:
    """A hash of keys, in order."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode() + b"\n")
    return digest.hexdigest()


def read(folder: Path) -> BankVerdict | None:
    """The verdict in a bank's folder; None if there is none.

    Raises:
        CorruptArtifactError: the file holds something else.
    """
    try:
        return BankVerdict.model_validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise CorruptArtifactError(
            f"{folder / FILE}: damaged, or not a bank's verdict.\nNext: `aim-icl bank assess {folder}` makes a new one."
        ) from error


def write(folder: Path, verdict: BankVerdict) -> None:
    """Keep a verdict in a bank's folder."""
    write_atomic(folder / FILE, (verdict.model_dump_json(indent=1) + "\n").encode())
