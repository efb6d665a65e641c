"""What a task's YAML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from aim_sdk.files.settings import Settings

Kind = Literal["caption", "vqa", "meme", "classification", "json", "boxes"]
"""The kinds that a protocol has prompts for; a prompt under the task's own name takes precedence.

The answers of ``boxes`` are JSON (`aim_sdk.evaluation.boxes`) in files and results; prompts have them as the backbone
writes boxes. Only the metric ``box_iou`` reads them.
"""


class TaskConfig(Settings):
    """One task: where its data is, how it is read, and how it is scored."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its name in `--tasks` and in results")
    title: str = Field(description="for people to read, above its table")
    kind: Kind = Field(description="which prompt a protocol uses if it has none for the name")
    metric: str = Field(description="see aim_sdk.evaluation.metrics.METRICS")
    metric_options: dict[str, Any] = Field(default_factory=dict, description="a protocol's take precedence")
    choices: tuple[str, ...] = Field(
        default=(), description="generated answers are constrained to one of these; needs the extra `constrained`"
    )
    json_schema: dict[str, Any] | None = Field(
        default=None, description="generated answers are constrained to JSON of this schema; the same extra"
    )
    loader: str = Field(description="see aim_sdk.evaluation.tasks.LOADERS")
    folder: str = Field(default="", description="below the data folder, or below the package's")
    package: str | None = Field(default=None, description="an installed package that ships the files")
    install: str | None = Field(default=None, description="the command that installs the package")
    files: dict[str, str] = Field(description="what the loader reads, relative to the folder")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the loader")
    source: str = Field(description="where to get the official files")
    licence: str = Field(description="of the data")
    splits: str = Field(description="what is asked and what demonstrations are drawn from, for people to read")

    @model_validator(mode="after")
    def _boxes_go_with_their_metric(self) -> Self:
        if (self.kind == "boxes") != (self.metric == "box_iou"):
            raise ValueError(
                f"kind {self.kind!r} with metric {self.metric!r}: `kind: boxes` and `metric: box_iou` go together"
            )
        if self.kind == "boxes" and (self.choices or self.json_schema is not None):
            raise ValueError(
                "`kind: boxes` has no `choices` and no `json_schema`: each backbone writes boxes in its own way"
            )
        return self

    @property
    def own(self) -> bool:
        """Whether it is a user's, whose files lie next to its YAML file; `get_task` makes their folder absolute."""
        return self.package is None and Path(self.folder).is_absolute()
