"""Numbers that callers pass."""

from __future__ import annotations

from operator import index

from aim_sdk.errors import InputError


def whole_number(name: str, value: object, least: int) -> int:
    """A whole number of Python's or numpy's.

    Raises:
        InputError: something else (True, 8.0), or too small.
    """
    try:
        number = least - 1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise InputError(f"{name}={value!r}; expected a whole number of at least {least}.")
    return number


def byte_count(count: int) -> str:
    """A number of bytes for people, in powers of 1,000: ``"842 B"``, ``"1.5 MB"``."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 999.5 else f"{size:,.0f} TB"
