"""The base of settings that people write: in a YAML file, as ``name=value``, or in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Settings(BaseModel):
    """Settings that never change, of which no name is unknown.

    Pydantic reads ``true`` as the number 1 and an empty path as the working directory; here both are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _means_what_it_says(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        truths = [part for part in _parts(value) if isinstance(part, bool)]
        if truths and bool not in kinds and kinds & {int, float}:
            raise ValueError(f"expected a number, got {str(truths[0]).lower()}")
        if Path in kinds and isinstance(value, str) and not value.strip():
            raise ValueError("expected a path, got an empty text")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation names, however deep."""
    inner = [kind for part in get_args(annotation) for kind in _kinds(part)]
    return {annotation, *inner} if isinstance(annotation, type) else set(inner)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]
