"""Demonstrations and queries from JSON lines, CSV or folders; a query's key finds its answer again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict

from aim_sdk.errors import ImageError, InputError
from aim_sdk.files.demonstrations import resolve, stream_demonstrations, where_images_are
from aim_sdk.files.images import describe, image_digest, is_url
from aim_sdk.files.json_lines import OnProblem, json_lines
from aim_sdk.files.photo_folders import Skipped, check_name, folder_images
from aim_sdk.files.tables import is_table, table_rows
from aim_sdk.support.terminal import Problems
from aim_sdk.types import Demonstration, ImageInput, Query

Item = TypeVar("Item")


OURS: Final = frozenset(
    {"answer", "probability", "probabilities", "nearest", "demonstrations", "prompt_tokens", "line", "key"}
)
"""Fields of an answer's line that a query's own never replace, nor are replaced by."""


class QueryLine(BaseModel):
    """One line of a queries file. Other fields are copied to the answer's line, an `answer` as `reference`.

    An `id` names the query: a selector never shows it the demonstration with the same one.
    """

    model_config = ConfigDict(extra="allow", strict=True)
    image: str
    text: str = ""


def failed_line(image: object, text: object, number: int, error: str, reference: str | None) -> dict[str, Any]:
    """A line of a file of failed queries; what a line that cannot be used does not say is None."""
    known = {} if reference is None else {"reference": reference}
    return {"image": image, "text": text, "line": number, "error": error, **known}


def _label(value: Any) -> Any:
    """A right label as it is compared: without surrounding blanks, a number as it is written."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value.strip() if isinstance(value, str) else value


def _reference(fields: Mapping[str, Any]) -> str | None:
    """The right label that a line brings, if it is one."""
    value = _label(fields["answer"] if "answer" in fields else fields.get("reference"))
    return value if isinstance(value, str) and value else None


class NumberedQuery:
    """A query with its line number, or its position among the images of a folder, from 1.

    Args:
        number: where it stands.
        line: its fields.
        query: what is asked.
        equal: how many lines before it are equal to it.
        in_folder: whether it is an image of a folder.
    """

    def __init__(self, number: int, line: QueryLine, query: Query, *, equal: int = 0, in_folder: bool = False) -> None:
        self.number, self.line, self.query = number, line, query
        self.equal, self.in_folder = equal, in_folder

    @cached_property
    def key(self) -> str:
        """Finds its answer again wherever its line stands: a hash of its fields, its image's content, and `equal`."""
        content = json.dumps([self.equal, self.line.model_dump(), _content(self.query.image)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def problem(self, error: Exception) -> str:
        """A message that says what is wrong with it, and on which line."""
        text = str(error) if self.in_folder else where_images_are(error, self.line.image)
        if not self.in_folder:
            return f"query of line {self.number}: {text}"
        name = describe(self.query.image)
        return text if text.startswith(name) else f"{name}: {text}"

    def fields(self) -> dict[str, Any]:
        """The query's fields for its answer's line.

        Its `answer` is called `reference` there, without surrounding blanks, and its text is what was asked. A field
        of the name of one of ours (`OURS`, or a `reference` next to an `answer`) gets `query_` before it, as often as
        it takes.
        """
        fields, kept = self.line.model_dump() | {"text": self.query.text}, dict[str, Any]()
        taken = OURS | {"reference"} if "answer" in fields else OURS
        for name, value in fields.items():
            new = "reference" if name == "answer" else name
            while name != "answer" and (new in taken or (new != name and new in fields)):
                new = f"query_{new}"
            kept[new] = _label(value) if new == "reference" else value
        return kept

    @property
    def reference(self) -> str | None:
        """The right answer, if the query brings it."""
        return _reference(self.line.model_dump())

    def ask(self, text: str) -> None:
        """Put a text next to an image that has none."""
        if not self.query.text.strip():
            self.query = replace(self.query, text=text)


def read_demonstrations(
    path: Path, *, text: str = "", images: Path | None = None
) -> tuple[list[Demonstration], Problems]:
    """Read the demonstrations of a file or a folder that `stream_demonstrations` yields, with their images decoded.

    Returns:
        The valid ones, and a message for each bad line.

    Raises:
        InputError: it cannot be read, or no line of it is valid.
    """
    problems = Problems()
    found = list(stream_demonstrations(path, text=text, images=images, decode=True, on_problem=problems.add))
    return _some(path, found, problems), problems


def read_queries(
    path: Path,
    *,
    classes: Sequence[str] = (),
    images: Path | None = None,
    refused: list[dict[str, Any]] | None = None,
) -> tuple[list[NumberedQuery], Problems]:
    """Read queries of a JSON lines or CSV file, or all images of a folder and below it.

    Args:
        path: the file or folder.
        classes: in a folder, an image in a subfolder of such a name has it as reference.
        images: what relative paths in a file are relative to; None: the file's own folder.
        refused: gets each line that cannot be used, as a file of failed queries has it.

    Returns:
        The valid ones with their line numbers, and a message for each bad line.

    Raises:
        InputError: it cannot be read, or no line of it is valid.
    """

    last: tuple[int, dict[str, Any]] = 0, {}
    equal = Counter[str]()

    def parse(number: int, raw: dict[str, Any]) -> NumberedQuery:
        nonlocal last
        last = number, raw
        line = QueryLine.model_validate(raw)
        name = (line.model_extra or {}).get("id")
        query = Query(resolve(path, line.image, images), line.text, None if name is None else str(name))
        fields = json.dumps(line.model_dump(), sort_keys=True)
        equal[fields] += 1
        return NumberedQuery(number, line, query, equal=equal[fields] - 1)

    def lose(number: int, said: str) -> None:
        problems.add(said)
        if refused is not None:
            raw = last[1] if last[0] == number else {}
            refused.append(failed_line(raw.get("image"), raw.get("text"), number, said, _reference(raw)))

    problems = Problems()
    if path.is_dir():
        return _some(path, list(_folder(path, classes, problems.add)), problems), problems
    lines = table_rows if is_table(path) else json_lines
    return _some(path, list(lines(path, parse, lose)), problems), problems


def identity_of(demonstrations: Sequence[Demonstration]) -> dict[str, Any]:
    """A value that identifies a list of demonstrations, wherever its files are.

    Their number, and hashes of their images' contents, their texts and their answers, each in their order.
    """
    images = [_content(item.image) for item in demonstrations]
    texts = [item.text for item in demonstrations]
    answers = [item.answer for item in demonstrations]
    hashed = {"images": images, "texts": texts, "answers": answers}
    return {"number": len(images)} | {
        name: hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] for name, parts in hashed.items()
    }


def _content(image: ImageInput) -> str | None:
    """The digest of an image's content; None if it cannot be read, which is reported when it is asked about."""
    try:
        return None if is_url(image) else image_digest(image)
    except ImageError:
        return None


def _folder(path: Path, classes: Sequence[str], on_problem: OnProblem) -> Iterator[NumberedQuery]:
    skipped = Skipped(path)
    for number, image in enumerate(folder_images(path, skipped), 1):
        try:
            name = image.relative_to(path).as_posix()
            check_name(name)
            folder = "" if image.parent == path else image.parent.name.strip()
            known = {"answer": folder} if folder in classes else {}
            yield NumberedQuery(number, QueryLine(image=name, **known), Query(str(image)), in_folder=True)
        except (InputError, ValueError, UnicodeError) as error:
            on_problem(f"{image}: {error}")
    skipped.report(on_problem)


def _some(path: Path, items: list[Item], problems: Problems) -> list[Item]:
    if not items:
        listed = "".join(f"\n  {problem}" for problem in list(problems)[:5])
        raise InputError(f"{path}: no usable {'image' if path.is_dir() else 'line'}.{listed}")
    return items
