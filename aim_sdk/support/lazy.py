"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a package.

    Args:
        package: its name.
        homes: ``{module: names}``, modules as they are called inside the package, or with a leading dot as they are
            called inside the SDK.
    """
    root = package.partition(".")[0]
    home = {
        name: f"{root if module.startswith('.') else package + '.'}{module}"
        for module, names in homes.items()
        for name in names
    }

    def getattr_(name: str) -> object:
        if name not in home:
            from aim_sdk.errors import did_you_mean

            raise AttributeError(f"module {package!r} has no attribute {name!r}.{did_you_mean(name, home)}")
        value = getattr(import_module(home[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattr_
