"""Which commit the SDK runs from, where it runs from a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str | None:
    """The commit, with ``-dirty`` after it where files are changed; None for an installed wheel."""
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
