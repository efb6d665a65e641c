"""Errors as HTTP answers, in OpenAI's form. What is not foreseen says nothing but a request's number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aim_sdk.errors import (
    AIMError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    BankLockedError,
    CapabilityError,
    ContextLengthError,
    FingerprintError,
    InputError,
    MissingDependencyError,
    UnknownEntryError,
)

_STATUS: Final[tuple[tuple[type[AIMError], HTTPStatus, str], ...]] = (
    (UnknownEntryError, HTTPStatus.NOT_FOUND, "demonstration_not_found"),
    (ContextLengthError, HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
    (InputError, HTTPStatus.BAD_REQUEST, "invalid_request"),
    (CapabilityError, HTTPStatus.BAD_REQUEST, "not_supported"),
    (MissingDependencyError, HTTPStatus.NOT_IMPLEMENTED, "not_installed"),
    (ArtifactNotFoundError, HTTPStatus.NOT_FOUND, "bank_not_found"),
    (FingerprintError, HTTPStatus.CONFLICT, "made_with_another_model"),
    (BankLockedError, HTTPStatus.SERVICE_UNAVAILABLE, "bank_locked"),
    (ArtifactWriteError, HTTPStatus.INSUFFICIENT_STORAGE, "cannot_be_written"),
    (ArtifactError, HTTPStatus.CONFLICT, "damaged"),
)
_PATH: Final = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+([^\s/'\"]+)")
_HERE: Final = re.compile(r"; allow_private=True permits it| `aim-icl bank list` \(bank\.keys\(\)\) lists them\.")
_NEXT: Final = re.compile(
    r"\s*(?:Next: |Or convert it: )[^\n]*(?:`aim-icl|pipe\.|aim_sdk|bank\.|load )[^\n]*"
    r"|[;,] (?:or )?load \w+ with [^\n]*"
)
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


@dataclass(eq=False)
class Refusal(AIMError):
    """A request that is refused for what it is, and not for what it asks of the model."""

    status: HTTPStatus
    code: str
    message: str
    param: str | None = None
    retry_after: int | None = None
    """Seconds."""
    allow: str | None = None
    """Methods that are allowed."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Answer:
    """An error as it is sent."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    code: str


def answer_to(error: BaseException, request: str) -> Answer:
    """How an error is told to a client.

    Args:
        error: what happened.
        request: the request's number, by which the log has the whole of it.
    """
    if isinstance(error, Refusal):
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if error.allow is not None:
            headers["Allow"] = error.allow
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return _answer(error.status, error.code, error.message, error.param, headers)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return _answer(status, code, for_clients(str(error)))
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", f"something failed here; the log has it as {request}."
    )


def for_clients(text: str) -> str:
    """A message without what only helps on this machine: its paths, and advice for Python or for the command line."""
    kept = _NEXT.sub("", _HERE.sub("", text)).replace("max_new_tokens", "max_tokens").strip()
    return _PATH.sub(r"\1", kept)


def _answer(
    status: HTTPStatus, code: str, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Answer(int(status), body, headers or {}, code)
