"""Listens: the service under uvicorn."""

from __future__ import annotations

import logging
import socket
import threading
from types import FrameType
from typing import TYPE_CHECKING, Final

import uvicorn

from aim_sdk.errors import InputError
from aim_sdk.serving.app import app_of
from aim_sdk.serving.keys import Keys, check_keys
from aim_sdk.serving.service import Service
from aim_sdk.serving.settings import ServeSettings
from aim_sdk.support.terminal import say

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline

_GRACE: Final = 30
"""Seconds that requests have to end when the service stops."""
_CONNECTIONS: Final = 1024


class _Server(uvicorn.Server):
    """Ends what lasts longer than the grace with an error, so that no answer is cut."""

    service: Service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        later = threading.Timer(_GRACE, self.service.worker.abort)
        later.daemon = True
        later.start()
        super().handle_exit(sig, frame)


def log_to_stderr(level: int) -> None:
    """Write what the service logs, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    made = logging.getLogger("aim_sdk.serving")
    made.addHandler(handler)
    made.setLevel(level)


def run(pipe: AIMPipeline, settings: ServeSettings, keys: Keys) -> None:
    """Serve until Ctrl-C or SIGTERM; what has begun is answered first, for half a minute at most.

    Raises:
        InputError: see `check_keys`; or the port is taken.
    """
    check_keys(settings, keys)
    listening = _listening(settings)
    service = Service(pipe, settings, keys)
    config = uvicorn.Config(
        app_of(service),
        log_level="critical",  # the guard logs what happens
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE + 15,
    )
    server = _Server(config)
    server.service = service
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"AIM SDK serves {pipe.backend.name} on http://{shown}:{port}", err=True)
    say("The page is at /, the API at /v1, its reference at /docs. Ctrl-C ends it.", err=True)
    server.run(sockets=[listening])


def _listening(settings: ServeSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise InputError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}). "
            "Next: another --port; 0 takes a free one."
        ) from error
    return made
