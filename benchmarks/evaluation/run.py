"""``python -m benchmarks.evaluation.run [FILE.yaml]``: evaluate as a file of settings says; keep the result and a plot.

The run's folder goes on where it was interrupted. Experiment files are added, never edited.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Final

from aim_sdk.evaluation import EvalSettings, evaluate
from aim_sdk.evaluation.report import write
from aim_sdk.evaluation.results import RESULT
from aim_sdk.files.yaml_files import read_yaml

_RESULTS: Final = Path(__file__).parents[1] / "results"
_ASSETS: Final = Path(__file__).parents[2] / "docs" / "assets"


def main() -> None:
    """Run it, and put the result file and the plots where the documentation finds them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("pocket-2026-11-29.yaml"))
    file = parser.parse_args().file
    settings = read_yaml(file, EvalSettings)
    run = evaluate(settings, note=print, command=f"python -m benchmarks.evaluation.run {file.name}")
    if run is None:
        raise SystemExit("interrupted; the same command resumes from there.")
    shutil.copyfile(settings.output / RESULT, _RESULTS / f"evaluation-{file.stem}.json")
    for path in write({file.stem: run}, settings.output):
        print(path)
        if path.suffix == ".png":
            shutil.copyfile(path, _ASSETS / f"evaluation-{file.stem}-{path.name}")


if __name__ == "__main__":
    main()
