"""Answers as CSV, written whole from the JSON lines that a job has kept: a resumed job gives the same table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aim_sdk.answering.jobs import SETTINGS_SUFFIX
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.files.json_lines import as_lines
from aim_sdk.files.tables import SUFFIXES, is_table, write_table

FAILED_SUFFIX: Final = ".failed.jsonl"


def kept_as(out: Path) -> Path:
    """The JSON lines of a job: the file itself, or `x.csv.jsonl` next to a table `x.csv`.

    Raises:
        InputError: the table exists and was not written by such a job, or its name has another format's suffix.
    """
    if out.suffix.lower() not in ("", ".jsonl", *SUFFIXES):
        raise InputError(
            f"{out}: answers are written as JSON lines or as a table; its name ends in .jsonl, .csv or .tsv, not in "
            f"{out.suffix}.{did_you_mean(out.suffix.lower(), ('.jsonl', '.csv', '.tsv'))}"
        )
    if not is_table(out):
        return out
    kept = out.with_name(out.name + ".jsonl")
    if out.exists() and not kept.with_name(kept.name + SETTINGS_SUFFIX).exists():
        raise InputError(
            f"{out}: exists, but is not a table of answers: {kept.name} is not next to it.\nNext: choose another --out."
        )
    return kept


def write_answers(out: Path, lines: Sequence[Mapping[str, Any]]) -> int:
    """Write answers as a table with one column per field and, as `p(CHOICE)`, per choice.

    Lists and objects in a field are written as JSON, probabilities with six digits. `prompt_tokens` has no column if
    no answer had a prompt. Returns how many cells were guarded (`write_table`).
    """
    rows = [_flat(line) for line in lines]
    prompted = any(row.get("prompt_tokens") is not None for row in rows)
    names = dict.fromkeys(name for row in rows for name in row if prompted or name != "prompt_tokens")
    return write_table(out, rows, list(names))


def write_failed(out: Path, failed: Sequence[Mapping[str, Any]]) -> Path | None:
    """Write the queries without an answer to `OUT.failed.jsonl`; without any, no such file stays.

    Raises:
        ArtifactWriteError: the disk is full, say.
    """
    path = out.with_name(out.name + FAILED_SUFFIX)
    with writing(path):
        if failed:
            write_atomic(path, as_lines(failed))
            return path
        path.unlink(missing_ok=True)
    return None


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if name == "probabilities":
            flat |= {f"p({choice})": float(f"{share:.6g}") for choice, share in value.items()}
        elif name == "probability":
            flat[name] = float(f"{value:.6g}")
        elif name == "demonstrations":
            flat[name] = " ".join(value)
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value
    return flat
