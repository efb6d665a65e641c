"""Demonstrations and queries from JSON lines, answers to JSON lines: resumable, and one bad line loses only itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aim_sdk.demonstration_files import DemonstrationLine, reason, resolve
from aim_sdk.errors import ImageError, InputError
from aim_sdk.images import load_image
from aim_sdk.types import Demonstration, Generation, Query

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline

Item = TypeVar("Item")


class QueryLine(BaseModel):
    """One line of a queries file. Other fields are copied to the answer's line, an ``answer`` as ``reference``.

    An ``id`` names the query: a selector never shows it the demonstration with the same one.
    """

    model_config = ConfigDict(extra="allow", strict=True)
    image: str
    text: str = ""


class NumberedQuery:
    """A query with the line it came from."""

    def __init__(self, number: int, line: QueryLine, query: Query) -> None:
        self.number, self.line, self.query = number, line, query
        content = json.dumps([number, line.model_dump()], sort_keys=True)
        self.key = hashlib.sha256(content.encode()).hexdigest()[:16]


def read_demonstrations(path: Path) -> tuple[list[Demonstration], list[str]]:
    """Read a demonstrations file; return the good ones and a message a bad line.

    Raises:
        InputError: the file cannot be read, or no line of it is good.
    """

    def parse(_: int, raw: dict[str, Any]) -> Demonstration:
        demonstration = DemonstrationLine.model_validate(raw).demonstration(path)
        load_image(demonstration.image)
        return demonstration

    return _read_lines(path, parse)


def read_queries(path: Path) -> tuple[list[NumberedQuery], list[str]]:
    """Read a queries file; return the good ones with their line numbers and a message a bad line.

    Raises:
        InputError: the file cannot be read, or no line of it is good.
    """

    def parse(number: int, raw: dict[str, Any]) -> NumberedQuery:
        line = QueryLine.model_validate(raw)
        name = (line.model_extra or {}).get("id")
        query = Query(resolve(path, line.image), line.text, None if name is None else str(name))
        return NumberedQuery(number, line, query)

    return _read_lines(path, parse)


class AnswerJob:
    """The answers file and what is still to be answered.

    A line already there counts if its key is that of a query: changed queries are answered anew. A last line that was
    cut off in the middle is dropped.

    Raises:
        InputError: the file exists but is not one of answers, or cannot be written.
    """

    def __init__(self, path: Path, queries: list[NumberedQuery]) -> None:
        self.path = path
        keys = {query.key for query in queries}
        done = _finished(path, keys)
        self.resumed = self.answered = len(done)
        self.left = [query for query in queries if query.key not in done]

    def run(
        self,
        pipe: AIMPipeline,
        demonstrations: list[Demonstration] | None,
        *,
        mode: Any,
        shots: int | None,
        max_new_tokens: int,
        batch_size: int,
    ) -> list[str]:
        """Answer what is left, one synced batch after the other; return a message for each unusable query.

        Without demonstrations, the pipeline's selector chooses from its bank.
        """
        problems: list[str] = []
        if mode == "aim" and demonstrations is not None:
            pipe.bank.add(demonstrations, progress=True)
        columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with self.path.open("a", encoding="utf-8") as file, Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("answering", total=len(self.left))
            for start in range(0, len(self.left), batch_size):
                batch = self.left[start : start + batch_size]
                good = [query for query in batch if _is_readable(query, problems)]
                answers = pipe.generate(
                    [item.query for item in good],
                    demonstrations=demonstrations,
                    shots=shots,
                    mode=mode,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                )
                for item, answer in zip(good, answers, strict=True):
                    file.write(json.dumps(_record(item, answer), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                self.answered += len(good)
                bar.advance(task, len(batch))
        return problems


def _record(item: NumberedQuery, answer: Generation) -> dict[str, Any]:
    fields = item.line.model_dump()
    if "answer" in fields:
        fields["reference"] = fields["answer"]
    return fields | {
        "answer": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "line": item.number,
        "key": item.key,
    }


def _is_readable(query: NumberedQuery, problems: list[str]) -> bool:
    try:
        load_image(query.query.image)
    except ImageError as error:
        problems.append(f"query of line {query.number}: {error}")
        return False
    return True


def _read_lines(path: Path, parse: Callable[[int, dict[str, Any]], Item]) -> tuple[list[Item], list[str]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    items, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(parse(number, json.loads(line)))
        except (ValidationError, InputError, ValueError) as error:
            problems.append(f"{path}:{number}: {reason(error)}")
    if not items:
        listed = "".join(f"\n  {problem}" for problem in problems[:5])
        raise InputError(f"{path}: no usable line.{listed}")
    return items, problems


def _finished(path: Path, keys: set[str]) -> set[str]:
    """Return the keys of the whole lines, and cut off a last line that is not whole."""
    try:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        done = {json.loads(line)["key"] for line in whole.splitlines()}
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: exists, but is not a file of answers; choose another --out.") from error
    return done & keys
