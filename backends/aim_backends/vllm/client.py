"""A vLLM server over HTTP, or a load balancer of many: what it says of itself, and its answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import httpx2

from aim_sdk.errors import BackendError, InputError

TIMEOUT: Final = 600.0
"""Seconds that an answer may take."""
PAUSES: Final = (0.5, 2.0, 5.0)
"""Seconds before a request is sent again."""
_CHAT: Final = "/v1/chat/completions"
_AGAIN: Final = "Next: start the server again and repeat the command; what earlier batches answered is kept."
_BUSY: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers of a server that starts again, or of a load balancer that has no free one."""


class VllmClient:
    """Asks one server. Requests may come from any thread.

    Args:
        url: its address, with or without ``/v1`` at the end.
        key: its API key, if it wants one.
        timeout: seconds that an answer may take.

    Raises:
        BackendError: it does not answer, or answers as no vLLM server does.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = TIMEOUT) -> None:
        if not isinstance(url, str):
            raise InputError(f"base_url={url!r}: expected text, such as 'http://127.0.0.1:8000'.")
        if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
            raise InputError("api_key: expected printable ASCII characters, as text (digits in quotes).")
        self.url = url.strip().rstrip("/").removesuffix("/v1")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        transport = httpx2.HTTPTransport(limits=limits, retries=len(PAUSES))  # of connections that fail
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=timeout, headers=headers, transport=transport)
            if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
                raise ValueError("no http:// or https://")
        except (httpx2.InvalidURL, ValueError) as error:
            raise InputError(f"base_url={url!r} is no address ({error}). Expected 'http://127.0.0.1:8000'.") from error
        models, version = self._sent("GET", "/v1/models"), self._sent("GET", "/version")
        try:
            card = models["data"][0]
            self.model, self.root = str(card["id"]), str(card.get("root") or card["id"])
            self.adapters = [str(one["id"]) for one in models["data"] if one.get("parent")]
            self.context_length = int(card["max_model_len"])
            self.version = str(version["version"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BackendError(f"{self.url} does not answer as a vLLM server does (no {error}).") from error

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole answer to a chat request.

        Raises:
            InputError: the server refuses the request.
            BackendError: it does not answer.
        """
        return self._sent("POST", _CHAT, {"model": self.model, **body})

    def stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An answer in pieces, as the server sends them; the errors are those of `complete`."""
        with self._opened("POST", _CHAT, {"model": self.model, **body, "stream": True}) as answer:
            for line in answer.iter_lines():
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise BackendError(f"{self.url}: an answer has failed: {event['error'].get('message')}")
                    yield event
        raise BackendError(f"{self.url} has broken off an answer.\n{_AGAIN}")

    def _sent(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._opened(method, path, body) as answer:
            answer.read()
            try:
                found: dict[str, Any] = answer.json()
            except ValueError as error:
                raise BackendError(f"{self.url}{path} does not answer as a vLLM server does (no JSON).") from error
            return found

    @contextmanager
    def _opened(self, method: str, path: str, body: dict[str, Any] | None) -> Iterator[httpx2.Response]:
        """An answer that is still to be read; a busy server is asked again."""
        for pause in (*PAUSES, None):
            with self._told(), self._http.stream(method, path, json=body) as answer:
                if answer.status_code == HTTPStatus.OK:
                    yield answer
                    return
                answer.read()
            if pause is None or answer.status_code not in _BUSY:
                raise self._refused(path, answer)
            time.sleep(pause)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TimeoutException as error:
            raise BackendError(
                f"{self.url} has not answered in {self._http.timeout.read:g} seconds.\n"
                "Next: timeout=SECONDS, or fewer requests at once."
            ) from error
        except httpx2.TransportError as error:
            raise BackendError(
                f"{self.url}: the server does not answer ({type(error).__name__}: {error}).\n{_AGAIN}"
            ) from error

    def _refused(self, path: str, answer: httpx2.Response) -> BackendError | InputError:
        try:
            said = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = answer.text[:200]
        if answer.status_code in _BUSY:
            said += "\nNext: ask again later, or look at what stands between here and the server."
        if answer.status_code == HTTPStatus.NOT_FOUND or answer.is_redirect:
            said += "\nNext: base_url=<the server's address>, without the path of a request."
        refused = answer.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if refused:
            return InputError(f"the vLLM server refuses ({answer.status_code}): {said}")
        return BackendError(f"{self.url}{path} refuses ({answer.status_code}): {said}")
