"""``/health``, ``/ready`` and ``/metrics``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from aim_sdk.serving.requests import TheCaller, TheService

router = APIRouter(tags=["health"])


@router.api_route("/health", methods=["GET", "HEAD"])
async def health() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.api_route("/ready", methods=["GET", "HEAD"])
async def ready(service: TheService, response: Response) -> dict[str, str]:
    """Whether requests are answered: 503 while it stops."""
    if service.worker.alive:
        return {"status": "ready"}
    response.status_code = 503
    return {"status": "stopping"}


@router.get("/v1/key")
async def key(caller: TheCaller) -> dict[str, Any]:
    """Who asks, and what they may: `ask`, `write`."""
    return {"name": caller.name, "may": list(caller.may)}


@router.get("/metrics", response_class=Response)
async def metrics(service: TheService, caller: TheCaller) -> Response:
    """What was counted, for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
