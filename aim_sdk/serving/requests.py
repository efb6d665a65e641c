"""Reading requests: who asks, and bodies of a bounded size that must come in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from aim_sdk.errors import InputError
from aim_sdk.files.json_lines import parse_object
from aim_sdk.serving.keys import Caller
from aim_sdk.serving.refusals import Refusal
from aim_sdk.serving.service import Service

_BEARER = HTTPBearer(auto_error=False, description="An API key, if the service was started with keys.")


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    found: Service = request.app.state.service
    return found


async def _caller_of(request: Request, _: Annotated[object, Depends(_BEARER)]) -> AsyncIterator[Caller]:
    caller = service_of(request).keys.caller(request.headers.get("authorization"))
    with caller.asking():
        yield caller


TheService: TypeAlias = Annotated[Service, Depends(service_of)]
TheCaller: TypeAlias = Annotated[Caller, Depends(_caller_of)]


async def json_body(request: Request) -> dict[str, Any]:
    """The object that a request's body holds.

    Raises:
        Refusal: it says that it is something else than JSON.
        InputError: it is no JSON object.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json", f"content type {kind[:80]!r}; expected application/json."
        )
    try:
        return parse_object(await request.body(), service_of(request).settings.limits.body_bytes)
    except InputError as error:
        raise InputError(f"the body is not a JSON object: {error}") from error
