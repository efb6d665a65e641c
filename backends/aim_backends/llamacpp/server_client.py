"""An unmodified llama-server over HTTP: what it says of itself, its slots and its answers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import httpx2
from PIL import Image

from aim_sdk.errors import BackendError, InputError

TIMEOUT: Final = 600.0
"""Seconds that an answer may take."""


class ServerClient:
    """Asks one server.

    Args:
        url: its address, without a path.
        key: its API key, if it wants one.

    Raises:
        BackendError: it does not answer, or answers as no llama-server does.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.url = url.rstrip("/")
        fresh = httpx2.Limits(max_keepalive_connections=0)  # the server ends idle connections after seconds
        self._http = httpx2.Client(base_url=self.url, timeout=TIMEOUT, headers=headers, limits=fresh)
        props, models = self._get("/props"), self._get("/v1/models")
        try:
            self.slots = int(props["total_slots"])
            self.marker = str(props.get("media_marker") or "<__media__>")
            self.sees = bool(props["modalities"]["vision"])
            self.meta: dict[str, Any] = models["data"][0]["meta"]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BackendError(f"{self.url} does not answer as a llama-server does (no {error}).") from error

    def tokens(self, text: str) -> list[int]:
        """Its tokens of a text, special ones too, without BOS."""
        found: list[int] = self._post("/tokenize", {"content": text, "add_special": False, "parse_special": True})[
            "tokens"
        ]
        return found

    def restore(self, slot: int, file: str) -> int:
        """Load a file of its folder of slots; how many positions it holds.

        Raises:
            InputError: it refuses the file.
        """
        found: int = self._post(f"/slots/{slot}?action=restore", {"filename": file})["n_restored"]
        return found

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole answer."""
        return self._post("/completion", body)

    def stream(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """An answer in pieces; the last one has the timings."""
        try:
            with self._http.stream("POST", "/completion", json={**body, "stream": True}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refused("/completion", answer)
                for line in answer.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield json.loads(line.removeprefix("data: "))
        except httpx2.TransportError as error:
            raise self._gone(error) from error

    def _get(self, path: str) -> dict[str, Any]:
        return self._sent("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._sent("POST", path, body)

    def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx2.TransportError as error:
            raise self._gone(error) from error
        if answer.status_code != 200:
            raise self._refused(path, answer)
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise BackendError(f"{self.url}{path} does not answer as a llama-server does (no JSON).") from error
        return found

    def _gone(self, error: Exception) -> BackendError:
        return BackendError(
            f"{self.url}: the server does not answer ({type(error).__name__}: {error}).\n"
            "Next: start llama-server there; what was answered before is kept."
        )

    def _refused(self, path: str, answer: httpx2.Response) -> BackendError | InputError:
        try:
            said = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = answer.text[:200]
        kind = InputError if answer.status_code in (400, 413) else BackendError
        return kind(f"{self.url}{path} refuses ({answer.status_code}): {said}")


def sent(pictures: Sequence[Image.Image]) -> list[str]:
    """Images as the server takes them."""
    made = []
    for picture in pictures:
        picture.save(file := io.BytesIO(), "PNG")
        made.append(base64.b64encode(file.getvalue()).decode())
    return made
