"""Stands before all routes: it bounds bodies, refuses other sites' pages, counts, and turns errors into answers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aim_sdk.serving.refusals import Refusal, answer_to
from aim_sdk.serving.service import Service
from aim_sdk.serving.settings import LOOPBACK_NAMES

log = logging.getLogger("aim_sdk.serving")

_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICY_DOCS: Final = _POLICY.replace(
    "script-src 'self'; style-src 'self'", "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
)
"""The reference page has its script in the page."""


class Guard:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = scope.setdefault("state", {})["request"] = f"req-{secrets.token_hex(8)}"
        began, status = time.monotonic(), 499  # nobody waited for the answer

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                policy = _POLICY_DOCS if scope["path"] == "/docs" else _POLICY
                own = [(b"content-security-policy", policy.encode()), (b"x-request-id", request.encode())]
                message["headers"] = [*message["headers"], *_HEADERS, *own]
            await send(message)

        try:
            self._check_origin(scope)
            await self._app(scope, _Bounded(receive, scope, self._service), sending)
        except ClientDisconnect:
            pass
        except Exception as error:
            if status != 499:
                raise  # the answer has begun; the connection is closed
            await self.refused(error, request)(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.requests.labels(route, _method(scope), str(status)).inc()
            seconds = time.monotonic() - began
            self._service.metrics.seconds.labels(route).observe(seconds)
            log.info("%s %s %s %.3fs %s", _method(scope), route, status, seconds, request)

    def refused(self, error: BaseException, request: str) -> JSONResponse:
        """The answer to a request that failed, which is counted and, if it was not foreseen, logged."""
        answer = answer_to(error, request)
        self._service.metrics.errors.labels(answer.code).inc()
        if answer.status >= 500:
            log.error("%s: %s", request, answer.code, exc_info=error)
        return JSONResponse(answer.body, answer.status, answer.headers)

    def _check_origin(self, scope: Scope) -> None:
        """Refuse what a page of another site sends through somebody's browser.

        Raises:
            Refusal: it is such a request.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host"), headers.get("origin")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "two_lengths", "Content-Length and Transfer-Encoding: send one of them."
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "encoded",
                "Content-Encoding: send the body as it is, not compressed.",
            )
        try:
            name, page = urlsplit(f"//{host or ''}").hostname or "", urlsplit(origin or "").netloc
        except ValueError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "invalid_header", "Host or Origin is not an address.") from error
        settings = self._service.settings
        # browsers always send one; HTTP/1.0 need not
        if host is not None and settings.is_loopback and name not in LOOPBACK_NAMES | settings.hosts | {settings.host}:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "unknown_host",
                f"this service does not know the host name {name[:80]!r}. Its operator can allow it (--host-name).",
            )
        if origin is not None and page != host:
            raise Refusal(HTTPStatus.FORBIDDEN, "other_origin", "pages of other sites may not use this service.")


class _Bounded:
    """A body that may be only so large, and take only so long."""

    def __init__(self, receive: Receive, scope: Scope, service: Service) -> None:
        limits = service.settings.limits
        self._most = limits.export_bytes if scope["path"].endswith("/import") else limits.body_bytes
        self._receive, self._seconds, self._size = receive, limits.body_seconds, 0
        self._until: float | None = time.monotonic() + limits.body_seconds
        if self._most == limits.export_bytes:
            self._until = None  # a large file may take its time
        length = dict(scope["headers"]).get(b"content-length", b"0")
        self._announced = int(length) if length.isdigit() else 0

    async def __call__(self) -> Message:
        if self._announced > self._most:
            raise self._too_large()
        if self._until is None or self._size < 0:
            message = await self._receive()
        else:
            try:
                message = await asyncio.wait_for(self._receive(), max(0, self._until - time.monotonic()))
            except TimeoutError as error:
                raise Refusal(
                    HTTPStatus.REQUEST_TIMEOUT, "too_slow", f"the body was not there after {self._seconds:g} seconds."
                ) from error
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._most:
                raise self._too_large()
            if not message.get("more_body"):
                self._size = -1  # from now on, only the end of the connection comes
        return message

    def _too_large(self) -> Refusal:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"the body is over {self._most:,} bytes.")


def _method(scope: Scope) -> str:
    method: Any = scope["method"]
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"
