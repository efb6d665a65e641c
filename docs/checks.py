"""Writes the table of all checks of the conformance kit into `reference/testing.md`. `make reference` runs it.

Nothing of it is written by hand: the docstrings of the checks say which bugs are caught, and the checks state how close
their numbers must be.
"""

import re
from pathlib import Path

from aim_sdk.testing.kit import CHECKS, HEART, catches
from aim_sdk.testing.precision import PRECISION, Limit

PAGE = Path(__file__).parent / "reference" / "testing.md"
PART = re.compile(r"(?<=<!-- The table is written by `make reference`; do not edit it. -->\n).*?(?=<!-- end -->)", re.S)

HEAD = """
| check | must apply | compared | float32 | bfloat16 | float16 | catches |
|---|---|---|---|---|---|---|
"""


def page(text: str) -> str:
    """The page with the table as it should be."""
    return PART.sub(lambda _: HEAD + "".join(map(_row, CHECKS)) + "\n", text)


def _row(name: str) -> str:
    stated = PRECISION.get(name)
    close = ["", *["exact"] * 3]
    if stated is not None:
        close = [stated.compared, *map(_limit, (stated.float32, stated.bfloat16, stated.float16))]
    return f"| {' | '.join((f'`{name}`', 'yes' if name in HEART else '', *close, catches(name)))} |\n"


def _limit(limit: Limit) -> str:
    if isinstance(limit, str):
        return f"not checked: {limit}"
    return f"{limit:g}" if limit else "exact"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
