"""An unfinished run: how far it is, and the command that resumes it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Final

from aim_sdk.files.atomic import write_atomic

_FILE: Final = "begun.json"


def begin(folder: Path, batches: int, command: str | None) -> None:
    """Record in a run's folder how much it asks, the command, and the folder it was typed in."""
    content = {"batches": batches, "command": command, "directory": os.getcwd()}
    write_atomic(folder / _FILE, (json.dumps(content, indent=1) + "\n").encode())


def state_of(folder: Path) -> str | None:
    """The state in words, with the next command; None if no run has begun there."""
    try:
        begun = json.loads((folder / _FILE).read_bytes())
        batches, command, directory = int(begun["batches"]), begun["command"], str(begun["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    answered = len({unit for path in folder.glob("answers-*.jsonl") for unit in _units(path)})
    again = (
        f"`aim-icl {command}`, typed in {shlex.quote(directory)}," if command else "`evaluate` with the same settings"
    )
    return f"the run is not finished: {answered:,} of {batches:,} batches are answered.\nNext: {again} resumes it."


def _units(path: Path) -> list[str]:
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            found.append(json.dumps([record["cell"], record["number"]]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
