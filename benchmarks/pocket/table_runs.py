"""``python -m benchmarks.pocket.table_runs FILE``: the runs that a table of projectors on pocket's trials is made of.

A table has parts (some of the trials, at some numbers of shots) and rows (a projector, or none, in some modes). Each
row of a part is a run of the suite with a folder of its own, and its trials are kept in a small file: what is finished
is not run again, also on another machine, what was interrupted resumes, and a row whose projector is not trained yet is
left out with a note. The demonstrations of a part are read once: the first row that reads keeps the readings, and the
others project them; a row of another engine reads them itself.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field

from aim_backends.pocket.backend import PocketBackend
from aim_sdk.bank import DemonstrationBank, NewBankWarning
from aim_sdk.bank.convert import convert
from aim_sdk.errors import InputError
from aim_sdk.evaluation import EvalSettings, evaluate
from aim_sdk.evaluation.results import RESULT, Run
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.projectors import Projector, untrained
from aim_sdk.support.modes import READ
from aim_sdk.training.config import ProjectorSettings
from aim_sdk.types import Mode
from benchmarks.pocket.table_rows import KeptRow

BACKEND: Final = "pocket"


class Part(Settings):
    """Some of the trials, at some numbers of shots."""

    shots: tuple[int, ...] = Field(description="demonstrations of a trial")
    trials: tuple[int, int] = Field(description="of each seed and task, from the first number up to the second")
    tasks: tuple[str, ...] | None = Field(default=None, description="folders of the trials; None: the table's")
    rows: tuple[str, ...] | None = Field(default=None, description="None: all")


class Row(Settings):
    """A projector, asked in some modes."""

    modes: tuple[Mode, ...] = Field(description="as the suite has them")
    projector: Path | None = Field(default=None, description="a trained one; None: the one that is shipped")
    backend: str = Field(default=BACKEND, description="another engine reads for itself")
    untrained: ProjectorSettings | None = Field(default=None, description="one that is made here, without training")


class TableSettings(Settings):
    """A table: what is run, in this order."""

    output: Path = Field(description="the folder of the runs")
    kept: Path = Field(description="the folder of the finished rows' trials")
    trials: Path = Field(description="what `python -m benchmarks.pocket.trials` wrote")
    dtype: str = Field(
        default="float32", description="the backbone's: bfloat16 takes half the time where the CPU has it"
    )
    tasks: tuple[str, ...] = Field(description="folders of the trials")
    parts: dict[str, Part] = Field(description="each is run for all of its rows before the next begins")
    rows: dict[str, Row] = Field(description="the first one that reads demonstrations reads for all")

    def kept_row(self, part: str, row: str) -> Path:
        """The file of a finished row's trials."""
        return self.kept / f"{part}-{row}.json"

    def rows_of(self, part: Part) -> dict[str, Row]:
        """The rows of a part, in the table's order."""
        return {name: row for name, row in self.rows.items() if part.rows is None or name in part.rows}


def run_all(table: TableSettings, only: Sequence[str] = (), parts: Sequence[str] = ()) -> bool:
    """Run what is missing; return whether all of it was run.

    Args:
        table: the settings.
        only: names of rows; none: all.
        parts: names of parts; none: all.
    """
    for name, part in table.parts.items():
        if parts and name not in parts:
            continue
        tasks = [part_of(table, name, part, task) for task in part.tasks or table.tasks]
        for row in table.rows_of(part):
            folder, kept = table.output / name / row, table.kept_row(name, row)
            if only and row not in only:
                continue
            if kept.exists():
                _check(table.rows[row], kept)
                continue
            if (missing := table.rows[row].projector) is not None and not missing.exists():
                print(f"{name}, {row}: left out, there is no {missing}", flush=True)
                continue
            print(f"{name}, {row}", flush=True)
            if not (folder / RESULT).exists() and not _run(table, part, row, folder, tasks):
                print("interrupted; the same command resumes from there.")
                return False
            KeptRow.of(name, row, Run.load(folder)).save(kept)
    return True


def _check(row: Row, kept: Path) -> None:
    """Refuse answers of another projector than the one that is there now."""
    if row.projector is None or not row.projector.exists():
        return
    answered, now = KeptRow.load(kept).projector["hash"], Projector.from_pretrained(row.projector).identity
    if answered != now:
        raise InputError(
            f"{kept}: the answers of projector {answered[:12]}, but {row.projector} is {now[:12]} now. "
            f"Next: name other folders (`output`, `kept`) in the file, or delete {kept}."
        )


def _run(table: TableSettings, part: Part, name: str, folder: Path, tasks: Sequence[Path]) -> bool:
    row = table.rows[name]
    projector = _projector(table, name, row)
    shared = bool(READ & {*row.modes}) and row.backend == BACKEND
    settings = EvalSettings(
        output=folder,
        backend=row.backend,
        model=None if row.backend == BACKEND else BACKEND,
        projector=None if projector is None else str(projector),
        device="cpu",
        dtype=table.dtype,
        tasks=tuple(map(str, tasks)),
        shots=part.shots,
        modes=row.modes,
        seeds=1,
        batch_size=20,
        cache=_readings(table, part, name, folder.parent, tasks) if shared else None,
    )
    return evaluate(settings, note=print, command="python -m benchmarks.pocket.table_runs") is not None


def _projector(table: TableSettings, name: str, row: Row) -> Path | None:
    if row.untrained is None:
        return row.projector
    folder = table.output / "projectors" / name
    if not folder.exists():
        wanted = row.untrained
        vocabulary = PocketBackend.from_pretrained(device="cpu", dtype=table.dtype).vocabulary
        made = untrained(wanted.kind, vocabulary, layers=wanted.layers, **wanted.options)
        made.save_pretrained(folder)
    return folder


def _readings(table: TableSettings, part: Part, name: str, folder: Path, tasks: Sequence[Path]) -> Path:
    """The banks of a row: the first one's keep readings, and all others are projected from them."""
    first = next(row for row, settings in table.rows_of(part).items() if READ & {*settings.modes})
    source, target = folder / "banks" / first, folder / "banks" / name
    projector = _projector(table, name, table.rows[name])
    whole = AIMPipeline.from_pretrained(BACKEND, projector=projector, device="cpu", dtype=table.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)
        for task in (yaml.safe_load(path.read_text())["name"] for path in tasks):
            with DemonstrationBank.open(
                target / task, encoder=whole.encoder, create=True, keep_readings=name == first
            ) as bank:
                if name != first and (folder / first / RESULT).exists():
                    with DemonstrationBank.open(source / task) as kept:
                        convert(kept, bank)
    return target


def part_of(table: TableSettings, name: str, part: Part, task: str) -> Path:
    """Write the task of a part's trials; return its file."""
    source, folder = table.trials / task, table.output / name / "tasks" / task
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [line for line in _lines(source / "queries.jsonl") if int(line["id"].split("-")[1]) in range(*part.trials)]
    shown = {one for line in wanted for one in line["demonstrations"][: max(part.shots)]}
    wanted = [{**line, "demonstrations": line["demonstrations"][: max(part.shots)]} for line in wanted]
    support = [line for line in _lines(source / "support.jsonl") if line["id"] in shown]
    for file, lines in (("queries.jsonl", wanted), ("support.jsonl", support)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "task.yaml").write_bytes((source / "task.yaml").read_bytes())
    return folder / "task.yaml"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Run a table's rows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", nargs="+", default=[], help="only these; default: all")
    parser.add_argument("--parts", nargs="+", default=[], help="only these; default: all")
    options = parser.parse_args()
    if not run_all(read_yaml(options.file, TableSettings), options.rows, options.parts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
