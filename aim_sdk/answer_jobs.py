"""Answers to JSON lines: resumable, synced batch after batch; a query that the model refuses loses only itself.

Next to ``answers.jsonl`` stands ``answers.jsonl.settings.json``: what decided its answers. Only a file that has it, and
whose whole lines all hold a ``key``, a ``line`` and an ``answer``, is one of ours and continued; no other is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from aim_sdk.answer_files import NumberedQuery
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.files import write_atomic, writing
from aim_sdk.images import describe
from aim_sdk.jobs import alone, differences, kept_settings
from aim_sdk.json_lines import MAX_LINE, is_stream, parse_object, reason
from aim_sdk.progress import advancing
from aim_sdk.terminal import Problems

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.types import Demonstration, Generation, Mode

SETTINGS_SUFFIX: Final = ".settings.json"
_ANOTHER: Final = "choose another --out"
_KEPT: Final = "The batches before are kept.\nNext: make room, then run the same command again: it resumes."
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

    A line that is there counts if its key is that of a query: changed queries are answered again.
    """

    def __init__(self, path: Path, queries: Sequence[NumberedQuery], settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self._sidecar = path.with_name(path.name + SETTINGS_SUFFIX)
        self._kept: dict[str, Any] | None = None
        done, self._end = self._there()
        keys = {query.key for query in queries}
        self.resumed = self.answered = len(done & keys)
        self.stale = len(done - keys)
        """Answers there of queries that have changed, or are not among these."""
        self.left = [query for query in queries if query.key not in done]

    @classmethod
    @contextmanager
    def claimed(cls, path: Path, queries: Sequence[NumberedQuery], settings: Mapping[str, Any]) -> Iterator[Self]:
        """The job on a file that no other job writes meanwhile; nothing but its lock is written before `run`.

        Args:
            path: the answers file; made where there is none.
            queries: what is asked.
            settings: what decides an answer besides its query, as JSON has it.

        Raises:
            InputError: the file is not one of answers, or was made with other settings.
            ArtifactWriteError: another job writes it, or its folder cannot be written.
        """
        if is_stream(path) or (path.exists() and not path.is_file()):
            raise InputError(f"{path}: no regular file; {_ANOTHER}.")
        with alone(path.with_name(f".{path.name}.lock")):
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
    ) -> Problems:
        """Answer what is left, one synced batch after the other; return a message for each query that is refused.

        Without demonstrations, the pipeline's selector chooses from its bank.

        Raises:
            ArtifactWriteError: the disk is full, say; whole batches are kept.
        """
        problems = Problems()
        options = {"mode": mode, "shots": shots, "max_new_tokens": max_new_tokens}
        made_with = {"fingerprint": _digest(pipe.encoder.binding.scope)}
        if demonstrations is None:
            made_with["bank"] = _digest("".join(pipe.bank.keys()))
        else:
            demonstrations = _usable(pipe, demonstrations, mode, problems)
        with self._open(made_with) as file, advancing("answering", len(self.left)) as advance:
            for start in range(0, len(self.left), batch_size):
                batch = self.left[start : start + batch_size]
                answers = _answers(pipe, batch, demonstrations, options, problems)
                _append(file, "".join(_record(item, answer) for item, answer in answers).encode())
                self.answered += len(answers)
                advance(len(batch))
        return problems

    def _there(self) -> tuple[set[str], int]:
        """The keys of what is answered, and where its last whole line ends."""
        try:
            if not self.path.exists() or not self.path.stat().st_size:
                return set(), 0
            self._kept = kept_settings(self._sidecar)
            if self._kept is None:
                raise InputError(
                    f"{self.path}: exists, but is not a file of answers: {self._sidecar.name} is not beside it.\n"
                    f"Next: {_ANOTHER}."
                )
            self._check_settings(self.settings)
            return self._whole_lines()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error}); {_ANOTHER}.") from error

    def _check_settings(self, wanted: Mapping[str, Any]) -> None:
        kept = self._kept or {}
        if differing := differences({name: kept.get(name) for name in wanted}, wanted):
            listed = "\n".join(differing)
            raise InputError(
                f"{self.path}: holds answers made with other settings:\n{listed}\n"
                f"Next: {_ANOTHER}, or the same settings to resume."
            )

    def _whole_lines(self) -> tuple[set[str], int]:
        keys, end = set[str](), 0
        with self.path.open("rb") as file:
            while line := file.readline(_LONGEST + 1):
                try:
                    keys.add(AnswerLine.model_validate(parse_object(line, limit=_LONGEST)).key)
                except (InputError, ValidationError) as error:
                    if not line.endswith(b"\n") and len(line) <= _LONGEST:
                        break  # half a line: the job that wrote it was killed
                    number = len(keys) + 1
                    raise InputError(
                        f"{self.path}: not a file of answers (line {number}: {reason(error)}); nothing was changed.\n"
                        f"Next: mend that line, or {_ANOTHER}."
                    ) from error
                end += len(line)
        return keys, end

    @contextmanager
    def _open(self, made_with: Mapping[str, Any]) -> Iterator[FileIO]:
        """Note the settings, then open the file behind its last whole line."""
        if self._kept is not None:
            self._check_settings(made_with)
        with writing(self.path, _KEPT):
            if self._kept is None:
                write_atomic(self._sidecar, (json.dumps({**self.settings, **made_with}, indent=2) + "\n").encode())
            with self.path.open("r+b" if self._end else "wb", buffering=0) as file:
                file.truncate(self._end)
                file.seek(max(0, self._end - 1))
                if self._end and file.read(1) != b"\n":  # an editor took it
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


def _answers(
    pipe: AIMPipeline,
    batch: Sequence[NumberedQuery],
    demonstrations: Sequence[Demonstration] | None,
    options: Mapping[str, Any],
    problems: Problems,
) -> list[tuple[NumberedQuery, Generation]]:
    """A batch's answers. Where it is refused, its queries are asked one by one, to find out which of them it is."""
    try:
        queries = [item.query for item in batch]
        answers = pipe.generate(queries, demonstrations=demonstrations, batch_size=len(batch), **options)
        return list(zip(batch, answers, strict=True))
    except ShotsError:  # it is not the queries' fault
        raise
    except InputError as error:
        if len(batch) > 1:
            return [pair for item in batch for pair in _answers(pipe, [item], demonstrations, options, problems)]
        problems.add(f"query of line {batch[0].number}: {error}")
        return []


def _usable(
    pipe: AIMPipeline, demonstrations: Sequence[Demonstration], mode: Mode, problems: Problems
) -> list[Demonstration]:
    """The demonstrations that the model takes, read into the bank where the mode wants their images."""
    refused: dict[int, InputError] = {}

    def refuse(place: int, error: InputError) -> None:
        refused[place] = error

    if mode == "zero-shot":
        return list(demonstrations)
    pipe.encoder.lengths(demonstrations, refuse)
    taken = [item for place, item in enumerate(demonstrations) if place not in refused]
    for place, error in refused.items():
        problems.add(f"demonstration {describe(demonstrations[place].image)}: {error}")
    if mode == "aim":
        pipe.bank.add(
            taken,
            progress=True,
            on_error=lambda item, error: problems.add(f"demonstration {describe(item.image)}: {error}"),
        )
        kept = set(pipe.bank.keys())
        taken = [item for item in taken if pipe.bank.key(item) in kept]
    if not taken:
        raise InputError("no demonstration can be used:" + "".join(f"\n  {problem}" for problem in problems))
    return taken


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _record(item: NumberedQuery, answer: Generation) -> str:
    fields = item.line.model_dump()
    if "answer" in fields:
        fields["reference"] = fields["answer"]
    made = {"answer": answer.text, "prompt_tokens": answer.prompt_tokens, "line": item.number, "key": item.key}
    return json.dumps(fields | made, ensure_ascii=False) + "\n"
