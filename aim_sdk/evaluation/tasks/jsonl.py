"""A task of one's own: two files of JSON lines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from aim_sdk.errors import InputError, ShotsError
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
    demonstrations: tuple[Id, ...] = ()

    @model_validator(mode="after")
    def _is_answered(self) -> Self:
        if (self.answer is None) == (not self.answers):
            raise ValueError("expected either `answer` or a list of `answers`")
        if self.choices and self.references[0] not in self.choices:
            raise ValueError(f"the answer {self.references[0]!r} is not one of the choices: {', '.join(self.choices)}")
        if is_url(self.image):
            raise ValueError(f"expected an image's file, got an address ({self.image}): download it")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        return self.answers if self.answer is None else (self.answer,)


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``queries`` and ``support``; images are named from the task's folder on.

    A line without an id is identified by its position. Queries may name their ``demonstrations`` by ids of the support,
    in the order of the prompt: the first ones are shown, and nothing is drawn.

    Raises:
        InputError: besides what damage raises, some queries have choices or demonstrations and some have none, or the
            support has no such id.
    """
    files = TaskFiles(config, folder)
    queries, support = _items(files, "queries"), _items(files, "support")
    files.check_lines()
    if len({bool(item.choices) for item in queries}) > 1:
        raise InputError(
            f"task {config.name!r}: {files.path('queries')}: expected `choices` in every line, or in none."
        )
    if not any(item.demonstrations for item in queries):
        return files.dataset(queries, support)
    by_id = {item.id: item for item in support}
    for item in queries:
        wrong = next((f"{name!r}, which does not exist" for name in item.demonstrations if name not in by_id), None)
        if wrong or not item.demonstrations:
            raise InputError(
                f"task {config.name!r}: {files.path('queries')}: query {item.id!r} names "
                f"{wrong or 'no demonstrations'}; expected ids of {files.path('support')} in every line, or in none."
            )

    def draw(query: Item, shots: int, rng: random.Random) -> list[Item]:
        if shots > len(query.demonstrations):
            raise ShotsError(
                f"{shots} shots asked for, but query {query.id!r} of task {config.name!r} names "
                f"{len(query.demonstrations)} demonstrations."
            )
        return [by_id[name] for name in query.demonstrations[:shots]]

    return files.dataset(queries, support, draw)


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
            demonstrations=line.demonstrations,
        )
        for place, line in enumerate(files.lines(name, _Line))
    ]
