"""``python -m benchmarks.conformance.precision``: how far apart the kit's numbers are in half precision.

Each tiny model runs the kit's checks in bfloat16 and in float16. Of each check the result file keeps the largest
deviation among the comparisons that held, relative to the largest number (or to 1), by dtype, with the model that has
it, and every check that failed, with its message and whether it fails in float32, too. The same command resumes; the
models' weights are drawn from a fixed seed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from aim_backends.families.table import family_of
from aim_sdk import get_backend
from aim_sdk.backend.interfaces import Backend
from aim_sdk.files.atomic import write_atomic
from aim_sdk.support.provenance import provenance
from aim_sdk.testing import CHECKS, compare, run_checks
from aim_sdk.testing.precision import PRECISION
from aim_sdk.testing.tiny import NEEDS, TINY_MODELS, build

_RESULT: Final = Path(__file__).parents[1] / "results" / "conformance-precision-2026-12-01.json"
_DTYPES: Final = ("bfloat16", "float16")
_MESSAGE: Final = 400


class Apart:
    """Keeps how far apart the numbers of each comparison were that held."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self._compare = compare.require_close
        for name, module in list(sys.modules.items()):
            if name.startswith("aim_sdk.testing") and hasattr(module, "require_close"):
                module.require_close = self  # type: ignore[attr-defined]

    def __call__(self, found: Tensor, expected: Tensor, backend: Backend, what: str) -> None:
        self._compare(found, expected, backend, what)
        if found.numel():
            largest = max(1.0, float(expected.abs().max()))
            self.numbers.append(float((found.float() - expected.float()).abs().max()) / largest)

    def of(self, backend: Backend, check: str) -> dict[str, Any]:
        """Run one check."""
        self.numbers.clear()
        (result,) = run_checks(backend, checks=[check])
        found: dict[str, Any] = {"status": result.status, "apart": max(self.numbers, default=None)}
        return found if result.status == "passed" else {**found, "message": result.message[:_MESSAGE]}


def summary(models: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Of each check and dtype: how many models passed, the largest deviation and whose it is, and the failures."""
    found: dict[str, Any] = {}
    for check in CHECKS:
        for dtype in _DTYPES:
            rows = {name: of[dtype][check] for name, of in models.items() if check in of.get(dtype, {})}
            apart = {name: row["apart"] for name, row in rows.items() if row["apart"] is not None}
            most = max(apart, key=apart.__getitem__, default=None)
            failed = {
                name: {"in float32": models[name]["float32"][check]["status"], "message": row["message"]}
                for name, row in rows.items()
                if row["status"] == "failed"
            }
            found.setdefault(check, {})[dtype] = {
                "n": len(rows),
                "passed": sum(row["status"] == "passed" for row in rows.values()),
                "stated": getattr(PRECISION.get(check), dtype, 0),
                "largest": most and {"apart": apart[most], "model": most},
                "failed": failed,
            }
    return found


def measure(found: dict[str, dict[str, Any]], checks: Iterable[str], folder: Path, apart: Apart) -> None:
    """Add what one model is not yet asked: in both dtypes, and what fails there in float32, too."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    for dtype in (*_DTYPES, "float32"):
        failed = {check for half in _DTYPES for check, row in found.get(half, {}).items() if row["status"] == "failed"}
        asked = set(checks if dtype in _DTYPES else failed) - found.setdefault(dtype, {}).keys()
        if asked:
            backend = get_backend(family_of(kind).backend).from_pretrained(str(folder), device="cpu", dtype=dtype)
            found[dtype].update({check: apart.of(backend, check) for check in CHECKS if check in asked})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(TINY_MODELS), help="tiny models; without it all")
    parser.add_argument("--checks", nargs="*", default=list(CHECKS), help="checks of the kit; without it all")
    parser.add_argument("--out", type=Path, default=_RESULT)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    models = json.loads(options.out.read_text())["models"] if options.out.exists() else {}
    apart = Apart()
    for name in options.models:
        known = all(set(options.checks) <= models.get(name, {}).get(dtype, {}).keys() for dtype in _DTYPES)
        if known or (name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None):
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(models.setdefault(name, {}), options.checks, build(name, Path(folder) / name), apart)
        content = {
            **provenance("transformers"),
            "command": "python -m benchmarks.conformance.precision",
            "n": len(models),
            "checks": summary(models),
            "models": models,
        }
        write_atomic(options.out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
