"""Parts that installed distributions bring, found by name: backends, projectors, selectors, metrics and so on.

A distribution registers a part as an entry point in the group of its kind:

    [project.entry-points."aim_sdk.backends"]
    my-family = "my_package.backend:MyBackend [extra]"

Listing imports none of them; a broken part raises an error only when it is asked for, and never affects the others.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import entrypoints
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from aim_sdk.errors import (
    AIMError,
    BrokenPluginError,
    DuplicatePluginError,
    InputError,
    MissingDependencyError,
    unknown,
)

Part = TypeVar("Part")

OURS = "aim-icl"
"""The distribution that brings the built-in parts."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of a part without importing it."""

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


class Registry(Mapping[str, Part], Generic[Part]):
    """The parts of one kind by name: built in, or registered by installed distributions.

    ``registry[name]`` imports the part. Iterating and ``in`` import nothing.

    Args:
        what: the kind, for messages: ``"metric"``.
        group: its entry point group.
        built_in: ``{name: "module:Class"}`` of ours, if they are not entry points themselves.
    """

    info: ClassVar[type[PluginInfo]] = PluginInfo
    unknown: ClassVar[type[AIMError]] = InputError
    duplicate: ClassVar[type[DuplicatePluginError]] = DuplicatePluginError
    broken: ClassVar[type[BrokenPluginError]] = BrokenPluginError

    def __init__(self, what: str, group: str, built_in: Mapping[str, str] | None = None) -> None:
        self.what, self.group, self._built_in = what, group, dict(built_in or {})
        self._here: dict[str, Part] = {}

    def infos(self) -> list[PluginInfo]:
        """List the registered parts by name, importing none.

        A name that two distributions register is listed twice, with status ``"duplicate"``.
        """
        ours = [(name, target, OURS, _version(OURS)) for name, target in self._built_in.items()]
        found = sorted([*ours, *_registered(self.group)], key=lambda entry: (entry[0], entry[2]))
        names = Counter(name for name, *_ in found)
        return [
            self.info(name, target, distribution, version, _status(target, distribution, duplicate=names[name] > 1))
            for name, target, distribution, version in found
        ]

    def add(self, name: str, part: Part) -> None:
        """Register a class of the running program by a name; it needs no distribution.

        Raises:
            DuplicatePluginError: another class has that name.
        """
        known = self._built_in.get(name) or (_place(self._here[name]) if name in self._here else None)
        if known not in (None, _place(part)):
            raise self.duplicate(f"{self.what} {name!r} is taken by {known}. Next: choose another name.")
        self._here[name] = part

    def __getitem__(self, name: str) -> Part:
        """Import a part.

        Raises:
            InputError: (or `unknown`) nobody registers that name.
            DuplicatePluginError: two distributions register it.
            MissingDependencyError: a package that it needs is not installed.
            BrokenPluginError: its code fails when it is imported, or it is not a part of that kind.
        """
        return self._here[name] if name in self._here else self._load(self._info(name))

    def require(self, name: str) -> None:
        """Refuse a name that stands for no part, or for two, without importing any.

        Raises:
            InputError: (or `unknown`) nobody registers that name.
            DuplicatePluginError: two distributions register it.
        """
        if name not in self._here:
            self._info(name)

    def _info(self, name: str) -> PluginInfo:
        infos = self.infos()
        matches = [info for info in infos if info.name == name]
        if not matches:
            raise self.unknown(self._unknown(name, infos))
        if len(matches) > 1:
            origins = [f"  {info.origin} ({info.target})" for info in matches]
            raise self.duplicate(
                f"{self.what} {name!r} is registered by {len(matches)} distributions; expected one:\n"
                + "\n".join(origins)
                + f"\nNext: `pip uninstall` one of {' or '.join(info.distribution for info in matches)}."
            )
        return matches[0]

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def check(self, name: str, part: Any) -> str:
        """What is wrong with an imported part, for a message; empty if nothing is."""
        return "" if callable(part) else "expected a class or a function"

    def _names(self) -> dict[str, None]:
        return dict.fromkeys([*self._built_in, *(name for name, *_ in _registered(self.group)), *self._here])

    def _unknown(self, name: str, infos: list[PluginInfo]) -> str:
        return unknown(self.what, name, self._names())

    def _load(self, info: PluginInfo) -> Part:
        what = f"{self.what} {info.name!r} of {info.origin} (target {info.target!r})"
        try:
            entry = entrypoints.EntryPoint.from_string(info.target, info.name)
        except entrypoints.BadEntryPoint as error:
            raise self.broken(f"{what}: not a valid target; expected `module:Class`.") from error
        try:
            part = entry.load()
        except ModuleNotFoundError as error:
            missing = error.name or ""
            # A dotted name is a submodule that an installed package lacks: another version, not a missing package.
            if not missing or "." in missing or missing in (entry.module_name.split(".")[0], "aim_sdk"):
                raise self.broken(f"{what}: its import failed: {error}{_where(error, entry.module_name)}.") from error
            extras = f"[{','.join(entry.extras)}]" if entry.extras else ""
            raise MissingDependencyError(
                f"{what} needs the package {missing!r}, which is not installed{_where(error, entry.module_name)}.\n"
                f'Next: pip install "{info.distribution}{extras}"'
            ) from error
        except MissingDependencyError:
            raise
        except (Exception, SystemExit) as error:
            where = _where(error, entry.module_name)
            raise self.broken(f"{what}: its import failed: {type(error).__name__}: {error}{where}") from error
        if wrong := self.check(info.name, part):
            raise self.broken(f"{what}: {wrong}.")
        found: Part = part
        return found


def _place(part: Any) -> str:
    return f"{part.__module__}:{part.__qualname__}"


def _where(error: BaseException, module: str) -> str:
    """The last line of a part's own package that led to an error: " (at /.../my_package/reader.py:3)"; or nothing."""
    package = module.partition(".")[0]
    own = [
        f" (at {frame.f_code.co_filename}:{line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return own[-1] if own else ""


def _registered(group: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, target, distribution, version); of one distribution's copies the first on the path counts."""
    seen = set()
    path = [entry for entry in sys.path if isinstance(entry, str)]
    for found in importlib.metadata.distributions(path=path):
        text = _entry_points(found, group)
        if text is None or (owner := _owner(found)) in seen:
            continue
        seen.add(owner)
        parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",))
        try:
            parser.read_string(text)
        except configparser.Error as error:
            _warn(found, error)
            continue
        if parser.has_section(group):
            version = found.version or "unknown"
            # raw: a value is never a template
            yield from ((name, target, owner, version) for name, target in parser.items(group, raw=True))


def _entry_points(found: importlib.metadata.Distribution, group: str) -> str | None:
    """A distribution's entry points of the group, if it has any."""
    try:
        text = found.read_text("entry_points.txt")
    except UnicodeDecodeError as error:
        if group.encode() in error.object:
            _warn(found, error)
        return None
    return text if text is not None and group in text else None


def _owner(found: importlib.metadata.Distribution) -> str:
    return canonicalize_name(found.metadata["Name"] or _folder(found).partition("-")[0].removesuffix(".egg"))


def _folder(found: importlib.metadata.Distribution) -> str:
    return str(getattr(found, "_path", found)).rpartition("/")[2]


def _warn(found: importlib.metadata.Distribution, error: Exception) -> None:
    warnings.warn(f"the entry points of {_folder(found)} cannot be listed: {error}", stacklevel=2)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution) or "unknown"  # None if the metadata file is missing
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
