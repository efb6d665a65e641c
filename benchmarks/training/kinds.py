"""``python -m benchmarks.training.kinds``: train every kind of projector on the same episodes, at several rates.

The corpus comes from ``python -m benchmarks.pocket.web_corpus``. A result holds each run's probe over its steps (the
divergence to the teacher, new names bound rightly, the loss; next to the start, the teacher and the controls), with its
verdict. A run that is finished is not run again.
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


def main() -> None:
    """Train what is not trained yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="?", type=Path, default=Path(__file__).with_name("kinds-2026-11-29.yaml"))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates; by default each kind's own")
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind in arguments.kinds:
        for rate in arguments.rates or [KINDS[kind].learning_rate]:
            output = TrainingConfig.load(arguments.settings).output / f"{kind}-{rate:g}"
            overrides = [f"projector.kind={kind}", f"output={output}", f"optimizer.learning_rate={rate}"]
            config = TrainingConfig.load(arguments.settings, overrides)
            result = train(config)
            if not result.finished:
                return
            rows.setdefault(kind, []).append(_row(config, result.verdict))
            print(kind, rate, result.verdict, flush=True)
            _write(arguments.settings, rows)


def _row(config: TrainingConfig, verdict: str) -> dict[str, Any]:
    lines = read_log(config.output)
    return {
        "learning_rate": config.optimizer.learning_rate,
        "verdict": verdict,
        "probe": [line for line in lines if "evaluation" in line],
        "training_loss": [line["loss"] for line in lines if "loss" in line],
    }


def _write(settings: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    result = {
        "what": "kinds of projectors on pocket, trained on the same web-style episodes: the probe over the steps",
        **provenance("tokenizers"),
        "settings": settings.name,
        "seeds": 1,
        "kinds": rows,
    }
    path = _RESULTS / f"{settings.stem.rsplit('-', 3)[0]}-pocket-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
