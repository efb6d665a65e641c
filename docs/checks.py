"""Writes the table of all checks of the conformance kit into `reference/testing.md`. `make reference` runs it.

Nothing of it is written by hand: the docstrings of the checks say what holds and which bugs are caught.
"""

import re
from pathlib import Path

from aim_sdk.testing.kit import CHECKS, HEART, catches

PAGE = Path(__file__).parent / "reference" / "testing.md"
PART = re.compile(r"(?<=<!-- The table is written by `make reference`; do not edit it. -->\n).*?(?=<!-- end -->)", re.S)

HEAD = """
| check | must apply | catches |
|---|---|---|
"""


def page(text: str) -> str:
    """The page with the table as it should be."""
    rows = (f"| `{name}` | {'yes' if name in HEART else ''} | {catches(name)} |\n" for name in CHECKS)
    return PART.sub(lambda _: HEAD + "".join(rows) + "\n", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
