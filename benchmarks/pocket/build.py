"""One command for the whole of pocket: ``python -m benchmarks.pocket.build [--stage NAME ...]``."""

import argparse
import time
from collections.abc import Callable
from typing import Final


def _data() -> None:
    from benchmarks.pocket import catalog, wide

    catalog.build()
    wide.build()


def _features() -> None:
    from benchmarks.pocket import features

    features.build()


def _stage0() -> None:
    from benchmarks.pocket import stages

    stages.stage0(steps=1200)


def _stage1() -> None:
    from benchmarks.pocket import stages

    stages.stage1(steps=450)


def _stage_a() -> None:
    from benchmarks.pocket import stages

    stages.stage_a(steps=360)


def _realign() -> None:
    from benchmarks.pocket import stages

    stages.realign(steps=1200)


def _retune() -> None:
    from benchmarks.pocket import stages

    stages.retune(steps=640)


def _ship() -> None:
    from benchmarks.pocket import stages

    stages.ship()


def _carrier() -> None:
    from benchmarks.pocket import carrier

    carrier.train(steps=480)


def _projector() -> None:
    from benchmarks.pocket import artifact

    artifact.publish()


def _demo_data() -> None:
    from benchmarks.pocket import demo_data

    demo_data.build()


STAGES: Final[dict[str, Callable[[], None]]] = {
    "data": _data,
    "features": _features,
    "stage0": _stage0,
    "stage1": _stage1,
    "stageA": _stage_a,
    "realign": _realign,
    "retune": _retune,
    "ship": _ship,
    "carrier": _carrier,
    "projector": _projector,
    "demo_data": _demo_data,
}


def main() -> None:
    """Run stages in order; a stage that was cut goes on from its last checkpoint."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    chosen = parser.parse_args().stage
    for name, stage in STAGES.items():
        if name in chosen:
            started = time.monotonic()
            print(f"== {name}", flush=True)
            stage()
            print(f"== {name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
