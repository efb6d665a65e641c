"""`python -m aim_backends.drafting [TYPE_OR_FOLDER ...]`: what changed in transformers, and a draft of each new row.

Without arguments: every image-text-to-text type of the installed transformers that the table lacks, and the names of
those in the table that it has no longer. Rows go to stdout, progress to stderr; the exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing of a draft comes from the hub

import transformers
from transformers.utils import logging

from aim_backends.drafting.drafts import TYPES, draft
from aim_backends.families.table import FAMILIES
from aim_sdk.errors import InputError
from aim_sdk.support.progress import Progress
from aim_sdk.support.terminal import say


def main(arguments: list[str] | None = None) -> int:
    """Print the drafts; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aim_backends.drafting", description=__doc__)
    parser.add_argument("wanted", nargs="*", metavar="TYPE_OR_FOLDER", help="a model_type, or a checkpoint's folder")
    parser.add_argument("--names", action="store_true", help="name the new and the gone types, and draft nothing")
    parser.add_argument("--no-kit", action="store_true", help="measure the row alone; run no checks on it")
    given = parser.parse_args(arguments)
    new = sorted(set(TYPES) - FAMILIES.keys())
    if given.names or not given.wanted:
        say(f"# transformers {transformers.__version__}: {len(TYPES)} image-text-to-text types")
        say(f"# new: {' '.join(new) or 'none'}")
        say(f"# gone: {' '.join(sorted(FAMILIES.keys() - set(TYPES))) or 'none'}")
    return 0 if given.names else _drafted(given.wanted or new, kit=not given.no_kit)


def _drafted(wanted: list[str], *, kit: bool) -> int:
    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    failed = 0
    with Progress("drafts", len(wanted)) as progress:
        for name in wanted:
            progress.state(name)
            try:
                found = draft(name, kit=kit)
            except InputError as error:
                say(f"# {error}")
                failed += 1
            else:
                say(found)
                failed += found.family is None
            progress.advance(1)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
