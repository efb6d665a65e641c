"""Settings in YAML files: read, overridden, validated; an error says where it is and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aim_sdk.errors import InputError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises; all but the first where a date, a number or a tag's value is none."""


def read_yaml(path: Path | Traversable, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file as a model; ``overrides`` are ``a.b=value``, their values in YAML.

    Raises:
        InputError: the file or an override is not as expected.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, *_NOT_YAML) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected settings by name, as in `backend: pocket`.")
    for override in overrides:
        _override(raw, override)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}:{described(model, error)}") from error


def yaml_in(folder: Traversable) -> dict[str, Traversable]:
    """The YAML files of a package's folder by their names without the suffix, in order."""
    found = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def described(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with a model's settings, each on a line of its own behind a line break."""
    return "".join(f"\n  {_described(model, item)}" for item in error.errors())


def _override(raw: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name.strip():
        raise InputError(f"override {override!r}: expected name=value, as in optimizer.learning_rate=1e-4.")
    *groups, last = name.strip().split(".")
    for group in groups:
        if raw.get(group) is None:  # also `group:` with nothing behind it
            raw[group] = {}
        if not isinstance(raw[group], dict):
            raise InputError(f"override {override!r}: {group!r} has no settings of its own.")
        raw = raw[group]
    try:
        raw[last] = yaml.safe_load(value)
    except _NOT_YAML as error:
        raise InputError(f"override {override!r}: the value is not YAML ({error}).") from error


def _described(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One error of pydantic's, with the nearest name for a name that does not exist."""
    place = [str(part) for part in error["loc"]]
    if error["type"] != "extra_forbidden":
        return f"{'.'.join(place) or 'settings'}: {error['msg']} (got {error.get('input')!r})"
    for part in place[:-1]:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        inner = next((t for t in getattr(inner, "__args__", ()) if t is not type(None)), inner)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    known = sorted(model.model_fields)
    return f"{'.'.join(place)}: no such setting.{did_you_mean(place[-1], known)} Expected: {', '.join(known)}."
