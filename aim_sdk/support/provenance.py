"""What every result file begins with: when it was measured, on which machine, and with which versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aim_sdk.support.revision import revision


def provenance(*packages: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The date, the commit (None for an installed wheel), the machine and the versions, for people to read.

    Args:
        packages: distributions that the result depends on besides the SDK and torch.
        more: versions of others, by name.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **versions("aim-icl", "torch", *packages), **(more or {})},
    }


def machine() -> dict[str, Any]:
    """Platform, processor and number of cores, for people to read."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions, for people to read."""
    return {name: importlib.metadata.version(name) for name in distributions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
