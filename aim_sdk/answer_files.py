"""Demonstrations and queries from JSON lines; each query has a key, by which its answer is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from aim_sdk.demonstration_files import DemonstrationLine, resolve
from aim_sdk.errors import InputError
from aim_sdk.images import describe, load_image
from aim_sdk.json_lines import json_lines
from aim_sdk.terminal import Problems
from aim_sdk.types import Demonstration, Query

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


def read_demonstrations(path: Path) -> tuple[list[Demonstration], Problems]:
    """Read a demonstrations file; return the good ones and a message for each bad line.

    Raises:
        InputError: the file cannot be read, or no line of it is good.
    """

    def parse(_: int, raw: dict[str, Any]) -> Demonstration:
        demonstration = DemonstrationLine.model_validate(raw).demonstration(path)
        load_image(demonstration.image)
        return demonstration

    return _read(path, parse)


def read_queries(path: Path) -> tuple[list[NumberedQuery], Problems]:
    """Read a queries file; return the good ones with their line numbers and a message for each bad line.

    Raises:
        InputError: the file cannot be read, or no line of it is good.
    """

    def parse(number: int, raw: dict[str, Any]) -> NumberedQuery:
        line = QueryLine.model_validate(raw)
        name = (line.model_extra or {}).get("id")
        query = Query(resolve(path, line.image), line.text, None if name is None else str(name))
        return NumberedQuery(number, line, query)

    return _read(path, parse)


def digest_of(demonstrations: Sequence[Demonstration]) -> str:
    """What tells lists of demonstrations apart: the names of their images, their texts and answers, their order."""
    parts = [[describe(item.image), item.text, item.answer] for item in demonstrations]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _read(path: Path, parse: Callable[[int, dict[str, Any]], Item]) -> tuple[list[Item], Problems]:
    problems = Problems()
    items = list(json_lines(path, parse, problems.add))
    if not items:
        listed = "".join(f"\n  {problem}" for problem in list(problems)[:5])
        raise InputError(f"{path}: no usable line.{listed}")
    return items, problems
