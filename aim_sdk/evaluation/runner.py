"""Runs an evaluation, or resumes one that was interrupted; one call per process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch
from accelerate import PartialState

from aim_sdk.backend.capabilities import Interleaves, why_not
from aim_sdk.backend.plain_boxes import boxes_of
from aim_sdk.backend.registry import version_of
from aim_sdk.bank.bank import DemonstrationBank
from aim_sdk.errors import InputError
from aim_sdk.evaluation import scoring
from aim_sdk.evaluation.batches import BatchAnswerer, QueryInContext
from aim_sdk.evaluation.boxes import check_labels
from aim_sdk.evaluation.cost import cost_line
from aim_sdk.evaluation.demonstrations import DemonstrationDraw
from aim_sdk.evaluation.journal import AnswerJournal, refused
from aim_sdk.evaluation.pipelines import Pipelines
from aim_sdk.evaluation.plan import Plan, TaskPlan, how
from aim_sdk.evaluation.results import Cell, CellAnswers, Example, Question, Run
from aim_sdk.evaluation.seen import Seen
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.evaluation.tasks import folder_of
from aim_sdk.evaluation.unfinished import begin
from aim_sdk.files.jobs import LOCK, alone
from aim_sdk.support.interrupts import interruptible
from aim_sdk.support.modes import BASIC
from aim_sdk.support.progress import advancing
from aim_sdk.support.provenance import provenance
from aim_sdk.types import Demonstration, Mode

Note = Callable[[str], None]
_FOR_PEOPLE = {"title", "description", "source", "deviations", "licence", "splits", "install"}
"""Fields of a task or a protocol that people read."""
_NO_PART = {"metric", "metric_options", "folder", *_FOR_PEOPLE}
"""Fields of a task that do not affect answers; the content of its folder does."""


def evaluate(
    settings: EvalSettings,
    *,
    show: bool = True,
    note: Note = lambda _: None,
    foresee: Note | None = None,
    command: str | None = None,
) -> Run | None:
    """Answer every cell's queries, and write the result file when all are answered.

    Args:
        settings: the run; what is in ``settings.output`` already is not answered again.
        show: a progress bar on stderr.
        note: called with what is left out.
        foresee: called, before anything is answered, with a line that says what the longest prompt will take.
        command: what was typed, for the result file.

    Returns:
        The run; None if it was interrupted, or in any process but the first.

    Raises:
        InputError: see `aim_sdk.evaluation.plan.Plan`; or the folder holds another run.
        ArtifactWriteError: another job is writing the folder, or the disk is full; the answers so far are kept.
        BackendError, ArtifactError: the model, the projector or the bank cannot be loaded.
    """
    if settings.output.exists() and not settings.output.is_dir():
        raise InputError(f"output: {settings.output} is a file; expected a folder for the run, or a new name.")
    plan = Plan(settings)
    state = PartialState(cpu=settings.device == "cpu" or not torch.cuda.is_available())
    with ExitStack() as stack:
        with state.main_process_first():  # it makes the folder, and holds its lock for all of them
            if state.is_main_process:
                stack.enter_context(alone(settings.output / LOCK))
            journal = AnswerJournal(settings.output, _identity(plan), state.process_index)
        journal.mend()
        folders = {work.config.name: folder_of(work.config, settings.data) for work in plan.works}
        seen = Seen(settings.output, folders, state.process_index)
        seen.check()
        evaluation = _Evaluation(plan, journal, seen, note if state.is_main_process else lambda _: None, state)
        with state.main_process_first():
            journal.made_with(evaluation.pipelines.made_with())
            if state.is_main_process:
                begin(settings.output, evaluation.batches, command)
        if foresee is not None and state.is_main_process and len(journal.read()) < evaluation.batches:
            foresee(cost_line(plan, evaluation.modes, evaluation.pipelines))
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

    def __init__(self, plan: Plan, journal: AnswerJournal, seen: Seen, note: Note, state: PartialState) -> None:
        self.plan, self.journal, self.seen, self.note, self.state = plan, journal, seen, note, state
        self.pipelines = Pipelines(plan.settings, state)
        self.left_out: dict[str, str] = {}
        self.modes = self._modes()
        for work in plan.works:
            if work.config.kind == "boxes" and plan.settings.bank is None and plan.shows(work, self.modes):
                check_labels(work.config.name, work.dataset.support, boxes_of(self.pipelines.backend))

    @property
    def batches(self) -> int:
        """How many there are to answer in all."""
        return sum(len(self.plan.cells(work, self.modes)) * len(self.plan.places(work)) for work in self.plan.works)

    def answer(self, interrupted: Callable[[], bool], show: bool) -> bool:
        """Answer this process's share of what is missing; False if it was interrupted."""
        self.kept = self.journal.read()
        if again := sum(len(refused(record)) for record in self.kept.values()):
            self.note(f"{again} queries that were refused before are asked again.")
        self.state.wait_for_everyone()  # all know the same before anything is added
        number = 0
        for work in self.plan.works:
            units = [(cell, place) for cell in self.plan.cells(work, self.modes) for place in self.plan.places(work)]
            mine: dict[Cell, list[int]] = defaultdict(list)
            for cell, place in units:
                if (cell, place) not in self.kept or refused(self.kept[cell, place]):
                    if number % self.state.num_processes == self.state.process_index:
                        mine[cell].append(place)
                    number += 1
            if not self._answer_task(work, mine, interrupted, show):
                return False
        return True

    def _answer_task(
        self, work: TaskPlan, mine: Mapping[Cell, Sequence[int]], interrupted: Callable[[], bool], show: bool
    ) -> bool:
        pipe = self.pipelines.of(work)
        sources = {seed: self.plan.source(work, seed, pipe.boxes) for seed in self.plan.seeds}
        for source in sources.values():
            if self._looks_in_bank(source, mine):
                # All seeds, even answered ones: neighbours depend on everything that the bank holds.
                if not source.keys():
                    self.seen.keep(self.seen.look(work.config.name, [item.image for item in source.pool]))
                if (keys := source.keys() or _read(pipe.bank, source.shown(), interrupted, show)) is None:
                    return False
                source.in_bank(keys)
        answering = BatchAnswerer(pipe, work.config, work.prompt, may_read=self.plan.settings.bank is None)
        with advancing(f"{work.config.name}, batches", sum(map(len, mine.values())), shown=show) as advance:
            for cell, places in mine.items():
                batches = self.plan.batches(work, cell, sources[cell.seed], pipe.bank)
                for place in places:
                    self._answer_batch(answering, work, cell, place, batches[place])
                    advance(1)
                    if interrupted():
                        return False
        return True

    def _answer_batch(
        self, answering: BatchAnswerer, work: TaskPlan, cell: Cell, place: int, asked: Sequence[QueryInContext]
    ) -> None:
        """Answer a batch, or those of its queries that were refused before, and keep the answers and their images."""
        before, mode = self.kept.get((cell, place)), how(cell, self.plan.protocol)
        if before is not None:
            asked = [one for one in asked if one.item.id in refused(before)]
        whole = self.plan.settings.bank is None  # a bank's keys say which images its demonstrations had
        files = {
            one.item.id: self.seen.look(work.config.name, one.images(mode if whole else "zero-shot")) for one in asked
        }
        found = asdict(answering.answer(asked, mode))
        stays = refused(found)
        self.seen.keep(file for item, looked in files.items() if item not in stays for file in looked)
        if place == 0 and cell.seed == self.plan.seeds[0]:
            if cell.shots in (0, max(self.plan.shots)):
                found["example"] = answering.example(asked[0], mode)
            if timed := asked[: self.plan.settings.timed]:
                found["first_token_seconds"] = answering.first_tokens(timed, mode)
        if before is not None:
            new = {p["item"]: p for p in found["predictions"]}
            found = {
                **before,
                "predictions": [new.get(p["item"], p) for p in before["predictions"]],
                "example": before.get("example") or found.get("example"),
            }
            if found["predictions"] == before["predictions"]:
                return
        self.journal.add((cell, place), found)

    def _looks_in_bank(self, source: DemonstrationDraw, mine: Mapping[Cell, Sequence[int]]) -> bool:
        """Whether the whole pool must be in the bank: a selector or a vote looks for demonstrations there."""
        nearest = any(cell.mode == "nearest" for cell in mine) and not source.draws_its_own
        return nearest or (source.selector is not None and any(cell.shots for cell in mine))

    def result(self, command: str | None) -> Run:
        """Score what the journal holds."""
        self.seen.read()
        kept, plan = self.journal.read(), self.plan
        answers: list[CellAnswers] = []
        examples: dict[str, dict[Mode, Example]] = {work.config.name: {} for work in plan.works}
        for work in plan.works:
            for cell in plan.cells(work, self.modes):
                batches = [kept[cell, place] for place in plan.places(work)]
                if (example := batches[0].get("example")) is not None and cell.mode not in examples[cell.task]:
                    examples[cell.task][cell.mode] = Example.model_validate(example)
                answers.append(scoring.answers_of(cell, batches, work.items, work.metric))
        metrics = {work.config.name: work.metric for work in plan.works}
        items = {work.config.name: work.items for work in plan.works}
        projector = self.pipelines.projector
        return Run(
            **provenance("transformers", more=version_of(self.pipelines.backend.name)),
            command=command,
            settings={**plan.settings.shown(), "left_out": self.left_out},
            protocol=plan.protocol.model_dump(mode="json"),
            tasks={work.config.name: work.config.model_dump(mode="json") for work in plan.works},
            metrics={metric.name: metric.label for metric in metrics.values()},
            backbone=self.pipelines.backend.fingerprint.model_dump(mode="json"),
            projector={
                **projector.summary,
                "kind": projector.kind,
                "hash": projector.identity,
                "layers": projector.layers,
                "options": projector.options,
            },
            queries={work.config.name: self._questions(work) for work in plan.works},
            examples=examples,
            computed=self.pipelines.computed(),
            reading_seconds=sum(record["reading_seconds"] for record in kept.values()),
            scores=tuple(scoring.table(answers, items, metrics)),
            answers=tuple(answers),
        )

    def _questions(self, work: TaskPlan) -> dict[str, Question]:
        task = work.config.name
        return {
            item.id: Question(
                text=item.text,
                image=" ".join(self.seen.names(task, [item.image])),
                image_sha256=self.seen.digest(task, item.image),
                references=item.answers,
                choices=item.choices,
            )
            for item in work.queries
        }

    def _modes(self) -> list[Mode]:
        modes = list(self.plan.settings.modes)
        backend = self.pipelines.backend
        if "interleaved" in modes and (reason := why_not(backend, Interleaves)) is not None:
            self.left_out["interleaved"] = f"backend {backend.name!r}: {reason}"
            self.note(f"interleaved is left out: {self.left_out['interleaved']}.")
            modes.remove("interleaved")
        open_ = [work.config.name for work in self.plan.works if not work.closed]
        if "nearest" in modes and open_:
            self.left_out["nearest"] = f"{', '.join(open_)}: the answers are not a closed set"
            if self.plan.settings.modes != BASIC:  # it was asked for
                self.note(f"nearest is left out for {self.left_out['nearest']}.")
        if not modes:
            raise InputError("no mode is left to evaluate.")
        return modes


def _identity(plan: Plan) -> dict[str, Any]:
    """What decides an answer: the settings with everything that they name, which may have changed since.

    How answers are scored is not part of it: with another metric, the same command scores the answers that are kept.
    """
    return {
        **plan.settings.identity(),
        "protocol": plan.protocol.model_dump(mode="json", exclude={"metrics", *_FOR_PEOPLE}),
        "tasks": {work.config.name: work.config.model_dump(mode="json", exclude=_NO_PART) for work in plan.works},
        "data": {work.config.name: work.digest for work in plan.works},
    }


def _read(
    bank: DemonstrationBank, shown: Sequence[Demonstration], interrupted: Callable[[], bool], show: bool
) -> list[str] | None:
    """Read a pool into the bank, which may take hours; None if it was interrupted (a disk bank keeps what was read)."""
    until = (item for place, item in enumerate(shown) if not place or not interrupted())
    keys = bank.add(until, progress=show, total=len(shown))
    return keys if len(keys) == len(shown) else None
