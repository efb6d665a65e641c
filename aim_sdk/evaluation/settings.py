"""The settings of an evaluation run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from aim_sdk.errors import InputError
from aim_sdk.files.atomic import expanded
from aim_sdk.files.jobs import deciding
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import described
from aim_sdk.support.modes import BASIC
from aim_sdk.types import Mode


class EvalSettings(Settings):
    """What is evaluated, and how. The run's folder keeps what decides the answers: a run only resumes with the same."""

    output: Path = Field(description="the run's folder")
    backend: str = Field(description="a name, as `aim-icl backends list` shows it")
    model: str | None = Field(default=None, description="a hub id or a folder; None: the backend's default")
    projector: str | None = Field(
        default=None, description="a kind, a saved projector's folder or its hub id; None: the backend's default"
    )
    device: str | None = Field(default=None, description="None: a GPU if there is one")
    dtype: str | None = Field(default=None, description="the backbone's: bfloat16, float32, ...; None: its default")
    trust_remote_code: bool = Field(default=False, description="run a checkpoint's own Python code")
    backend_options: dict[str, Any] = Field(default_factory=dict, description="passed to the backend")
    tasks: tuple[str, ...] | None = Field(
        default=None, description="names, or paths of YAML files; None: the protocol's, if it names any"
    )
    data: Path = Field(default=Path("data"), description="the folder of the tasks' folders")
    protocol: str = Field(default="aim", description="a name, or a YAML file")
    shots: tuple[int, ...] | None = Field(default=None, description="None: the protocol's")
    modes: tuple[Mode, ...] = Field(
        default=BASIC,
        description="the rows of the table; nearest only if the answers are a closed set (exact match, choices)",
    )
    selector: str = Field(default="random", description="see aim_sdk.selection")
    seeds: int | None = Field(default=None, ge=1, description="how many, from `seed` on; None: the protocol's")
    seed: int = Field(default=0, ge=0, description="the first one; each draws other demonstrations")
    limit: int | None = Field(default=None, ge=1, description="queries per task: a random part, the same for all cells")
    batch_size: int = Field(default=8, ge=1, description="prompts per forward")
    timed: int = Field(
        default=0,
        ge=0,
        description="queries of each cell that are asked again, one at a time, to measure the time to the first token; "
        "every prompt of the run is then computed in full",
    )
    bank: Path | None = Field(
        default=None, description="an existing bank: its demonstrations are shown instead of the tasks' own"
    )
    cache: Path | None = Field(
        default=None, description="a folder that keeps fused tokens between runs, one bank per task; None: in memory"
    )

    def __init__(self, **settings: Any) -> None:
        """Take the settings by name; ``model_validate`` raises pydantic's own error.

        Raises:
            InputError: a setting does not exist or cannot be used; it names each one.
        """
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise InputError(f"EvalSettings:{described(type(self), error)}") from error

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # model_validate does not come here

    @field_validator("tasks", "modes", "shots", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        values = (value,) if isinstance(value, str | os.PathLike | int) else value
        if not isinstance(values, list | tuple):
            return values
        return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)

    @field_validator("tasks", "shots", "modes")
    @classmethod
    def _no_repetitions(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("expected at least one")
        if len(set(values)) < len(values):
            raise ValueError("one is named twice")
        return values

    @field_validator("shots")
    @classmethod
    def _shots_are_counts(cls, shots: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if any(k < 0 for k in shots or ()):
            raise ValueError("expected whole numbers of at least 0")
        return shots

    @field_validator("cache")
    @classmethod
    def _bank_or_cache(cls, cache: Path | None, info: ValidationInfo) -> Path | None:
        if cache is not None and info.data.get("bank") is not None:
            raise ValueError("cache: leave it out with bank, which holds its fused tokens already")
        return cache

    @field_validator("model", "projector")
    @classmethod
    def _paths_are_there(cls, value: str | None) -> str | None:
        if value is not None and _is_path(value) and not expanded(value).exists():
            raise ValueError("no such folder or file; a hub id has the form owner/name")
        return value

    @field_validator("backend_options")
    @classmethod
    def _options_are_the_backends(cls, value: dict[str, Any]) -> dict[str, Any]:
        if own := sorted(value.keys() & cls.model_fields.keys()):
            raise ValueError(f"{own[0]} is a setting of its own")
        return value

    def shown(self) -> dict[str, Any]:
        """The settings as a result shows them: without keys and addresses of servers."""
        return self.model_dump(mode="json") | {"backend_options": deciding(self.backend_options)}

    def identity(self) -> dict[str, Any]:
        """The settings that must be the same when a run resumes.

        A model or projector in a folder is identified by its content (`Pipelines.made_with`), not by the path as typed.
        """
        kept = self.model_dump(
            mode="json", exclude={"output", "data", "bank", "cache", "device", "trust_remote_code", "tasks"}
        )
        if chosen := deciding(kept.pop("backend_options")):
            kept |= {"backend_options": chosen}
        here = [name for name in ("model", "projector") if kept[name] is not None and expanded(kept[name]).exists()]
        return kept | dict.fromkeys(here)


def _is_path(name: str) -> bool:
    """Whether a name can only be a path: the hub's are ``name`` or ``owner/name``."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")
