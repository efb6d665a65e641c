"""``python -m benchmarks.pocket.kept RUN NAME``: keep a training run's projector, in bfloat16, next to these scripts.

The table of projectors and the one that is shipped are made from what is kept: 1.3 MB each, where a run takes an hour.
"""

import argparse
from pathlib import Path
from typing import Final

import torch

from aim_sdk.projectors import Projector

KEPT: Final = Path(__file__).parent / "projectors"


def keep(run: Path, name: str) -> Path:
    """Save the projector of a run's folder under a name; return its folder.

    Raises:
        ArtifactNotFoundError: the run has none yet.
    """
    Projector.from_pretrained(run / "projector").to(torch.bfloat16).save_pretrained(KEPT / name)
    return KEPT / name


def main() -> None:
    """Keep one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    print(keep(options.run, options.name))


if __name__ == "__main__":
    main()
