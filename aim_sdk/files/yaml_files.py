"""Settings in YAML files: read, overridden, validated; an error says where the problem is and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from aim_sdk.errors import InputError, did_you_mean, said
from aim_sdk.files.json_lines import open_regular

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES: Final = 256 << 10
"""Bytes of the largest file: settings are short, and PyYAML takes seconds for a megabyte."""
MAX_NESTING: Final = 32
"""How deep lists and groups of settings may be nested."""

_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises; all but the first for an invalid date, number or tag value."""
_LONGEST_NUMBER: Final = 100


class _PlainLoader(yaml.SafeLoader):
    """YAML as settings need it. Aliases repeat what they name (a few lines can stand for billions), and tags make
    things other than texts, numbers, lists and groups: neither is accepted.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not accepted", event)
        if getattr(event, "tag", None) is not None:
            raise _refused("tags are not accepted", event)
        if self._depth == MAX_NESTING:
            raise _refused(f"nested deeper than {MAX_NESTING}", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise _refused("not text (a NUL, or half of a surrogate pair)", node)
        if node.tag.endswith((":int", ":float")) and len(text) > _LONGEST_NUMBER:
            raise _refused(f"a number of more than {_LONGEST_NUMBER} digits", node)
        return text


def _refused(what: str, place: Any) -> yaml.YAMLError:
    return yaml.YAMLError(f"line {place.start_mark.line + 1}: {what}")


def read_yaml(path: Path | Traversable, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file as a model; ``overrides`` are ``a.b=value``, their values in YAML.

    Raises:
        InputError: the file or an override is not as expected.
    """
    try:
        raw = _parsed(_content(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except InputError:
        raise
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


def value_of(text: str) -> Any:
    """A setting's value in YAML; text that is no YAML is text."""
    try:
        return _parsed(text)
    except _NOT_YAML:
        return text


def yaml_in(folder: Traversable) -> dict[str, Traversable]:
    """The YAML files of a package's folder by their names without the suffix, in order."""
    found = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(found.items()))


def described(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with a model's settings, each on a line of its own after a line break."""
    return "".join(f"\n  {_described(model, item)}" for item in error.errors())


def _content(path: Path | Traversable) -> str:
    with open_regular(path) if isinstance(path, Path) else path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 10} KiB; expected settings in YAML.")
    return data.decode("utf-8-sig")


def _parsed(text: str) -> Any:
    return yaml.load(text, _PlainLoader)  # it is a SafeLoader


def _override(raw: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if override.startswith("--"):
        told = f"{name.lstrip('-').replace('-', '_')}={value or 'VALUE'}"
        raise InputError(f"{override}: settings have no dashes here. Next: write {told}, or see --help.")
    if not equals or not name.strip():
        raise InputError(f"override {override!r}: expected name=value, as in optimizer.learning_rate=1e-4.")
    *groups, last = name.strip().split(".")
    for group in groups:
        if raw.get(group) is None:  # this includes `group:` with nothing after it
            raw[group] = {}
        if not isinstance(raw[group], dict):
            raise InputError(f"override {override!r}: {group!r} has no settings of its own.")
        raw = raw[group]
    try:
        raw[last] = _parsed(value)
    except _NOT_YAML as error:
        raise InputError(f"override {override!r}: the value is not YAML ({error}).") from error


def _described(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One error of pydantic's, with the nearest name for a name that does not exist."""
    place = [str(part) for part in error["loc"]]
    if error["type"] != "extra_forbidden":
        return f"{'.'.join(place) or 'settings'}: {said(error)}"
    for part in place[:-1]:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        inner = next((t for t in getattr(inner, "__args__", ()) if t is not type(None)), inner)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    known = sorted(model.model_fields)
    return f"{'.'.join(place)}: no such setting.{did_you_mean(place[-1], known)} Expected: {', '.join(known)}."
