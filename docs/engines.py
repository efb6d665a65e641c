"""Writes the table of what each engine can into `explanation/engines.md`. `make reference` runs it.

Nothing of it is written by hand: a backend's class has a capability if it has its members.
"""

import re
from pathlib import Path

from aim_sdk.backend.capabilities import CAPABILITIES
from aim_sdk.backend.registry import get_backend

PAGE = Path(__file__).parent / "explanation" / "engines.md"
PART = re.compile(r"(?<=<!-- The table is written by `make reference`; do not edit it. -->\n).*?(?=<!-- end -->)", re.S)
ENGINES = {
    "transformers": "auto",
    "pocket": "pocket",
    "llama.cpp": "llama.cpp",
    "llama-server": "llama-server",
    "vLLM": "vllm",
}
"""Each engine's backend."""


def page(text: str) -> str:
    """The page with the table as it should be."""
    kinds = [get_backend(name) for name in ENGINES.values()]
    head = f"\n| a backend | {' | '.join(ENGINES)} |\n|---|{'---|' * len(kinds)}\n"
    rows = (
        f"| {row.does} (`{row.name}`) | {' | '.join('yes' if row.of(kind) else '' for kind in kinds)} |\n"
        for row in CAPABILITIES
    )
    return PART.sub(lambda _: head + "".join(rows) + "\n", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
