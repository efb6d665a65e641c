"""Formats of corpora by name: the built-in ones, and those of installed distributions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from aim_sdk.errors import BrokenPluginError, DuplicatePluginError
from aim_sdk.support.plugins import Registry

if TYPE_CHECKING:
    from aim_sdk.training.corpora.formats import Format

AUTO: Final = "auto"
"""Instead of a name: the format is recognised by the first files' content."""

FORMATS: Final = Registry["type[Format]"](
    "corpus format",
    "aim_sdk.corpus_formats",
    {
        "mmc4": "aim_sdk.training.corpora.mmc4:Mmc4",
        "mmc4-tar": "aim_sdk.training.corpora.mmc4:Mmc4Tar",
        "llava": "aim_sdk.training.corpora.llava:Llava",
        "webdataset": "aim_sdk.training.corpora.webdataset:WebDataset",
        "jsonl": "aim_sdk.training.corpora.jsonl:JsonLines",
        "obelics": "aim_sdk.training.corpora.obelics:Obelics",
    },
)
"""Every format by name."""


def usable() -> list[Format]:
    """All formats that can be imported; a warning names those of other distributions that cannot."""
    found = []
    for name in FORMATS:
        try:
            found.append(FORMATS[name]())
        except (BrokenPluginError, DuplicatePluginError) as error:
            warnings.warn(str(error), stacklevel=2)
    return found
