"""What a task's YAML file says."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["caption", "vqa", "meme", "classification"]
"""The kinds that a protocol has prompts for; a prompt under the task's own name takes precedence."""


class TaskConfig(BaseModel):
    """One task: where its data is, how it is read, and how it is scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its name in `--tasks` and in results")
    title: str = Field(description="for people to read, above its table")
    kind: Kind = Field(description="which prompt a protocol uses if it has none for the name")
    metric: str = Field(description="see aim_sdk.evaluation.metrics.METRICS")
    metric_options: dict[str, Any] = Field(default_factory=dict, description="a protocol's take precedence")
    loader: str = Field(description="see aim_sdk.evaluation.tasks.LOADERS")
    folder: str = Field(default="", description="below the data folder, or below the package's")
    package: str | None = Field(default=None, description="an installed package that ships the files")
    install: str | None = Field(default=None, description="the command that installs the package")
    files: dict[str, str] = Field(description="what the loader reads, relative to the folder")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the loader")
    source: str = Field(description="where to get the official files")
    licence: str = Field(description="of the data")
    splits: str = Field(description="what is asked and what demonstrations are drawn from, for people to read")
