"""The modes of showing demonstrations: what each does, its display name and its colour."""

from typing import Final

from aim_sdk.types import MODES, Mode

BASIC: Final[tuple[Mode, ...]] = ("zero-shot", "text-only", "interleaved", "aim", "nearest")
"""All but the control: the rows of a table where no others are named."""
READ: Final[frozenset[Mode]] = frozenset({"aim", "nearest"})
"""The demonstrations are read, with their images, and kept in a bank."""
SEEN: Final[frozenset[Mode]] = READ | {"interleaved"}
"""The demonstrations' images are used."""
PROMPTED: Final[frozenset[Mode]] = frozenset(MODES) - {"nearest"}
"""The LLM answers a prompt."""

LABELS: Final[dict[Mode, str]] = {
    "zero-shot": "zero-shot",
    "text-only": "text-only demonstrations",
    "interleaved": "interleaved images",
    "aim": "AIM",
    "no-image": "AIM without images (control)",
    "nearest": "nearest neighbours (no LM call)",
}
"""In the order of the rows."""

COLOURS: Final[dict[Mode, str]] = {
    "zero-shot": "black",
    "text-only": "tab:gray",
    "interleaved": "tab:orange",
    "aim": "tab:blue",
    "no-image": "tab:cyan",
    "nearest": "tab:green",
}
