"""A task's files as its loader reads them: every complaint names the task, the file and the place."""

from __future__ import annotations

import codecs
import inspect
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aim_sdk.errors import InputError, MissingDataError, did_you_mean
from aim_sdk.evaluation.items import Dataset, Draw, Item
from aim_sdk.evaluation.metrics import METRICS
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import described
from aim_sdk.support.terminal import Problems

Model = TypeVar("Model", bound=BaseModel)
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
"""A string; a number is converted to one."""
Id = Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]

_BAD_LINES = 5
"""How many bad lines a message shows."""
_SHOWN = 3
"""How many examples of something wrong a message names."""


class DataWarning(UserWarning):
    """Data that can be used, but is perhaps not what it should be."""


class TaskRecord(BaseModel):
    """One entry of a published file; fields that are not read are ignored."""

    model_config = ConfigDict(frozen=True)


class Options(Settings):
    """What a task's YAML may tell its loader."""


class TaskFiles:
    """Reads the files of one task, and checks that the images they name exist."""

    def __init__(self, config: TaskConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self._images: dict[str, set[str]] = defaultdict(set)
        self._bad = Problems()
        self._takes_options = False

    def path(self, name: str) -> Path:
        """The path of a file or folder, by its name in the task's ``files``.

        Raises:
            InputError: they name no such file.
        """
        if name not in self.config.files:
            raise self._error(
                f"its loader {self.config.loader!r} looks for {name!r} in `files`."
                f"{did_you_mean(name, self.config.files)} Named there: {', '.join(self.config.files) or 'nothing'}."
            )
        return self.folder / self.config.files[name]

    def options(self, model: type[Model]) -> Model:
        """The task's ``options``.

        Raises:
            InputError: the loader does not accept them.
        """
        self._takes_options = True
        try:
            return model.model_validate(self.config.options)
        except ValidationError as error:
            raise self._error(f"its `options`:{described(model, error)}{self._of_the_metric()}") from error

    def read(self, name: str, model: type[Model]) -> Model:
        """A whole JSON file.

        Raises:
            InputError: it is cut, or not as published.
        """
        path = self.path(name)
        try:
            return model.model_validate_json(self._content(path))
        except ValidationError as error:
            raise self._error(_wrong(str(path), error) + self._where_from()) from error

    def lines(self, name: str, model: type[Model]) -> Iterator[Model]:
        """The values of a file of JSON lines, without blank ones; `check_lines` refuses the bad ones, all together.

        Raises:
            InputError: the file cannot be read.
        """
        path = self.path(name)
        for number, line in enumerate(self._content(path).splitlines(), 1):
            if line.strip():
                try:
                    yield model.model_validate_json(line)
                except ValidationError as error:
                    self._bad.add(_wrong(f"{path}:{number}", error))

    def check_lines(self) -> None:
        """Refuse the bad lines of all files that were read; `dataset` does it, too.

        Raises:
            InputError: a line is cut, or not as published.
        """
        bad, count = list(self._bad)[:_BAD_LINES], len(self._bad)
        if count == 1:
            raise self._error(bad[0] + self._where_from())
        if bad:
            more = [f"... and {count - len(bad):,} more."] if count > len(bad) else []
            listed = "".join(f"\n  {line}" for line in [*bad, *more])
            raise self._error(f"{count:,} lines cannot be used:{listed}{self._where_from()}")

    def image(self, folder: Path, name: str) -> str:
        """The path of an image; `dataset` checks that it exists."""
        path = os.path.join(folder, name)
        place, file = os.path.split(path)
        self._images[place].add(file)
        return path

    def warn(self, text: str) -> None:
        """Warn about something odd that is not an error."""
        warnings.warn(f"task {self.config.name!r}: {text}", DataWarning, stacklevel=2)

    def dataset(self, queries: Sequence[Item], support: Iterable[Item], draw: Draw | None = None) -> Dataset:
        """Put the parts together. Items with a blank reference cannot be demonstrations, and are left out.

        Raises:
            InputError: lines were bad, a part is empty, two of its items have the same id, or the task has `options`
                and the loader asked for none.
            MissingDataError: images are missing.
        """
        if self.config.options and not self._takes_options:
            raise self._error(
                f"its `options` ({', '.join(self.config.options)}): the loader {self.config.loader!r} has none."
                f"{self._of_the_metric()}"
            )
        self.check_lines()
        shown = [item for item in support if all(answer.strip() for answer in item.answers)]
        for part, items in (("queries", queries), ("support", shown)):
            self._check_ids(part, items)
        self.check_images()
        return Dataset(queries, shown, draw)

    def check_images(self) -> None:
        """Refuse images that do not exist; `dataset` does it, too.

        Raises:
            MissingDataError: it counts them.
        """
        absent: list[str] = []
        for folder, names in self._images.items():  # one listing a folder: a stat for each of 100,000 is slow on NFS
            absent += sorted(os.path.join(folder, name) for name in names - _listing(folder))
        if absent:
            total = sum(map(len, self._images.values()))
            advice = f"Was their folder downloaded and unpacked completely? Source: {self.config.source}"
            if self.config.own:
                advice = f"Images are named relative to {self.folder}."
            missing = f"{len(absent):,} of {total:,} images are missing: {_several(absent)}."
            raise MissingDataError(f"task {self.config.name!r}: {missing} {advice}")

    def _check_ids(self, part: str, items: Sequence[Item]) -> None:
        if not items:
            raise self._error(f"no {part} in its files in {self.folder}; see `splits`: {self.config.splits}")
        counts = Counter(item.id for item in items)
        if len(counts) < len(items):
            twice = [name for name, count in counts.items() if count > 1]
            raise self._error(f"{_several(twice)}: more than one of the {part} in {self.folder} has that id.")

    def _content(self, path: Path) -> bytes:
        try:
            if path.exists() and not path.is_file():
                raise self._error(f"{path}: a folder, a pipe or a device; expected a file.")
            return path.read_bytes().removeprefix(codecs.BOM_UTF8)
        except OSError as error:
            raise self._error(f"{path}: cannot be read ({error.strerror}).") from error

    def _of_the_metric(self) -> str:
        """Advice, if `options` name one of the metric."""
        metric = self.config.metric
        known = list(inspect.signature(METRICS[metric]).parameters) if metric in METRICS else []
        of_metric = [name for name in self.config.options if name in known]
        return f" Next: put {', '.join(of_metric)} into `metric_options`." if of_metric else ""

    def _where_from(self) -> str:
        """Advice on damaged files of others, which are published somewhere."""
        return "" if self.config.own else f" Is it cut off, or not the expected file? Source: {self.config.source}"

    def _error(self, text: str) -> InputError:
        return InputError(f"task {self.config.name!r}: {text}")


def _wrong(place: str, error: ValidationError) -> str:
    """What is wrong there, and how much more."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" ({error.error_count() - 1:,} more)" if error.error_count() > 1 else ""
    return f"{place}: {where}{': ' if where else ''}{first['msg'].removeprefix('Value error, ')}{more}."


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder or os.curdir))
    except (OSError, ValueError):  # not a folder, not readable, or not a valid name (a NUL)
        return set()


def _several(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
