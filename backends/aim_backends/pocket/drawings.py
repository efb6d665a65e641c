"""The drawings that ship for the demo: concepts that the backbone and its projector never saw in training.

Every concept has one drawing in a style that was never trained on (`QUERY_STYLE`) and two in other styles, for
demonstrations. Sources and licences are in ``data/demo/ATTRIBUTION.md``.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError

QUERY_STYLE: Final = "emojione"
_FOLDER: Final = Path(__file__).parent / "data" / "demo"


@dataclass(frozen=True)
class Drawing:
    """One drawing of a concept."""

    concept: str
    category: str
    style: str
    path: Path


def load_drawings() -> list[Drawing]:
    """List all drawings, by concept; the one in the query style comes first."""
    return [
        Drawing(entry["concept"], entry["category"], entry["style"], _FOLDER / entry["file"])
        for entry in _contents()["drawings"]
    ]


def load_label_words() -> list[str]:
    """List single-token words that never were a label or a content in training."""
    words: list[str] = _contents()["label_words"]
    return list(words)


@cache
def _contents() -> dict[str, Any]:
    path = _FOLDER / "demo.json"
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"{path.name} is missing from the installed backend 'pocket'.") from error
    except ValueError as error:
        raise CorruptArtifactError(f"{path.name} is cut or malformed: {error}") from error
    return contents
