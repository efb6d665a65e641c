"""What a service is told when it starts."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pydantic import Field

from aim_sdk.files.settings import Settings

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Limits(Settings):
    """What one request may take. More is refused, before anything is computed for it."""

    body_bytes: int = Field(default=64_000_000, ge=1, description="of a request's body")
    body_seconds: float = Field(default=60, gt=0, description="until a request's body is there")
    answer_seconds: float = Field(default=600, gt=0, description="from a request to its whole answer")
    images: int = Field(default=64, ge=1, description="of one conversation, or in one call that adds")
    max_tokens: int = Field(default=2048, ge=1, description="of one answer")
    page: int = Field(default=200, ge=1, description="demonstrations in one answer that lists them")
    export_bytes: int = Field(default=4_000_000_000, ge=1, description="of an imported bank")


class ServeSettings(Settings):
    """How a service listens, batches and refuses."""

    banks: Path = Field(description="the folder of the banks: each in a folder of its own name")
    host: str = Field(default="127.0.0.1", description="what it listens on")
    port: int = Field(default=8000, ge=0, le=65535)
    batch: int = Field(default=16, ge=1, description="prompts per forward")
    queue: int = Field(default=256, ge=1, description="requests that wait; more are refused with 429")
    image_hosts: frozenset[str] = Field(default=frozenset(), description="hosts that images are downloaded from")
    hosts: frozenset[str] = Field(
        default=frozenset(), description="names by which browsers may reach it, besides those of the loopback"
    )
    published: dict[str, str] = Field(default_factory=dict, description="addresses of published banks, by name")
    refresh: float = Field(default=60, gt=0, description="seconds until a published bank is looked at again")
    limits: Limits = Limits()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host in LOOPBACK_NAMES or ip_address(self.host).is_loopback
        except ValueError:
            return False
