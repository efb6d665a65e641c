"""``python -m benchmarks.training.compare FILE``: train the same episodes in several ways, and compare the probes.

FILE names the settings that all runs share, and what differs in each run. The corpus comes from
``python -m benchmarks.pocket.web_corpus``. A result holds each run's probe over its steps (the divergence to the
teacher, new names bound rightly, the loss; next to the start, the teacher and the controls) with its verdict. A run
that is finished is not run again, and one that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.projectors import Projector
from aim_sdk.support.provenance import provenance
from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.journal import read_log

_RESULTS: Final = Path(__file__).parents[1] / "results"


class Comparison(Settings):
    """Runs of training that differ in some settings."""

    what: str = Field(description="the question that the runs answer")
    settings: Path = Field(description="a training file, relative to this one: what all runs share")
    output: Path = Field(description="the folder of the runs")
    runs: dict[str, tuple[str, ...]] = Field(description="overrides by the run's name, as `aim-icl train` takes them")

    def config(self, name: str, folder: Path) -> TrainingConfig:
        """The settings of a run; ``folder``: where the comparison's file is."""
        return TrainingConfig.load(folder / self.settings, [*self.runs[name], f"output={self.output / name}"])


def main() -> None:
    """Train what is not trained yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--runs", nargs="+", metavar="NAME", help="train these alone; the result holds all that are there"
    )
    arguments = parser.parse_args()
    comparison = read_yaml(arguments.file, Comparison)
    for name in arguments.runs or comparison.runs:
        result = train(comparison.config(name, arguments.file.parent))
        if not result.finished:
            return
        print(f"{name}: {result.verdict}", flush=True)
    configs = {name: comparison.config(name, arguments.file.parent) for name in comparison.runs}
    trained = {name: config for name, config in configs.items() if (config.output / "projector").exists()}
    kept = {
        "what": comparison.what,
        **provenance("tokenizers"),
        "command": f"python -m benchmarks.training.compare {arguments.file}",
        "settings": comparison.settings.name,
        "seeds": sorted({config.seed for config in trained.values()}),
        "runs": {name: _row(config, comparison.runs[name]) for name, config in trained.items()},
    }
    path = _RESULTS / f"training-{arguments.file.stem}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _row(config: TrainingConfig, overrides: tuple[str, ...]) -> dict[str, Any]:
    lines = read_log(config.output)
    return {
        "overrides": overrides,
        "verdict": Projector.from_pretrained(config.output / "projector").summary["verdict"],
        "probe": [line for line in lines if "evaluation" in line],
        "training_loss": [line["loss"] for line in lines if "loss" in line],
    }


if __name__ == "__main__":
    main()
