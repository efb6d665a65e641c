"""What a call asks its answers to be: choices, a schema, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel

from aim_sdk.backend.capabilities import ConstrainsAnswers, capability
from aim_sdk.backend.constraints import Constraint, JsonSchema, OneOf
from aim_sdk.backend.injector import Injector
from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import InputError
from aim_sdk.injection.choices import checked_choices
from aim_sdk.types import Mode

Schema: TypeAlias = "Mapping[str, Any] | type[BaseModel]"
"""A JSON schema, or the pydantic model that has it."""


def injector_of(backend: Backend, choices: Iterable[str] | None, schema: Schema | None, mode: Mode) -> Injector:
    """The backend's injector, whose answers keep to the choices or the schema, if one is given.

    Raises:
        InputError: both are given, one is not valid, or the mode generates nothing.
        CapabilityError: the backend cannot constrain its answers.
        MissingDependencyError: a package that it needs for that is not installed.
    """
    if choices is None and schema is None:
        return backend.injector
    if mode == "nearest":
        raise InputError("mode 'nearest' generates nothing to constrain. Next: classify(images, choices, mode=...).")
    return capability(backend, ConstrainsAnswers).constrained(_constraint_of(choices, schema))


def _constraint_of(choices: Iterable[str] | None, schema: Schema | None) -> Constraint:
    if choices is None:
        assert schema is not None
        return JsonSchema.of(schema)
    if schema is not None:
        raise InputError("choices and schema: an answer is one of some choices, or JSON of a schema; pass one of them.")
    return OneOf(tuple(checked_choices(choices, fewest=1)))
