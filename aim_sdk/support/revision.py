"""The commit that the SDK runs from, if it runs from a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str | None:
    """The commit, with ``-dirty`` after it if files are changed; None for an installed wheel."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
