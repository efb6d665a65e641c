"""Answers to JSON lines: resumable, synced batch after batch; a query that the model refuses loses only itself.

``answers.jsonl.settings.json``, next to ``answers.jsonl``, records what decided the answers. Only a file that has it,
and whose whole lines all hold a `key`, a `line` and an `answer`, is one of ours and continued; no other is touched.
`answers.jsonl.demonstrations.jsonl` says which demonstrations the answers' keys are.
Answers of queries that changed, or are not asked any more, are moved to `answers.jsonl.stale.jsonl`. Where a query
stands among the others does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from aim_sdk.answering.queries import NumberedQuery
from aim_sdk.errors import InputError
from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.files.jobs import alone, differences, kept_settings
from aim_sdk.files.json_lines import MAX_LINE, as_lines, is_stream, parse_object, reason
from aim_sdk.injection.choices import Normalization
from aim_sdk.support.progress import advancing
from aim_sdk.support.terminal import Problems

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.types import Demonstration, Mode

SETTINGS_SUFFIX: Final = ".settings.json"
STALE_SUFFIX: Final = ".stale.jsonl"
SHOWN_SUFFIX: Final = ".demonstrations.jsonl"
"""Which demonstration each key in the answers is."""
_ANOTHER: Final = "choose another --out"
_KEPT: Final = "The batches before are kept.\nNext: make room, then run the same command again: it resumes."
_KEYS: Final = "content"
"""How a query's answer is found again: by what it says, not by where it stands, as development versions did."""
_WORDED: Final = ("demonstrations", "bank", "keys")
_LONGEST: Final = 4 * MAX_LINE
"""Bytes of the longest line of answers: a query's fields, its answer once more as reference, and ours."""


class AnswerLine(BaseModel):
    """What every line of an answers file holds."""

    model_config = ConfigDict(extra="allow", strict=True)
    key: str
    line: int
    answer: str


class AnswerJob:
    """The answers file and what is still to be answered. `claimed` makes one.

    An existing line counts if its key is that of a query: changed queries are answered again.
    """

    def __init__(self, path: Path, queries: Sequence[NumberedQuery], settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, {**settings, "keys": _KEYS}
        self._sidecar = path.with_name(path.name + SETTINGS_SUFFIX)
        self._kept: dict[str, Any] | None = None
        done, self._end = self._there()
        self._numbers = {query.key: query.number for query in queries}
        self.resumed = self.answered = len(done.keys() & self._numbers.keys())
        self.stale = len(done.keys() - self._numbers.keys())
        """Existing answers to queries that have changed, or are not among these."""
        self.failed: Sequence[Mapping[str, Any]] = ()
        """After `run`, each query without an answer: its image, its text, its line, and the error."""
        self.left = [query for query in queries if query.key not in done]
        self._settled = all(self._numbers.get(key) == number for key, number in done.items())

    @classmethod
    @contextmanager
    def claimed(cls, path: Path, queries: Sequence[NumberedQuery], settings: Mapping[str, Any]) -> Iterator[Self]:
        """The job on a file that no other job writes meanwhile; nothing but its lock is written before `run`.

        Args:
            path: the answers file; created if missing.
            queries: what is asked.
            settings: what decides an answer besides its query, as JSON has it.

        Raises:
            InputError: the file is not one of answers, or was made with other settings.
            ArtifactWriteError: another job writes it, or its folder cannot be written.
        """
        if is_stream(path) or (path.exists() and not path.is_file()):
            raise InputError(f"{path}: not a regular file; {_ANOTHER}.")
        place = Path(os.path.realpath(path))  # two links lead to one file
        with alone(place.with_name(f".{place.name}.lock")):
            yield cls(path, queries, settings)

    def run(
        self,
        pipe: AIMPipeline,
        demonstrations: Sequence[Demonstration] | None,
        *,
        mode: Mode,
        shots: int | None,
        max_new_tokens: int,
        batch_size: int,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        normalize: Normalization = "tokens",
    ) -> Problems:
        """Answer what is left, one synced batch after the other; return a message for each query that is refused.

        The pipeline's selector chooses each query's demonstrations, from its bank or from those given. With `choices`,
        each query is labelled with one of them; if its right label is known, the nearest demonstrations also vote. With
        a `schema`, each answer is JSON of it.

        Raises:
            ArtifactWriteError: the disk is full, for example; complete batches are kept.
            InputError: the schema is not valid.
        """
        from aim_sdk.answering.asking import Asking, shown_as, usable_demonstrations  # imports torch
        from aim_sdk.injection.constrained import injector_of
        from aim_sdk.injection.shots import Shots
        from aim_sdk.selection.builtin import FirstSelector

        if schema is not None:
            injector_of(pipe.backend, None, schema, mode)  # one that is not valid is no query's fault
        problems = Problems()
        made_with = {"fingerprint": _digest(pipe.encoder.binding.scope)}
        similar = not isinstance(pipe.selector, FirstSelector)
        if demonstrations is None:
            made_with["bank"] = _digest("".join(pipe.bank))
        else:
            usable = usable_demonstrations(pipe, demonstrations, mode, similar, problems)
            with writing(self.path):
                write_atomic(self.beside(SHOWN_SUFFIX), as_lines(shown_as(pipe, usable, mode, similar)))
            demonstrations = None if similar or mode == "nearest" else usable  # the bank has them
        shown = Shots(shots, mode=mode, demonstrations=demonstrations)
        ask = Asking(pipe, shown, max_new_tokens, choices, schema, normalize, problems)
        self._check_settings(made_with)
        self.settle()
        with self._open(made_with) as file, advancing("answering", len(self.left)) as advance:
            first = 1 if choices else batch_size  # a first sign of life
            for start, end in pairwise(sorted({0, *range(first, len(self.left), batch_size), len(self.left)})):
                batch = self.left[start:end]
                answers = ask.batch(batch)
                _append(file, "".join(answers).encode())
                self.answered += len(answers)
                advance(len(batch))
            self._end = file.tell()
        ask.conclude()
        self.failed = ask.failed
        return problems

    def settle(self) -> None:
        """Move answers of queries that changed out of the file, and number the others as their queries are now.

        Killing the process in the meantime loses none.

        Raises:
            ArtifactWriteError: the disk is full, for example; nothing is changed.
        """
        if self._settled:
            return
        aside = self.aside
        with writing(self.path):
            before = aside.read_bytes() if aside.exists() else b""
            moved, kept = list[bytes](), list[bytes]()
            for line in self.path.read_bytes()[: self._end].splitlines(keepends=True):
                there = parse_object(line, limit=_LONGEST)
                number = self._numbers.get(there["key"])
                if number not in (None, there["line"]):
                    line = as_lines([there | {"line": number}])
                (moved if number is None else kept).append(line if line.endswith(b"\n") else line + b"\n")
            if moved:
                write_atomic(aside, before + b"".join(line for line in moved if line not in before))
            write_atomic(self.path, b"".join(kept))
        self._end, self.stale, self._settled = sum(map(len, kept)), 0, True

    @property
    def aside(self) -> Path:
        """Where answers of queries that changed are moved to."""
        return self.beside(STALE_SUFFIX)

    def beside(self, suffix: str) -> Path:
        """A file next to the answers."""
        return self.path.with_name(self.path.name + suffix)

    def lines(self) -> list[dict[str, Any]]:
        """The existing answers, in the order of their queries."""
        data = self.path.read_bytes()[: self._end] if self._end else b""
        found = [parse_object(line, limit=_LONGEST) for line in data.splitlines()]
        return sorted(found, key=lambda line: int(line["line"]))

    def _there(self) -> tuple[dict[str, int], int]:
        """The keys of the existing answers with their lines' numbers, and where the last complete line ends."""
        try:
            if not self.path.exists() or not self.path.stat().st_size:
                return {}, 0
            self._kept = kept_settings(self._sidecar)
            if self._kept is None:
                raise InputError(
                    f"{self.path}: exists, but is not a file of answers: {self._sidecar.name} is not next to it.\n"
                    f"Next: {_ANOTHER}."
                )
            self._check_settings(self.settings)
            return self._whole_lines()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error}); {_ANOTHER}.") from error

    def _check_settings(self, wanted: Mapping[str, Any]) -> None:
        if self._kept is None:
            return
        kept = self._kept
        if differing := _in_words({name: kept.get(name) for name in wanted}, wanted):
            listed = "\n".join(differing)
            raise InputError(
                f"{self.path}: holds answers made with other settings:\n{listed}\n"
                f"Next: {_ANOTHER}, or the same settings to resume."
            )

    def _whole_lines(self) -> tuple[dict[str, int], int]:
        found, end = dict[str, int](), 0
        with self.path.open("rb") as file:
            while line := file.readline(_LONGEST + 1):
                try:
                    made = AnswerLine.model_validate(parse_object(line, limit=_LONGEST))
                    found[made.key] = made.line
                except (InputError, ValidationError) as error:
                    if not line.endswith(b"\n") and len(line) <= _LONGEST:
                        break  # half a line: the job that wrote it was killed
                    number = len(found) + 1
                    raise InputError(
                        f"{self.path}: not a file of answers (line {number}: {reason(error)}); nothing was changed.\n"
                        f"Next: fix that line, or {_ANOTHER}."
                    ) from error
                end += len(line)
        return found, end

    @contextmanager
    def _open(self, made_with: Mapping[str, Any]) -> Iterator[FileIO]:
        """Note the settings, then open the file after its last whole line."""
        with writing(self.path, _KEPT):
            if self._kept is None:
                write_atomic(self._sidecar, (json.dumps({**self.settings, **made_with}, indent=2) + "\n").encode())
            with self.path.open("r+b" if self._end else "wb", buffering=0) as file:
                file.truncate(self._end)
                file.seek(max(0, self._end - 1))
                if self._end and file.read(1) != b"\n":  # an editor removed it
                    _append(file, b"\n")
                yield file


def _append(file: FileIO, data: bytes) -> None:
    """Write whole lines; when this returns, they are on disk, and when it raises, no part of them is."""
    end, left = file.tell(), memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def _in_words(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each setting that differs; of demonstrations, which are known by hashes, what of them does."""
    found = differences(*({k: v for k, v in one.items() if k not in _WORDED} for one in (kept, wanted)))
    there, now = kept.get("demonstrations"), wanted.get("demonstrations")
    if there != now:
        found.append(f"  demonstrations: {_others(there, now)}")
    if kept.get("bank") != wanted.get("bank"):
        found.append("  bank: other demonstrations, or in another order")
    if kept.get("keys") != wanted.get("keys"):
        found.append("  a development version made them, which found a query's answer by its line's number")
    return found


def _others(there: object, now: object) -> str:
    if not isinstance(there, Mapping) or not isinstance(now, Mapping):
        return "others" if there and now else f"those of a {'bank' if now is None else 'file'} now"
    if there.get("number") != now.get("number"):
        return f"{there.get('number')} there, {now.get('number')} now"
    names = [name for name in now if there.get(name) != now[name]]
    return f"other {' and '.join(names)} ({now['number']}, as before)"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
