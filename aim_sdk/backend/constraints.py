"""What an answer has to be: one of some choices, or JSON of a schema. Values that any backend can be given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel

from aim_sdk.backend.schema_check import check_schema
from aim_sdk.errors import InputError


@dataclass(frozen=True, slots=True)
class OneOf:
    """The answer is one of these texts, exactly; surrounding blanks aside, no two are alike, and none is blank."""

    choices: tuple[str, ...]

    def found(self, text: str) -> str | None:
        """The choice that a text without surrounding blanks is, as it was given; None if it is none of them."""
        return next((choice for choice in self.choices if choice.strip() == text), None)


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that a schema admits."""

    text: str
    """The schema, itself as JSON."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | type[BaseModel]) -> JsonSchema:
        """The schema of a dict, or of a pydantic model: its fields and no others, unless it says ``extra="allow"``.

        Raises:
            InputError: it is neither, or not valid, or it asks for what is not kept; with the place in the schema.
        """
        schema: object = given
        if isinstance(given, type) and issubclass(given, BaseModel) and given is not BaseModel:
            try:
                schema = _closed(given.model_json_schema())
            except Exception as error:  # a field may have no schema, in many ways
                raise InputError(f"schema: {given.__name__} has no JSON schema: {error}") from error
        if not isinstance(schema, Mapping):
            raise InputError(
                f"schema: {_kind(given)}; expected a pydantic model's class, or a JSON schema as a dict, such as "
                "pydantic.TypeAdapter(...).json_schema()."
            )
        check_schema(dict(schema))
        try:
            return cls(json.dumps(dict(schema), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"schema: it is not JSON itself: {error}.") from error

    def found(self, text: str) -> str | None:
        """The text itself if it is JSON; None if it is not."""
        try:
            json.loads(text)
        except ValueError:
            return None
        return text


def _closed(schema: Any) -> Any:
    """A pydantic model's schema without fields that the model would ignore."""
    if isinstance(schema, list):
        return list(map(_closed, schema))
    if not isinstance(schema, dict):
        return schema
    own = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return own | {name: _closed(value) for name, value in schema.items()}


def _kind(given: object) -> str:
    """What was given instead of a schema."""
    if isinstance(given, str):
        return f"{given!r:.80}, a string (a file's schema is json.loads(Path(...).read_text()))"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, BaseModel):
        return f"an instance of {type(given).__name__} (its class is schema={type(given).__name__})"
    return f"{given!r:.80}, of the type {type(given).__name__}"


Constraint: TypeAlias = OneOf | JsonSchema
"""What an answer has to be."""
