"""Every row of the families' table, drafted as if its type were new: how many can be, and how many are right?

``python -m benchmarks.families.drafts`` writes ``benchmarks/results/families-drafts-<date>.json``.

The adapter of a family that has one is used: a draft measures, it writes no code. The kit is not run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aim_backends.drafting.checkpoint import DraftError
from aim_backends.drafting.drafts import MEASURED, TYPES, draft, refusal
from aim_backends.families.table import FAMILIES
from aim_sdk.files.atomic import write_atomic
from aim_sdk.support.provenance import provenance

RESULT = Path(__file__).parents[1] / "results" / f"families-drafts-{datetime.date.today()}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="these alone; nothing is written")
    wanted = parser.parse_args().types
    found = {kind: _of(kind) for kind in wanted or TYPES}
    served = {kind: one for kind, one in found.items() if not FAMILIES[kind].refused}
    refused = {kind: one for kind, one in found.items() if FAMILIES[kind].refused}
    content = {
        **provenance("transformers"),
        "command": "python -m benchmarks.families.drafts",
        "types": len(found),
        "served": len(served),
        "served_outcomes": Counter(one["outcome"] for one in served.values()),
        "refused": len(refused),
        "refused_outcomes": Counter(one["outcome"] for one in refused.values()),
        "each": found,
    }
    text = json.dumps(content, indent=1) + "\n"
    print(text)
    if not wanted:
        write_atomic(RESULT, text.encode())


def _of(kind: str) -> dict[str, Any]:
    """The outcome of one type, in words, with its row."""
    started = time.perf_counter()
    outcome = _refusal(kind) if FAMILIES[kind].refused else _row(kind)
    print(f"{kind}: {outcome['outcome']}", flush=True)
    return {**outcome, "seconds": round(time.perf_counter() - started, 1)}


def _row(kind: str) -> dict[str, Any]:
    found = draft(kind, kit=False)
    if found.family is None:
        built = found.failed in MEASURED
        return {"outcome": "built, not measured" if built else "not built", "draft": str(found)}
    return {"outcome": "the table's row" if found.family == FAMILIES[kind] else "another row", "draft": str(found)}


def _refusal(kind: str) -> dict[str, Any]:
    try:
        reason = refusal(kind)
    except DraftError as error:
        return {"outcome": "no default configuration", "draft": str(error)}
    same = reason == FAMILIES[kind].refused
    return {"outcome": "the table's row" if same else "refused" if reason else "not refused", "draft": reason}


if __name__ == "__main__":
    main()
