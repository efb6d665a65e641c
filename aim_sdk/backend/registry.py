"""Finds, lists and loads backends; the only module that knows how they are found.

A distribution registers a backend as an entry point whose value is a [`Backend`][aim_sdk.Backend] subclass:

    [project.entry-points."aim_sdk.backends"]
    my-family = "my_package.backend:MyBackend [extra]"

Listing imports nothing of a backend; a broken one is raised only when it is asked for, and never hurts the others.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import entrypoints
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from aim_sdk.errors import (
    BrokenBackendError,
    DuplicateBackendError,
    MissingDependencyError,
    UnknownBackendError,
    did_you_mean,
)

if TYPE_CHECKING:
    from aim_sdk.backend.interfaces import Backend

GROUP = "aim_sdk.backends"
"""The entry point group in which backends are registered."""

_UNREADABLE = (configparser.Error, UnicodeError)


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What is known of a backend without importing it."""

    name: str
    target: str
    """``module:Class``, with the extras it needs in brackets, as it is registered."""
    distribution: str
    version: str
    status: str
    """``"ready"``, ``"missing <packages>"``, ``"duplicate"`` or ``"invalid target"``."""

    @property
    def origin(self) -> str:
        """The distribution with its version, for messages."""
        return f"{self.distribution} {self.version}"


def list_backends() -> list[BackendInfo]:
    """List the registered backends by name, importing none of them.

    A name that two distributions register is listed twice, with status ``"duplicate"``.
    """
    found = sorted(_registered(), key=lambda entry: (entry[0], entry[2]))
    names = Counter(name for name, *_ in found)
    return [
        BackendInfo(name, target, distribution, version, _status(target, distribution, duplicate=names[name] > 1))
        for name, target, distribution, version in found
    ]


def get_backend(name: str) -> type[Backend]:
    """Import the backend that is registered as ``name``.

    Raises:
        UnknownBackendError: no installed distribution registers that name.
        DuplicateBackendError: two distributions register it.
        MissingDependencyError: a package that it needs is not installed.
        BrokenBackendError: its code fails when it is imported, or the target is not a backend.
    """
    backends = list_backends()
    matches = [info for info in backends if info.name == name]
    if not matches:
        raise UnknownBackendError(_unknown(name, backends))
    if len(matches) > 1:
        origins = [f"  {info.origin} ({info.target})" for info in matches]
        raise DuplicateBackendError(
            f"backend {name!r} is registered by {len(matches)} distributions; expected one:\n"
            + "\n".join(origins)
            + f"\nNext: `pip uninstall` one of {' or '.join(info.distribution for info in matches)}."
        )
    return _load(matches[0])


def _load(info: BackendInfo) -> type[Backend]:
    from aim_sdk.backend.interfaces import Backend

    what = f"backend {info.name!r} of {info.origin} (target {info.target!r})"
    try:
        entry = entrypoints.EntryPoint.from_string(info.target, info.name)
    except entrypoints.BadEntryPoint as error:
        raise BrokenBackendError(f"{what}: not a valid target; expected `module:Class`.") from error
    try:
        target = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        # A dotted name is a submodule that an installed package lacks: another version, not a missing package.
        if not missing or "." in missing or missing in (entry.module_name.split(".")[0], "aim_sdk"):
            raise BrokenBackendError(f"{what}: its import failed: {error}.") from error
        extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
        raise MissingDependencyError(
            f"{what} needs the package {missing!r}, which is not installed.\n"
            f'Next: pip install "{info.distribution}{extras}"'
        ) from error
    except (Exception, SystemExit) as error:
        raise BrokenBackendError(f"{what}: its import failed: {type(error).__name__}: {error}") from error
    if not (isinstance(target, type) and issubclass(target, Backend)):
        raise BrokenBackendError(f"{what}: {target!r} is not a backend; expected a subclass of aim_sdk.Backend.")
    if inspect.isabstract(target):
        methods = ", ".join(sorted(target.__abstractmethods__))
        raise BrokenBackendError(f"{what}: {target.__name__} does not implement {methods}.")
    return target


def _unknown(name: str, backends: list[BackendInfo]) -> str:
    if not backends:
        return (
            f"no backend named {name!r}: no installed distribution registers any.\n"
            "Next: install aim-icl itself (in a clone: python -m pip install -e .), whose folder alone registers none."
        )
    installed = ", ".join(f"{info.name} ({info.origin})" for info in backends)
    return (
        f"no backend named {name!r}.{did_you_mean(name, [info.name for info in backends])}\n"
        f"Installed: {installed}.\n"
        "Next: `aim-icl backends list`, or install the distribution that registers it."
    )


def _registered() -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, target, distribution, version); of one distribution's copies the first on the path counts."""
    seen = set()
    for folder in filter(lambda entry: isinstance(entry, str), sys.path):
        for parser, distribution in _entry_point_files(folder):
            owner = canonicalize_name(distribution.name)
            if owner in seen:
                continue
            seen.add(owner)
            if parser.has_section(GROUP):
                version = distribution.version or _version(owner)
                # raw: a value is never a template
                yield from ((name, target, owner, version) for name, target in parser.items(GROUP, raw=True))


def _entry_point_files(folder: str) -> list[tuple[configparser.ConfigParser, entrypoints.Distribution]]:
    try:
        return list(entrypoints.iter_files_distros(path=[folder]))
    except _UNREADABLE:
        return list(_readable_files(folder))


def _readable_files(folder: str) -> Iterator[tuple[configparser.ConfigParser, entrypoints.Distribution]]:
    """One malformed file must not hide the other distributions of its folder."""
    for info in sorted(Path(folder).glob("*.*-info")):
        parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
        try:
            parser.read(info / "entry_points.txt")
        except _UNREADABLE as error:
            if GROUP.encode() in (info / "entry_points.txt").read_bytes():
                warnings.warn(f"the backends of {info.name} cannot be listed: {error}", stacklevel=2)
        else:
            yield parser, entrypoints.Distribution.from_name_version(info.stem)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution) or "unknown"  # None where the metadata file is missing
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _status(target: str, distribution: str, *, duplicate: bool) -> str:
    if duplicate:
        return "duplicate"
    try:
        entry = entrypoints.EntryPoint.from_string(target, "")
    except entrypoints.BadEntryPoint:
        return "invalid target"
    if entry.object_name is None:
        return "invalid target"
    missing = sorted({package for extra in entry.extras or () for package in _missing(distribution, extra)})
    return f"missing {', '.join(missing)}" if missing else "ready"


def _missing(distribution: str, extra: str) -> Iterator[str]:
    """Yield the requirements of an extra that are not installed."""
    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": extra}) or marker.evaluate({"extra": ""}):
            continue
        try:
            importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield requirement.name
