"""The service as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import aim_sdk
from aim_sdk.errors import AIMError, InputError, said
from aim_sdk.serving.guard import Guard
from aim_sdk.serving.reference import corrected
from aim_sdk.serving.refusals import Refusal
from aim_sdk.serving.routes import adding, banks, chat, demonstrations, health
from aim_sdk.serving.service import Service

PAGE: Final = Path(__file__).parent / "page"

_ABOUT: Final = """Few-shot over OpenAI's chat API: pairs of turns are demonstrations, banks keep them, and any backbone
that reads one image answers after many."""


def app_of(service: Service) -> FastAPI:
    """The application of a service; its end is the service's end."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPIOffline(
        title="AIM SDK", version=aim_sdk.__version__, description=_ABOUT, lifespan=life, redoc_url=None
    )
    app.state.service = service
    for part in (chat, banks, adding, demonstrations, health):
        app.include_router(part.router)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")

    own = app.openapi
    app.openapi = lambda: app.openapi_schema or corrected(own())  # type: ignore[method-assign]

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    guard = Guard(app, service)

    async def refused(request: Request, error: Exception) -> Response:
        return guard.refused(_foreseen(error, app), request.state.request)

    for kind in (AIMError, Refusal, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refused)
    app.add_middleware(Guard, service=service)
    return app


def _foreseen(error: Exception, app: FastAPI) -> Exception:
    """FastAPI's own errors as ours."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        return InputError(f"{place}: {said({**first, 'input': first.get('input')})}." if place else f"{first['msg']}.")
    if isinstance(error.__cause__, Refusal):  # while FastAPI read the body
        return error.__cause__
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        if status == HTTPStatus.NOT_FOUND:
            return Refusal(status, "no_such_address", "nothing is at this address; /docs lists what is there.")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "others")
            return Refusal(status, "method_not_allowed", f"this address takes {allowed}.", allow=allowed)
        return Refusal(status, status.name.lower(), f"{error.detail}")
    return error
