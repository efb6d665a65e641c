"""What no page of the web-style corpus may show or say, because the few-shot trials ask it.

Held-out concepts (their names, also within a longer one), the held-out style, held-out label words, and the colours and
shapes of easy-VQA.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.catalog import load_catalog
from benchmarks.pocket.sources import HELD_OUT_STYLE
from benchmarks.pocket.words import COLOURS, SHAPES, Words


class Withheld:
    """Finds in texts and file names what is kept for the trials."""

    def __init__(self) -> None:
        words = Words(PocketModel.load_base())
        self._training, self._words = words.training, {*words.held_out, *COLOURS, *SHAPES}
        names = {concept.name for concept in load_catalog() if concept.held_out}
        self._names = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})\b")
        self._files = {name.replace(" ", "-") for name in names}

    def in_text(self, text: str) -> list[str]:
        """Return the label words, colours, shapes and held-out names that a text holds."""
        plain = text.lower()
        return [word for word in re.findall("[a-z]+", plain) if word in self._words] + self._names.findall(plain)

    def other_words(self) -> list[str]:
        """Return the training label words that are none of these."""
        return [word for word in self._training if not self.in_text(word)]

    def in_image(self, name: str) -> bool:
        """Whether a page's image, ``style-name.png``, is of the held-out style or of a held-out concept."""
        return name.startswith(HELD_OUT_STYLE) or any(name.endswith(f"-{file}.png") for file in self._files)


def check(folder: Path) -> int:
    """Look at every text and image name of a corpus; return the number of pages.

    Raises:
        RuntimeError: a page holds something that the trials ask.
    """
    withheld, pages = Withheld(), 0
    for shard in sorted(folder.glob("docs_shard_*.jsonl")):
        for line in shard.read_text(encoding="utf-8").splitlines():
            page, pages = json.loads(line), pages + 1
            for text in page["text_list"]:
                if found := withheld.in_text(text):
                    raise RuntimeError(f"{shard.name}: {text!r} holds {', '.join(found)}, which the trials ask.")
            for image in page["image_info"]:
                if withheld.in_image(image["image_name"]):
                    raise RuntimeError(f"{shard.name}: the image {image['image_name']} is kept for the trials.")
    return pages
