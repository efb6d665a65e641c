"""Records that a stranger wrote, every checksum right: each field replaced by values of every kind."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from typing import Any

from aim_sdk.files import records

Pair = tuple[dict[str, Any], bytes]
"""A record's header and payload."""

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**61, 2**62 - 1, 2**62, 2**63, 2**64, 2**70, 10**400),
    *(0.0, 1.5, float("nan"), float("inf"), -float("inf"), "", " ", "x", "5", "\ud83d", "a\0b", "x" * 5000, "0" * 64),
    *([], [1], ["5"], [2**70, 0], [0, 2], [[[[]]]], {}, {"a": 1}, {"a": {"b": [1]}}, {"id": [1]}, {"\ud83d": 1}),
    *({"a": "\ud83d"}, {"a": float("nan")}, {"a": 2**70}, {"a": None}),
]


def pairs(data: bytes) -> list[Pair]:
    found = list(records.scan(lambda offset, size: data[offset : offset + size], len(data), "here"))
    return [(r.header, data[r.payload : r.end]) for r in found if isinstance(r, records.Record)]


def encoded(given: list[Pair]) -> bytes | None:
    """The bytes of records, the writes among them framed again; None where that is no JSON."""
    try:
        parts = [records._framed(header, payload) for header, payload in given]
        for place, (header, payload) in enumerate(given):
            if "crc32" in header and "bytes" in header and "write" in header and "keep" not in header:
                after = next((n for n in range(place + 1, len(given)) if "write" in given[n][0]), len(given))
                body = b"".join(parts[place + 1 : after])
                parts[place] = records._framed({**header, "bytes": len(body), "crc32": zlib.crc32(body)}, payload)
    except (UnicodeError, ValueError):
        return None
    return b"".join(parts)


def mutations(given: list[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Each field of each record replaced by each value and left out; also what the parts are said to be."""
    for place, (header, payload) in enumerate(given):
        for name in [*header, "more"]:
            for value in VALUES:
                yield f"{place} {name}={ascii(value)[:40]}", swapped(given, place, {**header, name: value}, payload)
            less = {other: value for other, value in header.items() if other != name}
            yield f"{place} without {name}", swapped(given, place, less, payload)
        for part, kind in header["parts"].items():
            near = [str(kind["bytes"]), float(kind["bytes"]), str(kind["crc32"]), [*reversed(kind["shape"])]]
            near += [[str(n) for n in kind["shape"]], [float(n) for n in kind["shape"]], "float64", "bfloat16", "uint8"]
            for name in kind:
                for value in [*VALUES, *near]:
                    changed = copy.deepcopy(header)
                    changed["parts"][part][name] = value
                    yield f"{place} {part}.{name}={ascii(value)[:40]}", swapped(given, place, changed, payload)
        yield f"{place} twice", [*given[: place + 1], *given[place:]]
        yield f"{place} left out", [*given[:place], *given[place + 1 :]]


def swapped(given: list[Pair], place: int, header: dict[str, Any], payload: bytes) -> list[Pair]:
    return [*given[:place], (header, payload), *given[place + 1 :]]
