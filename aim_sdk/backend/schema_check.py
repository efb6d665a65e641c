"""Checks a JSON schema before an answer is made of it: every keyword is kept, or refused by name and place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from aim_sdk.errors import InputError, did_you_mean, unknown

Place: TypeAlias = tuple[str, ...]
"""Names and numbers from the schema's root, as in a JSON pointer."""

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS: Final = ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Of schemas."""
_TABLES: Final = ("properties", "patternProperties", "$defs", "definitions")
"""Of schemas by name."""
_KEPT: Final = (
    *("type", "enum", "const", "$ref", "items", "additionalItems", "required", "additionalProperties"),
    *("pattern", "format", *_COUNTS, *_NUMBERS, *_LISTS, *_TABLES),
)
_SAY_NOTHING: Final = (
    *("$schema", "$id", "id", "$anchor", "$comment", "title", "description", "default", "example", "examples"),
    *("deprecated", "readOnly", "writeOnly", "discriminator"),
)
"""About which values there are. Names that begin with ``x-`` are notes, too."""
_INSTEAD: Final = {
    "uniqueItems": "a list (in a pydantic model list[...] instead of set[...]); drop what comes twice afterwards",
    "nullable": '"type": ["string", "null"], or whichever type it is',
    "contentEncoding": 'a pattern, as in "pattern": "^[A-Za-z0-9+/]*={0,2}$"',
    "contentMediaType": "leave it out",
    "contentSchema": "leave it out",
    "not": "say what is admitted: enum, anyOf, pattern",
    "if": "anyOf, with one schema for each case",
    "then": "anyOf, with one schema for each case",
    "else": "anyOf, with one schema for each case",
    "contains": "prefixItems, if the item has a place",
    "minContains": "minItems",
    "maxContains": "maxItems",
    "propertyNames": 'patternProperties, with "additionalProperties": false',
    "dependencies": "anyOf, with one schema for each case",
    "dependentRequired": "anyOf, with one schema for each case",
    "dependentSchemas": "anyOf, with one schema for each case",
    "unevaluatedProperties": "additionalProperties",
    "unevaluatedItems": '"items": false',
    "$dynamicRef": "$ref",
    "$dynamicAnchor": "$ref, to a place such as #/$defs/name",
    "$recursiveRef": "$ref",
    "$recursiveAnchor": "$ref, to a place such as #/$defs/name",
}
"""Known keywords that are not kept, and what to write."""
_BOUNDS: Final = tuple((f"min{what}", f"max{what}") for what in ("Length", "Items", "Properties", "imum"))
_UNWRITABLE: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\ud800-\udfff]")
_DEEPEST: Final = 100
_SHOWN: Final = 80


def check_schema(schema: dict[str, Any]) -> None:
    """Refuse a schema that is not valid, or asks for what is not kept.

    Raises:
        InputError: it names the place and the keyword.
    """
    _check_data(schema, ())
    nodes = dict(reached(schema))
    for place, node in nodes.items():
        if isinstance(node, dict):
            for name, value in node.items():
                _check_keyword(place, node, name, value)
            _check_together(place, node)
    _check_end(schema, nodes)


def reached(schema: Any) -> Iterator[tuple[Place, Any]]:
    """Yield each schema that a schema uses, with its place, itself first; definitions that nothing names are not used.

    Raises:
        InputError: a reference leads nowhere, or out of the schema.
    """
    left: list[tuple[Place, Any]] = [((), schema)]
    seen: set[Place] = set()
    while left:
        place, node = left.pop(0)
        if place in seen:
            continue
        seen.add(place)
        if not isinstance(node, bool | dict):
            raise _wrong(place, node, "a schema: an object, true or false")
        yield place, node
        if isinstance(node, dict):
            left += _parts(place, node)
            if "$ref" in node:
                left.append(_target(schema, place, node["$ref"]))


def dotted(place: Place) -> str:
    """A place, for people."""
    return ".".join(place) or "at its root"


def _parts(place: Place, node: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """The schemas in a schema, without definitions."""
    for name, value in node.items():
        if name in _TABLES and not isinstance(value, dict):
            raise _wrong((*place, name), value, "an object with a schema for each name")
        if name in _LISTS and not (isinstance(value, list) and value):
            raise _wrong((*place, name), value, "a list of at least one schema")
        if name in ("properties", "patternProperties"):
            yield from (((*place, name, key), part) for key, part in value.items())
        elif name in _LISTS or (name == "items" and isinstance(value, list)):
            yield from (((*place, name, str(at)), part) for at, part in enumerate(value))
        elif name in ("items", "additionalItems", "additionalProperties"):
            yield (*place, name), value


def _target(schema: Any, place: Place, reference: object) -> tuple[Place, Any]:
    at = (*place, "$ref")
    if not isinstance(reference, str) or not re.fullmatch(r"#(/.*)?", reference, re.DOTALL):
        raise _wrong(
            at, reference, "a place in this schema, as in #/$defs/name: nothing is read from files or the network"
        )
    target = tuple(part.replace("~1", "/").replace("~0", "~") for part in unquote(reference[1:]).split("/")[1:])
    node = schema
    for depth, part in enumerate(target):
        inner = dict(zip(map(str, range(len(node))), node, strict=True)) if isinstance(node, list) else node
        if not isinstance(inner, dict) or part not in inner:
            known = list(inner) if isinstance(inner, dict) else []
            there = f"{'.'.join(target[:depth]) or 'the schema'} has no {part!r}.{did_you_mean(part, known)}"
            raise InputError(f"schema: {dotted(at)}: {reference!r} leads nowhere: {there}")
        node = inner[part]
    return target, node


def _check_keyword(place: Place, node: dict[str, Any], name: str, value: Any) -> None:
    at = (*place, name)
    if name in _INSTEAD:
        raise InputError(f"schema: {dotted(place)}: the keyword {name} is not kept.\nNext: {_INSTEAD[name]}.")
    if name not in _KEPT:
        if name in _SAY_NOTHING or (name.startswith("x-") and name != "x-guidance"):
            return
        raise InputError(
            f"schema: {dotted(place)}: no keyword {name!r} is kept.{did_you_mean(name, _KEPT)}\nNext: leave it out; "
            "what is only for people goes into description."
        )
    if name == "type":
        for one in value if isinstance(value, list) and value else [value]:
            if one not in TYPES:
                raise InputError(f"schema: {dotted(at)}: {unknown('type', one, TYPES)}")
    elif name == "enum":
        _require(isinstance(value, list) and bool(value), at, value, "a list of at least one value")
    elif name in _COUNTS:
        _require(type(value) is int and value >= 0, at, value, "a whole number from 0")
    elif name in _NUMBERS:
        draft4 = name.startswith("exclusive") and isinstance(value, bool)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(draft4 or (number and (name != "multipleOf" or value > 0)), at, value, "a number")
    elif name == "required":
        _require(isinstance(value, list) and all(isinstance(one, str) for one in value), at, value, "a list of names")
    elif name == "pattern":
        _require(isinstance(value, str), at, value, "a regular expression as a string")
    elif name == "format" and _may_be(node, "string") and value not in FORMATS:
        binary = "\nNext: str instead of bytes, in a pydantic model." if value in ("binary", "base64", "byte") else ""
        raise InputError(
            f"schema: {dotted(at)}: the format {value!r:.{_SHOWN}} is not kept.{did_you_mean(str(value), FORMATS)} "
            f"Expected one of: {', '.join(FORMATS)}.{binary}"
        )


def _check_together(place: Place, node: dict[str, Any]) -> None:
    """Keywords that are kept alone, but not together; and bounds that exclude each other."""
    least, named = node.get("minProperties", 0), set(node.get("required", ()))
    if least > max(1, len(named)):
        raise InputError(
            f"schema: {dotted(place)}: minProperties {least} is not kept: a name that comes twice would count twice.\n"
            "Next: name the properties in required."
        )
    if "additionalItems" in node and not isinstance(node.get("items"), list):
        raise InputError(
            f"schema: {dotted(place)}: additionalItems is kept only with a list of items.\nNext: items, with "
            "prefixItems."
        )
    if isinstance(node.get("items"), list) and "prefixItems" in node:
        raise InputError(f"schema: {dotted(place)}: prefixItems and a list of items; expected one of them.")
    for low, high in _BOUNDS:
        if low in node and high in node and node[low] > node[high]:
            raise InputError(
                f"schema: {dotted(place)}: {low} ({node[low]}) is greater than {high} ({node[high]}), so that nothing "
                "is of it."
            )


def _check_end(schema: Any, nodes: Mapping[Place, Any]) -> None:
    """Refuse a schema of which only endless JSON is: what has an end grows from what refers to nothing."""
    ending: set[Place] = set()
    grown = True
    while grown:
        more = {place for place in nodes.keys() - ending if _ends(schema, place, nodes[place], ending)}
        ending |= more
        grown = bool(more)
    if () not in ending:
        endless = [place for place in nodes if place not in ending and "$ref" in nodes[place]][-1]
        raise InputError(
            f"schema: {dotted(endless)}: the schema refers to itself without end, so that no whole JSON is of it.\n"
            "Next: let that property be left out or be null, or let a list be empty."
        )


def _ends(schema: Any, place: Place, node: Any, ending: set[Place]) -> bool:
    """Whether some JSON of a schema has an end, given the schemas that are known to have one."""
    if isinstance(node, bool) or "enum" in node or "const" in node:
        return True
    if "$ref" in node and _target(schema, place, node["$ref"])[0] not in ending:
        return False
    if not all((*place, "allOf", str(at)) in ending for at in range(len(node.get("allOf", ())))):
        return False
    for name in ("anyOf", "oneOf"):
        if name in node and not any((*place, name, str(at)) in ending for at in range(len(node[name]))):
            return False
    kinds = node.get("type", "null")
    needed = {"object": _named(place, node), "array": _filled(place, node)}
    return any(set(needed.get(kind, ())) <= ending for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _named(place: Place, node: dict[str, Any]) -> Iterator[Place]:
    """The schemas of what must be in an object."""
    return ((*place, "properties", name) for name in node.get("required", ()) if name in node.get("properties", {}))


def _filled(place: Place, node: dict[str, Any]) -> Iterator[Place]:
    """The schemas of what must be in a list."""
    least, first = node.get("minItems", 0), len(node.get("prefixItems", ()))
    yield from ((*place, "prefixItems", str(at)) for at in range(min(least, first)))
    if least > first and isinstance(node.get("items"), dict):
        yield (*place, "items")


def _may_be(node: dict[str, Any], kind: str) -> bool:
    kinds = node.get("type", kind)
    return kind in (kinds if isinstance(kinds, list) else [kinds])


def _check_data(value: Any, place: Place) -> None:
    """Refuse names that are not text, text that an answer's JSON does not write, and depths that nothing reads."""
    if len(place) > _DEEPEST:
        raise InputError(f"schema: {dotted(place[:3])}...: nested over {_DEEPEST} levels deep, or in itself.")
    if isinstance(value, str) and (found := _UNWRITABLE.search(value)):
        raise InputError(
            f"schema: {dotted(place)}: {value!r:.{_SHOWN}} holds {found[0]!r}: a control character, or half of a "
            "character; expected text."
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"schema: {dotted(place)}: the name {key!r:.{_SHOWN}} is no string.")
            _check_data(key, place)
            _check_data(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            _check_data(inner, (*place, str(at)))


def _require(right: bool, place: Place, value: object, expected: str) -> None:
    if not right:
        raise _wrong(place, value, expected)


def _wrong(place: Place, value: object, expected: str) -> InputError:
    return InputError(f"schema: {dotted(place)}: {value!r:.{_SHOWN}}; expected {expected}.")
