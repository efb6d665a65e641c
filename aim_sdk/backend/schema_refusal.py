"""Why the grammar engine refuses a schema, in words, with the place in the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from aim_sdk.backend.schema_check import dotted, reached
from aim_sdk.errors import InputError

_SAID: Final = (
    (
        "oneOf constraints",
        "oneOf is kept only if its schemas differ in their type or in a constant string.\nNext: anyOf.",
    ),
    ("min/maxProperties", "minProperties and maxProperties are kept only where every property is required."),
    ("does not contain a multiple", "there is no multiple of multipleOf between the bounds."),
    ("invalid multiple", "this multipleOf is not kept.\nNext: one with fewer digits."),
    ("circular references", "a reference to itself stands next to other keywords.\nNext: leave one of them out."),
    ("anyOf is empty", "nothing is of it."),
    ("Regex is empty", "nothing is of it: no text has the pattern, the format and the length at once."),
    ("NoExtension", "nothing is of it."),
    ("TooComplex", "it is too large.\nNext: smaller bounds, or fewer alternatives."),
)
"""What the engine says, and what it means."""
_PATTERNS: Final = ("regex parse error", "look-around", "lookarounds", "backreferences", "in regex")
_LONGEST: Final = 200


def refused_schema(schema: dict[str, Any], refused: Callable[[dict[str, Any]], str], said: str) -> InputError:
    """The error about the innermost part of a schema that is refused.

    Args:
        schema: it is valid, but refused.
        refused: what the engine says about a schema; empty if it admits it.
        said: what it says about the whole.
    """
    inner = json.loads(json.dumps(schema))
    nodes = list(reached(inner))
    for _, node in nodes:
        if isinstance(node, dict) and "$ref" in node:
            node["$ref"] = f"#/$defs/whole{node['$ref'][1:]}"
    for place, node in reversed(nodes):
        pointer = "".join(f"/{quote(part.replace('~', '~0').replace('/', '~1'))}" for part in place)
        alone = {"$defs": {"whole": inner}, "$ref": f"#/$defs/whole{pointer}"}
        if isinstance(node, dict) and (found := refused(alone)):
            return InputError(f"schema: {dotted(place)}: {_in_words(found, node)}")
    return InputError(f"schema: {_in_words(said, schema)}")


def _in_words(said: str, node: dict[str, Any]) -> str:
    """A sentence without the engine's grammar, state and names."""
    if "pattern" in node and any(words in said for words in _PATTERNS):
        reason = said.partition("error: ")[2].splitlines()[:1] or ["part of it is not supported"]
        return (
            f"the pattern {node['pattern']!r:.{_LONGEST}} is not kept: {reason[0]}.\n"
            "Next: a pattern without look-around and back-references."
        )
    for words, meant in _SAID:
        if words in said:
            return meant
    first = said.partition("failed to compile JSON schema: ")[2] or said
    first = " ".join(first.split("\n")[0].removeprefix("Unsatisfiable schema: ").split())
    return f"nothing is of it: {first[:_LONGEST].rstrip('.')}." if "Unsatisfiable" in said else f"{first[:_LONGEST]}."
