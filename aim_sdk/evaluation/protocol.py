"""Protocols: how a benchmark is run, as data; every result names its protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError, InputError, unknown
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import read_yaml, yaml_in

_FOLDER = "protocols"


class PromptSettings(Settings):
    """How one kind of task is asked, and how its answers are cut."""

    template: str | None = Field(
        default=None, description="with {image}, {text}, {answer}; if missing, the backend's own format"
    )
    system: str | None = Field(default=None, description="before the first demonstration")
    text: str = Field(default="{text}", description="the text next to an image: a format string with the item's text")
    max_new_tokens: int = Field(default=32, ge=1, description="the most tokens that are generated")
    generation: dict[str, Any] = Field(default_factory=dict, description="greedy, unless they say otherwise")
    cut: tuple[str, ...] = Field(
        default=(),
        description="regular expressions, applied in order: the answer is cut before the first match of each",
    )
    normalize: Literal["none", "tokens", "characters"] = Field(
        default="none", description="what a choice's log-probability is divided by, if choices are scored"
    )

    @field_validator("cut")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return patterns

    @model_validator(mode="after")
    def _formats(self) -> PromptSettings:
        try:
            self.text.format(text="")
            if self.template is not None:
                PromptFormat.plain(self.template)
        except (FormatError, KeyError, IndexError, ValueError) as error:
            raise ValueError(f"not a prompt ({error})") from error
        return self

    def format(self, default: PromptFormat) -> PromptFormat:
        """The prompt format; without a template, the backend's."""
        if self.template is not None:
            return PromptFormat.plain(self.template, system=self.system)
        return default if self.system is None else default.model_copy(update={"system": self.system})

    def finish(self, text: str) -> str:
        """Cut a generated text."""
        for pattern in self.cut:
            text = re.split(pattern, text, maxsplit=1)[0]
        return text.strip()


class Protocol(Settings):
    """All that a score depends on besides the model and the data."""

    name: str = Field(description="the name that `--protocol` takes")
    description: str = Field(description="one sentence, for people to read")
    source: str = Field(description="who defined the protocol, and where it was taken from")
    deviations: tuple[str, ...] = Field(default=(), description="what differs here from the original code, and why")
    tasks: tuple[str, ...] = Field(default=(), description="the default tasks: names, or paths of YAML files")
    shots: tuple[int, ...] = Field(description="asked by default")
    seeds: int = Field(ge=1, description="by default; each draws other demonstrations")
    pool: int | None = Field(
        default=None, ge=1, description="demonstrations are drawn from a random part of the support, of this size"
    )
    answer: Literal["first", "majority"] = Field(
        default="first", description="which of a demonstration's answers it shows"
    )
    zero_shot_texts: int = Field(
        default=0, ge=0, description="text-only demonstrations that stand before a zero-shot query"
    )
    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict, description="options of a metric, by its name")
    prompts: dict[str, PromptSettings] = Field(description="by a task's name, or else by its kind")

    def prompt(self, task: TaskConfig) -> PromptSettings:
        """How a task is asked.

        Raises:
            InputError: the protocol has no prompt for it.
        """
        for name in (task.name, task.kind):
            if name in self.prompts:
                return self.prompts[name]
        raise InputError(
            f"protocol {self.name!r} has no prompt for task {task.name!r} (kind {task.kind!r}); it has prompts for: "
            f"{', '.join(self.prompts)}. Protocols that take every task: aim."
        )


def list_protocols() -> list[Protocol]:
    """The built-in protocols, by name."""
    return [_read(file) for file in _built_in().values()]


def get_protocol(name: str | Path) -> Protocol:
    """Return a built-in protocol by name, or read a YAML file.

    Raises:
        InputError: no such protocol, or the file is not one.
    """
    if str(name).endswith((".yaml", ".yml")):
        return _read(Path(name))
    built_in = _built_in()
    if name not in built_in:
        raise InputError(f"{unknown('protocol', name, built_in)} Or name a YAML file.")
    return _read(built_in[str(name)])


def shown_answer(answers: Sequence[str], which: Literal["first", "majority"]) -> str:
    """A demonstration's answer: the most frequent one, or the first of those that are equally frequent."""
    return answers[0] if which == "first" else max(answers, key=answers.count)


def _built_in() -> dict[str, Traversable]:
    return yaml_in(files("aim_sdk.evaluation").joinpath(_FOLDER))


def _read(file: Traversable | Path) -> Protocol:
    return read_yaml(file, Protocol)
