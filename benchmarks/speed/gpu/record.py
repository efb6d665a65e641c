"""The result file: it is written after each part, and what it holds is not measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aim_sdk.errors import InputError
from aim_sdk.support.provenance import provenance
from benchmarks.speed.measure import write_result

PACKAGES = ("transformers", "accelerate", "pillow")


class Record:
    """One card's results.

    Args:
        path: the file; it is made with the first part.
        device: the card's name.
        small: whether the tests' sizes are measured.

    Raises:
        InputError: the file holds something else, or another card's results.
    """

    def __init__(self, path: Path, *, device: str, small: bool) -> None:
        self.path, self._settings = path, {"device": device, "small": small}
        self.shapes: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        try:
            kept = json.loads(path.read_bytes())
            self.shapes = dict(kept["shapes"])
            theirs = {name: kept[name] for name in self._settings}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(
                f"{path} holds no results of this script ({type(error).__name__}: {error}).\n"
                "Next: name another file (--output FILE), or delete this one."
            ) from error
        if theirs != self._settings:
            raise InputError(
                f"{path} holds results of {theirs}, not of {self._settings}.\n"
                "Next: name another file (--output FILE), or delete this one."
            )

    def parts(self, shape: str) -> dict[str, Any]:
        """What was measured of a shape."""
        found: dict[str, Any] = self.shapes.get(shape, {}).get("parts", {})
        return found

    def describe(self, shape: str, about: Mapping[str, Any]) -> None:
        """Note a shape's sizes, or why it was not measured."""
        self.shapes[shape] = {**about, "parts": self.parts(shape)}
        self._write()

    def add(self, shape: str, part: str, found: Mapping[str, Any]) -> None:
        """Keep a part, with the versions that it was measured with: the next one may be measured another day."""
        head = provenance(*PACKAGES)
        measured = {name: head[name] for name in ("date", "revision", "versions")}
        self.shapes[shape]["parts"][part] = {**found, "measured": measured}
        self._write()

    def _write(self) -> None:
        write_result("gpu", {**self._settings, "shapes": self.shapes}, packages=PACKAGES, path=self.path)


def device_name(device: torch.device) -> str:
    """The card's name, for people to read."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
