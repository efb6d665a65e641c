"""Writes `reference/cli.md` from the commands' own help. `make reference` runs it."""

from pathlib import Path

import typer.main
from typer.cli import get_docs_for_click

from aim_sdk.cli import app

PAGE = Path(__file__).parent / "reference" / "cli.md"

HEAD = """# Command line

<!-- Written by `make reference`; do not edit. -->

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error of the SDK, whose message says what to do next; a failed `backends check` or `bank verify` |
| 2 | a wrong option |
| 3 | `answer`, `analyze`, `bank add`, `bank convert`, `cost`: done, but lines could not be used |
| 130 | interrupted; what was finished is kept |

"""


def page() -> str:
    """The page as the installed commands would have it."""
    command = typer.main.get_command(app)
    with typer.Context(command, info_name="aim-icl") as context:
        text = get_docs_for_click(obj=command, ctx=context, name="aim-icl")
    lines = (line.rstrip() for line in text.splitlines())
    return HEAD + "\n".join(line.replace("# ", "## ", 1) if line.startswith("#") else line for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
