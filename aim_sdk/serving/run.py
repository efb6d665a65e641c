"""Listens: the service under uvicorn."""

from __future__ import annotations

import logging
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


def run(pipe: AIMPipeline, settings: ServeSettings, keys: Keys) -> None:
    """Serve until Ctrl-C or SIGTERM; what has begun is answered first.

    Raises:
        InputError: see `check_keys`; or the port is taken.
    """
    check_keys(settings, keys)
    logging.getLogger("aim_sdk.serving").setLevel(logging.INFO)
    config = uvicorn.Config(
        app_of(Service(pipe, settings, keys)),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(config)
    try:
        listening = config.bind_socket()
    except SystemExit as error:  # uvicorn's way to say it; its log has the reason
        raise InputError(
            f"{settings.host}:{settings.port} cannot be listened on. Next: another --port; 0 takes a free one."
        ) from error
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"AIM SDK serves {pipe.backend.name} on http://{shown}:{port}", err=True)
    say("The page is at /, the API at /v1, its reference at /docs. Ctrl-C ends it.", err=True)
    server.run(sockets=[listening])
