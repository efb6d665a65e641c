"""A task of one's own: two files of JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, TaskFiles, TaskRecord, Text
from aim_sdk.files.images import is_url


class _Line(TaskRecord):
    """Other fields are metadata, if they are strings, numbers or truth values."""

    model_config = ConfigDict(extra="allow")

    id: Id | None = None
    image: str = Field(min_length=1)
    text: str = ""
    answer: Text | None = None
    answers: tuple[Text, ...] = ()
    choices: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _is_answered(self) -> Self:
        if (self.answer is None) == (not self.answers):
            raise ValueError("expected either `answer` or a list of `answers`")
        if self.choices and self.references[0] not in self.choices:
            raise ValueError(f"the answer {self.references[0]!r} is none of the choices: {', '.join(self.choices)}")
        if is_url(self.image):
            raise ValueError(f"expected an image's file, got an address ({self.image}): download it")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        return self.answers if self.answer is None else (self.answer,)


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support``; images are named from the task's folder on.

    A line without an id goes by its place.

    Raises:
        InputError: besides what damage raises, some queries have choices and some have none.
    """
    files = TaskFiles(config, folder)
    queries, support = _items(files, "queries"), _items(files, "support")
    if len({bool(item.choices) for item in queries}) > 1:
        raise InputError(
            f"task {config.name!r}: {files.path('queries')}: expected `choices` in every line, or in none."
        )
    return files.dataset(queries, support)


def _items(files: TaskFiles, name: str) -> list[Item]:
    return [
        Item(
            line.id or str(place),
            files.image(files.folder, line.image),
            line.text,
            line.references,
            line.choices,
            {k: v for k, v in (line.model_extra or {}).items() if isinstance(v, str | int | float | bool)},
            named=line.id is not None,
        )
        for place, line in enumerate(files.lines(name, _Line))
    ]
