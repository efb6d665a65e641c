"""``python -m benchmarks.training.kinds``: train every kind of projector on the same episodes; compare held-out losses.

The corpus comes from ``python -m benchmarks.pocket.web_corpus --documents 600``. Rows of the result are nats a token on
held-out documents, and the paired difference to text-only demonstrations of the same episodes. A kind that has been
trained is not trained again.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aim_sdk.projectors import KINDS
from aim_sdk.support.provenance import provenance
from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.journal import read_log

_RESULTS: Final = Path(__file__).parents[1] / "results"
_RATES: Final = {"linear": 1e-3, "linear-norm": 1e-3}
"""What starts at random learns faster than what starts from something that works."""


def main() -> None:
    """Train what is not trained yet, and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("settings", nargs="?", type=Path, default=Path(__file__).with_name("kinds-2026-11-25.yaml"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    rows = {}
    for kind in arguments.kinds:
        output = TrainingConfig.load(arguments.settings).output / kind
        overrides = [f"projector.kind={kind}", f"output={output}"]
        if kind in _RATES:
            overrides.append(f"optimizer.learning_rate={_RATES[kind]}")
        config = TrainingConfig.load(arguments.settings, overrides)
        if not train(config).finished:
            return
        rows[kind] = _row(config)
        print(kind, json.dumps(rows[kind]), flush=True)
        _write(arguments.settings, rows)


def _row(config: TrainingConfig) -> dict[str, Any]:
    lines = read_log(config.output)
    evaluated = [line["evaluation"] for line in lines if "evaluation" in line]
    return {
        "learning_rate": config.optimizer.learning_rate,
        "before": evaluated[0],
        "after": evaluated[-1],
        "aim_minus_after": [line["aim_minus"] for line in lines if "aim_minus" in line][-1],
        "training_loss": [line["loss"] for line in lines if "loss" in line],
    }


def _write(settings: Path, rows: dict[str, Any]) -> None:
    result = {
        "what": "kinds of projectors on pocket, trained on the same web-style episodes: held-out loss, nats a token",
        **provenance("tokenizers"),
        "settings": settings.name,
        "seeds": 1,
        "kinds": rows,
    }
    path = _RESULTS / f"{settings.stem.rsplit('-', 3)[0]}-pocket-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
