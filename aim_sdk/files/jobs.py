"""A job's place on disk: only one job at a time writes there, always with the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aim_sdk.errors import ArtifactWriteError, InputError
from aim_sdk.files.atomic import writing

LOCK = ".lock"
"""The lock's name in a folder that one job writes."""
_SHOWN = 80
"""Characters of a setting that a message shows."""

_WHERE = frozenset({"api_key", "at_once", "base_url", "device_map", "reader", "slots", "threads", "timeout", "url"})
"""Options of backends that say where something runs."""


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a backend that decide what it answers: a job that resumes must have the same."""
    return {name: value for name, value in options.items() if name not in _WHERE}


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock while a job writes; the lock ends with the process, however that ends. The empty lock file stays.

    Raises:
        ArtifactWriteError: another job holds it, or its file cannot be created.
    """
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=0)
        try:
            held.acquire()
        except Timeout as error:
            raise ArtifactWriteError(
                f"{lock.parent}: another job is writing there (it holds {lock.name}).\n"
                "Next: wait for it to end, or choose another place."
            ) from error
    try:
        yield
    finally:
        held.release()


def kept_settings(path: Path) -> dict[str, Any] | None:
    """The settings that a job has left in a file; None if there is none.

    Raises:
        InputError: the file does not hold settings.
    """
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not the settings of a job; choose another place for this one.") from error
    if not isinstance(kept, dict):
        raise InputError(f"{path}: not the settings of a job; choose another place for this one.")
    return kept


def differences(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each setting that differs, groups of settings by their dotted names."""
    there, now = dict(_flat(kept)), dict(_flat(wanted))
    names = [name for name in {**now, **there} if there.get(name) != now.get(name)]
    return [f"  {name}: {_short(there.get(name))} there, {_short(now.get(name))} now" for name in names]


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
