"""Finds, lists and loads backends, which distributions register as entry points of the group `aim_sdk.backends`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.errors import BrokenBackendError, DuplicateBackendError, UnknownBackendError, did_you_mean
from aim_sdk.support.plugins import PluginInfo, Registry

if TYPE_CHECKING:
    from aim_sdk.backend.interfaces import Backend


class BackendInfo(PluginInfo):
    """What is known about a backend without importing it."""


class _Backends(Registry["type[Backend]"]):
    info = BackendInfo
    unknown, duplicate, broken = UnknownBackendError, DuplicateBackendError, BrokenBackendError

    def check(self, name: str, part: Any) -> str:
        from aim_sdk.backend.interfaces import Backend  # imports torch, which listing backends must not do

        if not (isinstance(part, type) and issubclass(part, Backend)):
            return f"{part!r} is not a backend; expected a subclass of aim_sdk.Backend"
        if inspect.isabstract(part):
            return f"{part.__name__} does not implement {', '.join(sorted(part.__abstractmethods__))}"
        return ""

    def _unknown(self, name: str, infos: list[PluginInfo]) -> str:
        if not infos:
            return (
                f"no backend named {name!r}: no installed distribution registers any.\n"
                "Next: install aim-icl itself (in a clone: python -m pip install -e .); its folder alone registers "
                "none."
            )
        installed = ", ".join(f"{info.name} ({info.origin})" for info in infos)
        return (
            f"no backend named {name!r}.{did_you_mean(name, [info.name for info in infos])}\n"
            f"Installed: {installed}.\n"
            "Next: `aim-icl backends list`, or install the distribution that registers it."
        )


BACKENDS: Final = _Backends("backend", "aim_sdk.backends")
"""Every installed backend by name."""


def list_backends() -> list[PluginInfo]:
    """List the registered backends by name, importing none of them.

    A name that two distributions register is listed twice, with status ``"duplicate"``.
    """
    return BACKENDS.infos()


def version_of(name: str) -> dict[str, str]:
    """The version of the distribution that registers a backend, by its name; none if it is registered by nobody."""
    return {info.distribution: info.version for info in list_backends() if info.name == name}


def get_backend(name: str) -> type[Backend]:
    """Import the backend that is registered as ``name``.

    Raises:
        UnknownBackendError: no installed distribution registers that name.
        DuplicateBackendError: two distributions register it.
        MissingDependencyError: a package that it needs is not installed.
        BrokenBackendError: its code fails when it is imported, or the target is not a backend.
    """
    return BACKENDS[name]
