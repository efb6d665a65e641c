"""The result file of a run: one JSON document with everything that its scores were computed from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError
from aim_sdk.evaluation.unfinished import state_of
from aim_sdk.files.atomic import expanded, write_atomic
from aim_sdk.types import Mode

RESULT = "result.json"
"""The file's name in a run's folder."""

_Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, return_type=float | None),
]
"""NaN is null in JSON."""


class _ResultModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_ResultModel):
    """What is answered with one set of demonstrations per query."""

    task: str = Field(description="the task's name")
    mode: Mode = Field(description="what comes before a query")
    shots: int = Field(ge=0, description="demonstrations of one query")
    seed: int = Field(description="of the draw of the demonstrations")

    def __str__(self) -> str:
        return f"{self.task}, {self.mode}, {self.shots} shots, seed {self.seed}"


class Prediction(_ResultModel):
    """One query's answer."""

    item: str = Field(description="the query's id")
    demonstrations: tuple[str, ...] = Field(description="ids of what stood before it, in the order of the prompt")
    raw: str | None = Field(description="as generated; none if choices were scored or the prompt did not fit")
    answer: str | None = Field(description="cut as the protocol says; none if the prompt did not fit")
    log_probs: tuple[float, ...] | None = Field(default=None, description="of each choice, if they were scored")
    score: float | None = Field(description="its own, if the metric has one")
    prompt_tokens: int | None = Field(description="text, visual and fused tokens together")
    seconds: float | None = Field(description="of its batch, over the batch's size; readings not included")

    refused: str | None = Field(default=None, description="why it could not be answered, other than its length")

    @property
    def fits(self) -> bool:
        """Whether the prompt was short enough for the backbone's context; it is never truncated."""
        return self.answer is not None or self.refused is not None


class CellAnswers(_ResultModel):
    """All predictions of one cell."""

    cell: Cell = Field(description="what was asked")
    predictions: tuple[Prediction, ...] = Field(description="one per query")
    memory_bytes: int | None = Field(
        default=None, description="most GPU memory of a batch beyond what was held before it; none on other devices"
    )
    first_token_seconds: tuple[float, ...] = Field(
        default=(), description="to the first token, of some queries that were asked alone; none if none was timed"
    )
    peak_bytes: int | None = Field(
        default=None,
        description="in results of earlier versions: the whole process's, which says nothing about the cell; not shown",
    )


class Score(_ResultModel):
    """One number of the table: a task, mode and number of shots, over all seeds."""

    task: str = Field(description="the task's name")
    mode: Mode = Field(description="what comes before a query")
    shots: int = Field(description="demonstrations of one query")
    metric: str = Field(description="its name")
    value: _Number = Field(description="mean of the seeds' scores; NaN if not defined, or if a prompt did not fit")
    standard_error: _Number = Field(description="over queries; a query's answers of all seeds are one draw")
    seeds_error: _Number = Field(description="of the mean, from the spread of the seeds; NaN for one seed")
    by_seed: dict[int, _Number] = Field(description="each seed's own score")
    queries: int = Field(description="a seed")
    refused: int = Field(
        default=0, description="queries, over all seeds, that could not be answered for another reason"
    )
    too_long: int = Field(description="queries, over all seeds, whose prompt exceeds the backbone's context")
    prompt_tokens: _Number = Field(description="median of a prompt")
    seconds: _Number = Field(description="median of a query, in batches")
    first_token_seconds: _Number = Field(
        default=math.nan, description="median of a query that is asked alone; NaN if none was timed"
    )
    memory_bytes: int | None = Field(default=None, description="most of any seed; none if not known")
    peak_bytes: int | None = Field(default=None, description="in results of earlier versions; not shown")


class Question(_ResultModel):
    """One query, as the task's files have it."""

    text: str = Field(description="a question, ...; empty for captions")
    image: str = Field(description="its file, relative to the task's folder if it is in there")
    image_sha256: str | None = Field(
        default=None, description="of the file that was answered; none if it could not be read"
    )
    references: tuple[str, ...] = Field(description="all right answers, in the file's order")
    choices: tuple[str, ...] = Field(default=(), description="what could be answered, if choices were scored")


class Example(_ResultModel):
    """The whole prompt of one query of a task in one mode, at the most shots."""

    item: str = Field(description="the query's id")
    shots: int = Field(description="demonstrations before it")
    shown: tuple[tuple[str, str], ...] = Field(description="their texts and answers; fused tokens stand for them")
    prompt: str | None = Field(
        description="decoded from its tokens, with fused and visual ones as counts; none if the backend cannot show it"
    )


class Run(_ResultModel):
    """A whole run."""

    format_version: Literal[1] = Field(default=1, description="of this file")
    date: str = Field(description="when it ended, UTC")
    command: str | None = Field(description="as it was typed; none from Python")
    settings: dict[str, Any] = Field(description="an EvalSettings")
    protocol: dict[str, Any] = Field(description="the whole Protocol, not its name alone")
    tasks: dict[str, dict[str, Any]] = Field(description="each task's own configuration")
    metrics: dict[str, str] = Field(description="the label of each metric")
    backbone: dict[str, Any] = Field(description="its fingerprint")
    projector: dict[str, Any] = Field(description="its kind, hash and place")
    revision: str | None = Field(description="of the git checkout that the SDK runs from")
    versions: dict[str, str] = Field(description="of the libraries")
    machine: dict[str, Any] = Field(description="where it ran")
    queries: dict[str, dict[str, Question]] = Field(
        default_factory=dict, description="what was asked, by task and id; none in results of earlier versions"
    )
    examples: dict[str, dict[Mode, Example]] = Field(
        default_factory=dict, description="one whole prompt, by task and mode; none in results of earlier versions"
    )
    computed: dict[str, str] = Field(
        default_factory=dict, description="dtype and device that answered, and the prompt format that was the default"
    )
    reading_seconds: float = Field(description="spent on reading demonstrations into the bank, over all processes")
    scores: tuple[Score, ...] = Field(description="the table")
    answers: tuple[CellAnswers, ...] = Field(description="what the table was made from")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a result file, or that of a run's folder.

        Raises:
            ArtifactNotFoundError: there is none.
            CorruptArtifactError: it is cut or not a result file.
        """
        path = expanded(path)
        file = path / RESULT if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError as error:
            state = state_of(path) or "`aim-icl eval` writes it when it finishes."
            raise ArtifactNotFoundError(f"{path}: no {RESULT} there; {state}") from error
        except (OSError, ValidationError) as error:
            raise CorruptArtifactError(f"{file}: not a result file of `aim-icl eval` ({error}).") from error

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the result file, whole or not at all."""
        write_atomic(path := Path(folder, RESULT), (self.model_dump_json() + "\n").encode())
        return path

    def answered(self, task: str, mode: Mode, shots: int) -> Iterable[CellAnswers]:
        """The cells of one number of the table, one per seed."""
        wanted = (task, mode, shots)
        return (a for a in self.answers if (a.cell.task, a.cell.mode, a.cell.shots) == wanted)


def titled(runs: Mapping[str, Run], task: str) -> str:
    """A task's title, if any of these runs has one, with its name, which is what is typed."""
    titles = (run.tasks.get(task, {}).get("title") for run in runs.values())
    title = next(filter(None, titles), None)
    return task if title is None else f"{title} ({task})"
