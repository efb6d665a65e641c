"""How the ways of showing demonstrations are called and drawn in tables and plots."""

from typing import Final

from aim_sdk.types import Mode

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
