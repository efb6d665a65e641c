"""The settings of an evaluation run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aim_sdk.types import Mode

MODES: tuple[Mode, ...] = ("zero-shot", "text-only", "interleaved", "aim", "nearest")
"""The rows that every table has; `nearest` only where answers are of a closed set (exact match, choices)."""


class EvalSettings(BaseModel):
    """What is evaluated, and how. What decides an answer is kept in the run's folder: a run goes on with the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(description="the run's folder")
    backend: str = Field(description="a name, as `aim-icl backends list` shows it")
    model: str | None = Field(default=None, description="a hub id or a folder; None: the backend's default")
    projector: str | None = Field(
        default=None, description="a kind, a saved projector's folder or its hub id; None: the backend's default"
    )
    device: str | None = Field(default=None, description="None: a GPU where there is one")
    dtype: str | None = Field(default=None, description="the backbone's: bfloat16, float32, ...; None: its default")
    trust_remote_code: bool = Field(default=False, description="run the Python code of a checkpoint that brings some")
    tasks: tuple[str, ...] = Field(min_length=1, description="names, or paths of YAML files")
    data: Path = Field(default=Path("data"), description="the folder of the tasks' folders")
    protocol: str = Field(default="aim", description="a name, or a YAML file")
    shots: tuple[int, ...] | None = Field(default=None, description="None: the protocol's")
    modes: tuple[Mode, ...] = Field(
        default=MODES,
        description="the rows of the table: zero-shot, text-only, interleaved, aim, unless others are named",
    )
    selector: str = Field(default="random", description="see aim_sdk.selection")
    seeds: int | None = Field(default=None, ge=1, description="how many, from 0 on; None: the protocol's")
    limit: int | None = Field(default=None, ge=1, description="queries a task: a random part, the same for all cells")
    batch_size: int = Field(default=8, ge=1, description="prompts a forward")
    bank: Path | None = Field(
        default=None, description="a bank that is there: its demonstrations are shown, in place of the tasks' own"
    )
    cache: Path | None = Field(
        default=None, description="a folder that keeps fused tokens between runs, a bank a task; None: in memory"
    )

    @model_validator(mode="after")
    def _no_repetitions(self) -> EvalSettings:
        for name in ("tasks", "shots", "modes"):
            values: tuple[Any, ...] = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {', '.join(map(str, values))}: one is named twice")
        if any(k < 0 for k in self.shots or ()):
            raise ValueError("shots: expected whole numbers of at least 0")
        return self

    @model_validator(mode="after")
    def _bank_or_cache(self) -> EvalSettings:
        if self.bank is not None and self.cache is not None:
            raise ValueError("cache: with a bank there is nothing to keep: its fused tokens are there")
        return self

    def identity(self) -> dict[str, Any]:
        """What a run that goes on must have in common with what it goes on from."""
        return self.model_dump(mode="json", exclude={"output", "data", "bank", "cache", "device", "trust_remote_code"})
