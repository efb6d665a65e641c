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
