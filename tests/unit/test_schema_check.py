"""Schemas are kept, or refused with the place, the keyword and the nearest one."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from aim_sdk.backend.constraints import JsonSchema
from aim_sdk.errors import InputError


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=0, le=9, examples=[9])] = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind", deprecated=True, json_schema_extra={"x-note": 1})]
    more: "list[Pets]"


class Tags(BaseModel):
    tags: set[str]


class Owner(BaseModel):
    of: Tags


class Raw(BaseModel):
    data: bytes


class Endless(BaseModel):
    child: "Endless"


class Called(BaseModel):
    call: Callable[[], None]


@dataclasses.dataclass
class Data:
    a: int


@pytest.mark.parametrize(
    "schema",
    [
        {},
        Pets,
        TypeAdapter(Data).json_schema(),
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        {"type": "array", "items": [{"const": 1}], "additionalItems": False},
        {"minProperties": 2, "required": ["a", "b"]},
        {"minProperties": 1},
        {"$defs": {"unused": {"not": {}}}},
        {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"anyOf": [{"type": "integer"}, {"type": "array", "minItems": 1, "items": {"$ref": "#"}}]},
        {"properties": {"not": {"const": {"maxlength": None}}}},
        {"enum": [{"uniqueItems": 1, "$ref": "x"}]},
    ],
)
def test_what_is_kept_is_admitted(schema: Any) -> None:
    JsonSchema.of(schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            {"properties": {"a": {"maxlength": 3}}},
            r"properties\.a: no keyword 'maxlength' is kept. Did you mean 'maxLen",
        ),
        ({"type": "objekt"}, "type: no type named 'objekt'. Did you mean 'object'"),
        ({"anyOf": [{}, {"minProperties": 2}]}, r"anyOf\.1: minProperties 2 is not kept"),
        ({"minProperties": 2, "patternProperties": {"^a$": {}}}, "comes twice would count twice"),
        ({"uniqueItems": True}, "uniqueItems is not kept"),
        ({"type": "string", "nullable": True}, r"nullable is not kept.\nNext: \"type\": \["),
        ({"contentEncoding": "base64"}, "contentEncoding is not kept"),
        ({"not": {}}, "the keyword not is not kept"),
        ({"x-guidance": {}}, "x-guidance"),
        ({1: 2}, "the name 1 is no string"),
        ({"const": {"a": {2: 3}}}, r"const\.a: the name 2 is no string"),
        ({"enum": []}, r"enum: \[\]; expected a list of at least one value"),
        ({"anyOf": []}, "anyOf: .*at least one schema"),
        ({"properties": ["a"]}, r"properties: \['a'\]; expected an object"),
        ({"items": 3}, "items: 3; expected a schema"),
        ({"required": "a"}, "required: 'a'; expected a list of names"),
        ({"maxLength": -1}, "maxLength: -1; expected a whole number"),
        ({"minimum": "1"}, "minimum: '1'; expected a number"),
        ({"minLength": 5, "maxLength": 2}, r"minLength \(5\) is greater than maxLength \(2\)"),
        ({"additionalItems": False, "prefixItems": [{}]}, "only with a list of items"),
        ({"type": "string", "format": "dat"}, "'dat' is not kept. Did you mean 'date'"),
        ({"$ref": "#/$defs/on", "$defs": {"one": {}}}, r"\$defs has no 'on'. Did you mean 'one'"),
        ({"$ref": "file:///etc/passwd"}, "nothing is read from files"),
        ({"$ref": "other.json"}, "nothing is read from files"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "without end"),
        ({"allOf": [{"type": "integer"}, {"$ref": "#"}]}, r"allOf\.1: the schema refers to itself without end"),
        ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "without end"),
        (Endless, r"Endless\.properties\.child: the schema refers to itself without end"),
        (Owner, r"Tags\.properties\.tags: .*uniqueItems(.|\n)*list\[...\] instead of set\[...\]"),
        (Raw, r"properties\.data.*binary(.|\n)*str instead of bytes"),
        (Called, "Called has no JSON schema"),
        (Cat(kind="cat"), "an instance of Cat .*schema=Cat"),
        ("x.schema.json", "'x.schema.json', a string"),
        (TypeAdapter(int), "TypeAdapter"),
        (Data, "the class Data; .*TypeAdapter"),
        (BaseModel, "the class BaseModel"),
        (True, "True"),
        ([1], r"\[1\]"),
        (None, "None"),
        ({"enum": [{1}]}, "not JSON"),
        ({"const": float("nan")}, "not JSON"),
        ({"const": "\ud800"}, "half of a character"),
        ({"properties": {"\x01": {}}}, "control character"),
    ],
)
def test_what_is_not_kept_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        JsonSchema.of(schema)
    assert str(caught.value).startswith("schema: ")
    assert len(str(caught.value)) < 400


def test_a_schema_inside_itself_is_refused() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    with pytest.raises(InputError, match="nested over 100 levels"):
        JsonSchema.of(schema)
