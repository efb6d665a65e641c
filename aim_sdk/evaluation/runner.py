"""Runs an evaluation, or goes on with one that was interrupted; one call a process."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import PartialState

from aim_sdk.errors import InputError
from aim_sdk.evaluation import scoring
from aim_sdk.evaluation.answering import Answering, Asked
from aim_sdk.evaluation.journal import Journal, Unit
from aim_sdk.evaluation.pipelines import Pipelines
from aim_sdk.evaluation.plan import Plan, Work, how
from aim_sdk.evaluation.results import Answers, Cell, Run
from aim_sdk.evaluation.revision import revision
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.fingerprint import versions
from aim_sdk.interrupts import interruptible
from aim_sdk.machine import machine
from aim_sdk.progress import advancing
from aim_sdk.types import Mode

Note = Callable[[str], None]


def evaluate(
    settings: EvalSettings, *, show: bool = True, note: Note = lambda _: None, command: str | None = None
) -> Run | None:
    """Answer every cell's queries, and write the result file when all are answered.

    Args:
        settings: the run; what is in ``settings.output`` already is not answered again.
        show: a progress bar on stderr.
        note: hears of what is left out.
        command: what was typed, for the result file.

    Returns:
        The run; None where it was interrupted, or in another process than the first.

    Raises:
        InputError: see :class:`aim_sdk.evaluation.plan.Plan`; or the folder holds another run.
        BackendError, ArtifactError: the model, the projector or the bank cannot be loaded.
    """
    plan = Plan(settings)
    state = PartialState(cpu=settings.device == "cpu" or not torch.cuda.is_available())
    if state.is_main_process:
        Journal(settings.output, _identity(plan), 0)
    state.wait_for_everyone()
    journal = Journal(settings.output, _identity(plan), state.process_index)
    journal.mend()
    evaluation = _Evaluation(plan, journal, note if state.is_main_process else lambda _: None, state)
    with interruptible() as interrupted:
        finished = evaluation.answer(interrupted, show and state.is_main_process)
    state.wait_for_everyone()
    if not finished or not state.is_main_process:
        return None
    run = evaluation.result(command)
    run.save(settings.output)
    return run


class _Evaluation:
    """One process's part of a run."""

    def __init__(self, plan: Plan, journal: Journal, note: Note, state: PartialState) -> None:
        self.plan, self.journal, self.note, self.state = plan, journal, note, state
        self.pipelines = Pipelines(plan.settings, state)
        self.left_out: dict[str, str] = {}
        self.modes = self._modes()

    def answer(self, interrupted: Callable[[], bool], show: bool) -> bool:
        """Answer this process's share of what is missing; False where it was interrupted."""
        done, number = set(self.journal.read()), 0
        self.state.wait_for_everyone()  # all know the same before anything is added
        cells = [(work, cell) for work in self.plan.works for cell in self.plan.cells(work, self.modes)]
        total = sum(len(work.queries) for work, _ in cells)
        with advancing("queries", total, shown=show) as advance:
            for work, cell in cells:
                answering, batches = self._prepared(work, cell)
                for place, asked in enumerate(batches):
                    if (cell, place) in done:
                        advance(len(asked))
                        continue
                    mine = number % self.state.num_processes == self.state.process_index
                    number += 1
                    if mine:
                        self._answer(answering, (cell, place), asked)
                    advance(len(asked))
                    if interrupted():
                        return False
        return True

    def result(self, command: str | None) -> Run:
        """Score what the journal holds."""
        kept, plan = self.journal.read(), self.plan
        answers: list[Answers] = []
        for work in plan.works:
            for cell in plan.cells(work, self.modes):
                batches = [record for unit, record in sorted(kept.items(), key=_number) if unit[0] == cell]
                found = {p["item"]: p for record in batches for p in record["predictions"]}
                peaks = [record["peak_bytes"] for record in batches if record["peak_bytes"] is not None]
                ordered = [found[item.id] for item in work.queries]
                answers.append(scoring.answers_of(cell, ordered, work.items, work.metric, max(peaks, default=None)))
        metrics = {work.config.name: work.metric for work in plan.works}
        items = {work.config.name: work.items for work in plan.works}
        projector = self.pipelines.projector
        return Run(
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=command,
            settings={**plan.settings.model_dump(mode="json"), "left_out": self.left_out},
            protocol=plan.protocol.model_dump(mode="json"),
            tasks={work.config.name: work.config.model_dump(mode="json") for work in plan.works},
            metrics={metric.name: metric.label for metric in metrics.values()},
            backbone=self.pipelines.backend.fingerprint.model_dump(mode="json"),
            projector={"kind": projector.kind, "hash": projector.identity, **projector.summary},
            revision=revision(),
            versions={"python": platform.python_version(), **versions("aim-icl", "torch", "transformers")},
            machine=machine(),
            reading_seconds=sum(record["reading_seconds"] for record in kept.values()),
            scores=tuple(scoring.table(answers, items, metrics)),
            answers=tuple(answers),
        )

    def _prepared(self, work: Work, cell: Cell) -> tuple[Answering, list[list[Asked]]]:
        """A cell's batches; where a selector chooses, it finds the whole pool in the bank."""
        pipe = self.pipelines.of(work)
        source = self.plan.source(work, cell.seed)
        if source.selector is not None and cell.shots:
            pipe.bank.add(source.shown())
        return Answering(pipe, work.prompt), self.plan.batches(work, cell, source, pipe.bank)

    def _answer(self, answering: Answering, unit: Unit, asked: Sequence[Asked]) -> None:
        batch = answering.answer(asked, how(unit[0], self.plan.protocol))
        content = {
            "predictions": batch.predictions,
            "peak_bytes": batch.peak_bytes,
            "reading_seconds": batch.reading_seconds,
        }
        self.journal.add(unit, content)

    def _modes(self) -> list[Mode]:
        modes = list(self.plan.settings.modes)
        if "interleaved" in modes and not self.pipelines.backend.supports_interleaved:
            self.left_out["interleaved"] = f"backend {self.pipelines.backend.name!r} takes one image a prompt"
            self.note(f"interleaved is left out: {self.left_out['interleaved']}.")
            modes.remove("interleaved")
        if not modes:
            raise InputError("no mode is left to evaluate.")
        return modes


def _number(entry: tuple[Unit, Any]) -> int:
    return entry[0][1]


def _identity(plan: Plan) -> dict[str, Any]:
    """The settings with all that they name: a protocol's or a task's file may have been changed meanwhile."""
    return {
        **plan.settings.identity(),
        "protocol": plan.protocol.model_dump(mode="json"),
        "tasks": {work.config.name: work.config.model_dump(mode="json") for work in plan.works},
        "queries": {work.config.name: len(work.queries) for work in plan.works},
    }
