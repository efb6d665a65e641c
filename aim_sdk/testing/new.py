"""Writes a new backend's distribution: the complete example under another name."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import keyword
import re
import tempfile
from pathlib import Path

from aim_sdk.backend.registry import list_backends
from aim_sdk.errors import InputError

SKELETON = Path(__file__).parent / "skeleton"
"""The example distribution ``aim-echo``, as it is tested."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LEFT_OUT = ("__pycache__", ".pytest_cache", ".hypothesis", "build", "dist")


def new_backend(name: str, parent: Path) -> Path:
    """Write ``parent/aim-<name>`` and return it; ``parent`` is created if missing.

    Raises:
        InputError: the name is not a lower-case name, is taken by a backend or a package, or the folder exists.
    """
    _check_name(name)
    folder = parent / f"aim-{name}"
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another name, or another folder with --out.")
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{parent}: a file is where the folder should be.") from error
    with tempfile.TemporaryDirectory(dir=parent, prefix=".aim-new-") as temporary:
        made = Path(temporary) / folder.name
        for source in sorted(SKELETON.rglob("*")):
            path = source.relative_to(SKELETON)
            if source.is_file() and not set(path.parts) & set(_LEFT_OUT) and not any(".egg" in p for p in path.parts):
                target = made / _renamed(str(path), name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        made.rename(folder)
    return folder


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"backend name {name!r}: expected lower-case letters, digits and single dashes, as in 'my-vlm'."
        )
    if name.startswith("aim-"):
        rest = name.removeprefix("aim-")
        raise InputError(f"backend name {name!r}: the distribution is called aim-NAME; expected {rest!r} alone.")
    if taken := [info.origin for info in list_backends() if info.name == name]:
        raise InputError(f"backend name {name!r} is taken by {taken[0]}; two with the same name could not be loaded.")
    module = name.replace("-", "_")
    if keyword.iskeyword(module):
        raise InputError(f"backend name {name!r} is a Python keyword; choose another, such as 'my-{name}'.")
    for package in (module, f"aim_{module}"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:  # None: a folder that happens to be there
            raise InputError(f"backend name {name!r}: the package {package!r} is installed; choose another name.")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(f"aim-{name}")
        raise InputError(f"backend name {name!r}: the distribution aim-{name} {version} is installed; choose another.")


def _renamed(text: str, name: str) -> str:
    words = name.split("-")
    text = text.replace("aim_echo", f"aim_{'_'.join(words)}").replace("Echo", "".join(map(str.capitalize, words)))
    return text.replace("echo", name)
