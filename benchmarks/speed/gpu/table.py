"""What a result file says, in lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.speed.gpu.bench import SHOTS

GIB = 2**30


def lines(name: str, shape: Mapping[str, Any]) -> Iterator[str]:
    """One shape's latencies by way and k, and its other parts."""
    parts: Mapping[str, Any] = shape["parts"]
    if "left_out" in shape:
        yield f"{name}: {shape['left_out']}"
        return
    yield f"{name}: {shape['parameters'] / 1e9:.3g} B parameters, {shape['dtype']}, one query to the first token"
    yield f"{'ms, times zero-shot':19}" + "".join(f"{f'k={k}':>12}" for k in SHOTS)
    cells = {
        (cell["way"], k): cell
        for k in SHOTS
        for cell in parts.get(f"latency, k={k}", {}).get("cells", [])
        if cell["shots"] == k
    }
    for way in dict.fromkeys(way for way, _ in cells):
        yield f"{way:19}" + "".join(f"{_cell(cells.get((way, k))):>12}" for k in SHOTS).rstrip()
    for why in dict.fromkeys(f"{way}, k={k}: {c['left_out']}" for (way, k), c in cells.items() if "left_out" in c):
        yield f"  - {why}"
    for part, found in parts.items():
        if "left_out" in found:
            yield f"  - {part}: {found['left_out']}"
    yield from _others(parts)


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    if "left_out" in cell:
        return "-"
    return f"{cell['median_ms']:.0f} {cell['of_zero_shot']['median']:.2f}x"


def _others(parts: Mapping[str, Any]) -> Iterator[str]:
    kv = parts.get("kv bytes", {}).get("per_demonstration")
    if kv:
        sizes = ", ".join(f"{kind} {found['bytes'] / 1e6:.3g} MB" for kind, found in kv.items())
        yield f"keys and values of a demonstration: {sizes}"
    for part in ("reading", "training"):
        if "of_floor" in parts.get(part, {}):
            of_floor, peak = parts[part]["of_floor"], parts[part]["peak_bytes"]
            spread = f"({of_floor['quartile_low']:.2f} to {of_floor['quartile_high']:.2f})"
            yield f"{part}: {of_floor['median']:.2f} {spread} of its floor, peak {peak / GIB:.1f} GiB"
