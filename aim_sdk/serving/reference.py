"""What the reference says of bodies and answers that FastAPI cannot see."""

from __future__ import annotations

from typing import Any, Final

REFERENCE: Final = "#/components/schemas/{model}"
_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}
_USAGE: Final = {
    "type": ["object", "null"],
    "properties": {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
}
_AIM: Final = {
    "type": "object",
    "description": "this service's own: what was shown, and how",
    "properties": {
        "bank": {"type": ["string", "null"]},
        "mode": _TEXT,
        "demonstrations": {"type": "array", "items": _TEXT, "description": "keys, in the order of the prompt"},
        "read": {**_COUNT, "description": "demonstrations that were read for it"},
        "milliseconds": _COUNT,
    },
}
_HEAD: Final = {"id": _TEXT, "object": _TEXT, "created": _COUNT, "model": _TEXT}
_MESSAGE: Final = {"type": "object", "properties": {"role": _TEXT, "content": _TEXT}}
_CHOICE: Final = {"index": _COUNT, "finish_reason": {"enum": ["stop", "length", None]}, "logprobs": {}}


def _answer(name: str) -> dict[str, Any]:
    choice = {"type": "object", "properties": {**_CHOICE, name: _MESSAGE}}
    return {
        "type": "object",
        "properties": {**_HEAD, "choices": {"type": "array", "items": choice}, "usage": _USAGE, "aim": _AIM},
    }


COMPLETION: Final = _answer("message")
CHUNK: Final = _answer("delta")
"""Of one event."""
LINE: Final = {
    "type": "object",
    "properties": {
        "index": _COUNT,
        "status": {"enum": ["added", "here", "refused"]},
        "key": _TEXT,
        "error": {"type": "object"},
    },
}
LINES: Final = {"type": "object", "properties": {"object": _TEXT, "data": {"type": "array", "items": LINE}}}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
        }
    },
}


def described(body: dict[str, Any], answers: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    """What a route takes and gives, by content type."""
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": body}}},
        "responses": {
            "200": {"description": "OK", "content": {kind: {"schema": one} for kind, one in answers.items()}}
        },
    }


def corrected(schema: dict[str, Any]) -> dict[str, Any]:
    """The reference with definitions where references look for them, and with the errors that there are."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    _hoist(schema["paths"], components)
    error = {"description": "An error, in OpenAI's form", "content": {"application/json": {"schema": _ERROR}}}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {"4XX": error, "5XX": error}
    return schema


def _hoist(part: Any, components: dict[str, Any]) -> None:
    if isinstance(part, dict):
        components.update(part.pop("$defs", {}))
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _hoist(inner, components)
