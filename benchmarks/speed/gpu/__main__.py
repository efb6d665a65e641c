"""The command: which shapes, on which device, into which file."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from aim_sdk.backend.devices import resolve_device
from aim_sdk.bank.bank import NewBankWarning
from aim_sdk.errors import AIMError, DeviceError, InputError, unknown
from aim_sdk.files.jobs import alone
from aim_sdk.support.terminal import say
from benchmarks.speed.gpu.record import Record, device_name
from benchmarks.speed.gpu.run import measure
from benchmarks.speed.gpu.shapes import SHAPES
from benchmarks.speed.gpu.table import lines
from benchmarks.speed.measure import RESULTS

DESCRIPTION = """Measure models of 7B parameters with random weights on a GPU: latency over shots, reading, training,
memory. Under eight minutes a shape on a card of the H100's class. Each part is kept as soon as it is measured: the same
command resumes where it was interrupted."""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.gpu", description=DESCRIPTION)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), metavar="NAME", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--device", default="cuda", help="the GPU: cuda, cuda:1; cpu for --small alone")
    parser.add_argument("--small", action="store_true", help="the tests' sizes, to try the script: no results")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the result file; default: benchmarks/results/speed-gpu-CARD.json, with --small in the temporary folder",
    )
    return parser.parse_args(arguments)


def run(given: argparse.Namespace) -> Path:
    """Measure, and return the result file.

    Raises:
        InputError: a shape that is none, or a file of something else.
        DeviceError: there is no such GPU.
        ArtifactWriteError: the file cannot be written, or another job writes it.
    """
    for name in given.shape:
        if name not in SHAPES:
            raise InputError(unknown("shape", name, SHAPES))
    device = _device(given.device, small=given.small)
    card = device_name(device)
    path: Path = given.output or _default(card, small=given.small)
    with alone(path.with_name(f".{path.name}.lock")):
        record = Record(path, device=card, small=given.small)
        for name in dict.fromkeys(given.shape):
            measure(name, record, device, small=given.small)
    for name in given.shape:
        for line in lines(name, record.shapes[name]):
            say(line)
        say("")
    return path


def _device(name: str, *, small: bool) -> torch.device:
    if name.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"there is no GPU: torch {torch.__version__} finds none on this machine, and models of 7B parameters "
            "need one.\nNext: python -m benchmarks.speed.gpu --small --device cpu (tries the script with tiny sizes)."
        )
    device = resolve_device(name)
    if device.type != "cuda" and not small:
        raise DeviceError(
            f"--device {name}: models of 7B parameters are measured on a GPU (--device cuda).\n"
            f"Next: python -m benchmarks.speed.gpu --small --device {name} (tries the script with tiny sizes)."
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _default(card: str, *, small: bool) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    if small:
        return Path(tempfile.gettempdir()) / f"speed-gpu-small-{slug}.json"
    return RESULTS / f"speed-gpu-{slug}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    warnings.filterwarnings("ignore", message="no projector was given")  # none is needed for numbers without meaning
    warnings.simplefilter("ignore", NewBankWarning)
    try:
        say(run(options(arguments)))
    except AIMError as error:
        say(f"error: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        say("interrupted; the parts that were measured are kept: the same command resumes", err=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
