"""What a run asks: its cells, and each cell's batches, the same ones whoever answers them in whichever order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError
from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.answering import Asked
from aim_sdk.evaluation.demonstrations import Shown, Source
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.metrics import get_metric
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.evaluation.protocol import Prompt, Protocol, get_protocol
from aim_sdk.evaluation.results import Cell
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.types import Mode


@dataclass(frozen=True)
class Work:
    """One task of a run."""

    config: TaskConfig
    prompt: Prompt
    metric: Metric
    dataset: Dataset
    queries: Sequence[Item]

    @cached_property
    def items(self) -> dict[str, Item]:
        """The queries by their ids."""
        return {item.id: item for item in self.queries}


class Plan:
    """All that is decided before anything is answered.

    Raises:
        InputError: a task, the protocol or the selector does not exist, or they do not go together.
        ShotsError: a task has fewer demonstrations.
        MissingDataError: a task's files are not there.
    """

    def __init__(self, settings: EvalSettings) -> None:
        self.settings, self.protocol = settings, get_protocol(settings.protocol)
        configs = [tasks.get_task(name) for name in settings.tasks]
        self.works = [_work(config, self.protocol, settings) for config in configs]
        self.shots = settings.shots or self.protocol.shots
        self.seeds = range(settings.seeds or self.protocol.seeds)
        if not self.cells(self.works[0], settings.modes):
            raise InputError(f"shots {self.shots}: nothing is asked; name more shots, or the mode zero-shot.")
        for work in self.works:  # that there are too few demonstrations is known before anything is answered
            if set(settings.modes) != {"zero-shot"}:
                self.source(work, self.seeds[0]).check(work.queries[0], max(self.shots))

    def cells(self, work: Work, modes: Sequence[Mode]) -> list[Cell]:
        """A task's cells; zero-shot has one at 0 shots, and one seed, for nothing is drawn for it."""
        few = [k for k in self.shots if k]
        drawn = self.protocol.zero_shot_texts > 0
        found: list[Cell] = []
        for mode in modes:
            zero = mode == "zero-shot"
            for k in [0] if zero else few:
                seeds = self.seeds if drawn or not zero else [0]
                found += [Cell(task=work.config.name, mode=mode, shots=k, seed=seed) for seed in seeds]
        return found

    def source(self, work: Work, seed: int) -> Source:
        """What gives a task's demonstrations under one seed."""
        return Source(work.config.name, work.dataset, work.prompt, self.protocol, self.settings.selector, seed)

    def places(self, work: Work) -> range:
        """The numbers of each of a task's cells' batches."""
        return range(-(-len(work.queries) // self.settings.batch_size))

    def batches(self, work: Work, cell: Cell, source: Source, bank: DemonstrationBank) -> list[list[Asked]]:
        """A cell's batches, of prompts of like length."""
        shown = self._shown(work, cell, source, bank)
        asked = [Asked(item, source.query(item), found) for item, found in zip(work.queries, shown, strict=True)]
        asked.sort(key=lambda one: (one.length, one.item.id))
        size = self.settings.batch_size
        return [asked[start : start + size] for start in range(0, len(asked), size)]

    def _shown(self, work: Work, cell: Cell, source: Source, bank: DemonstrationBank) -> list[list[Shown]]:
        if cell.mode == "zero-shot":
            return source.texts(work.queries, self.protocol.zero_shot_texts)
        return source.choose(work.queries, cell.shots, bank)


def how(cell: Cell, protocol: Protocol) -> Mode:
    """The pipeline's mode for a cell: a protocol may want texts before zero-shot queries."""
    return "text-only" if cell.mode == "zero-shot" and protocol.zero_shot_texts else cell.mode


def _work(config: TaskConfig, protocol: Protocol, settings: EvalSettings) -> Work:
    prompt = protocol.prompt(config)
    metric = get_metric(config.metric, **(config.metric_options | protocol.metrics.get(config.metric, {})))
    dataset = tasks.load(config, settings.data)
    return Work(config, prompt, metric, dataset, list(_limited(config.name, dataset.queries, settings.limit)))


def _limited(task: str, queries: Sequence[Item], limit: int | None) -> Iterator[Item]:
    if limit is None or limit >= len(queries):
        yield from queries
        return
    seed = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
    places = np.random.default_rng(seed).permutation(len(queries))[:limit]
    yield from (queries[place] for place in sorted(places.tolist()))
