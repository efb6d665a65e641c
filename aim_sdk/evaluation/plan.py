"""What a run asks: its cells, and each cell's batches, which do not depend on who answers them or in what order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePath

import numpy as np

from aim_sdk.backend.capabilities import WritesBoxes
from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError
from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.batches import QueryInContext
from aim_sdk.evaluation.boxes import check_references
from aim_sdk.evaluation.demonstrations import DemonstrationDraw, Shown
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.metrics import get_metric
from aim_sdk.evaluation.metrics.metric import Metric
from aim_sdk.evaluation.names import tasks_of
from aim_sdk.evaluation.protocol import PromptSettings, Protocol, get_protocol
from aim_sdk.evaluation.results import Cell
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.pairs import SideBySide
from aim_sdk.files.images import image_digest
from aim_sdk.types import Mode


@dataclass(frozen=True)
class TaskPlan:
    """One task of a run."""

    config: TaskConfig
    prompt: PromptSettings
    metric: Metric
    dataset: Dataset
    queries: Sequence[Item]

    @cached_property
    def items(self) -> dict[str, Item]:
        """The queries by their ids."""
        return {item.id: item for item in self.queries}

    @property
    def closed(self) -> bool:
        """Whether the answers are a closed set."""
        return self.metric.closed or any(item.choices for item in self.queries)

    @cached_property
    def digest(self) -> str:
        """A hash of what decides the answers: what is asked, and what may be shown."""
        asked = [(item.id, _name(item), item.text, item.choices, *item.demonstrations) for item in self.queries]
        shown = [(item.id, _name(item), item.text, item.answers) for item in self.dataset.support]
        return hashlib.sha256(repr((asked, shown)).encode(errors="surrogatepass")).hexdigest()


class Plan:
    """Everything that is decided before anything is answered.

    Raises:
        InputError: a task, the protocol or the selector does not exist, or they do not go together.
        ShotsError: a task has fewer demonstrations.
        MissingDataError: a task's files are missing.
    """

    def __init__(self, settings: EvalSettings) -> None:
        self.settings, self.protocol = settings, get_protocol(settings.protocol)
        configs = tasks_of(settings, self.protocol)
        own = None if settings.bank is None else support_of(settings.bank)
        self.works = [_work(config, self.protocol, settings.data, settings.limit, own) for config in configs]
        self.shots = settings.shots or self.protocol.shots
        self.seeds = range(settings.seed, settings.seed + (settings.seeds or self.protocol.seeds))
        if not any(self.cells(work, settings.modes) for work in self.works):
            raise InputError(
                f"shots {', '.join(map(str, self.shots))}, modes {', '.join(settings.modes)}: there is nothing to ask. "
                "Next: pass more shots, or the mode zero-shot. The mode nearest needs a closed set of answers."
            )
        for work in self.works:  # that there are too few demonstrations is known before anything is answered
            work.metric.check(work.queries)
            if set(settings.modes) != {"zero-shot"}:
                self.source(work, self.seeds[0]).check(work.queries, max(self.shots))

    def cells(self, work: TaskPlan, modes: Sequence[Mode]) -> list[Cell]:
        """A task's cells; zero-shot has one at 0 shots. Cells without a draw (zero-shot, a vote) have one seed."""
        few = [k for k in self.shots if k]
        drawn = self.protocol.zero_shot_texts > 0
        found: list[Cell] = []
        for mode in modes:
            zero = mode == "zero-shot"
            if mode == "nearest" and not work.closed:
                continue
            for k in [0] if zero else few:
                once = (zero and not drawn) or (mode == "nearest" and self._votes_once(work))
                seeds = self.seeds[:1] if once else self.seeds
                found += [Cell(task=work.config.name, mode=mode, shots=k, seed=seed) for seed in seeds]
        return found

    def shows(self, work: TaskPlan, modes: Sequence[Mode]) -> bool:
        """Whether any query sees a demonstration, or its text."""
        return self.protocol.zero_shot_texts > 0 or any(cell.shots for cell in self.cells(work, modes))

    def _votes_once(self, work: TaskPlan) -> bool:
        """Whether the seed does not change the neighbours: neither a query's own candidates nor a pool is drawn."""
        pool = self.protocol.pool
        return work.dataset.draw is None and (pool is None or pool >= len(work.dataset.support))

    def source(self, work: TaskPlan, seed: int, boxes: WritesBoxes | None = None) -> DemonstrationDraw:
        """The source of a task's demonstrations under one seed; ``boxes``: how the backbone writes these."""
        return DemonstrationDraw(
            work.config.name,
            work.dataset,
            work.prompt,
            self.protocol,
            self.settings.selector,
            seed,
            ready=self.settings.bank is not None,
            boxes=boxes if work.config.kind == "boxes" else None,
        )

    def places(self, work: TaskPlan) -> range:
        """The numbers of each of a task's cells' batches."""
        return range(-(-len(work.queries) // self.settings.batch_size))

    def batches(
        self, work: TaskPlan, cell: Cell, source: DemonstrationDraw, bank: DemonstrationBank
    ) -> list[list[QueryInContext]]:
        """A cell's batches, of prompts of like length."""
        if cell.mode == "nearest" and not source.draws_its_own:
            near = source.neighbours(work.queries, cell.shots, bank)
            asked = [
                QueryInContext(
                    item, source.query(item), [shown for shown, _ in found], [similarity for _, similarity in found]
                )
                for item, found in zip(work.queries, near, strict=True)
            ]
        else:
            shown = self._shown(work, cell, source, bank)
            asked = [
                QueryInContext(item, source.query(item), found) for item, found in zip(work.queries, shown, strict=True)
            ]
        asked.sort(key=lambda one: (one.length, one.item.id))
        size = self.settings.batch_size
        return [asked[start : start + size] for start in range(0, len(asked), size)]

    def _shown(
        self, work: TaskPlan, cell: Cell, source: DemonstrationDraw, bank: DemonstrationBank
    ) -> list[list[Shown]]:
        if cell.mode == "zero-shot":
            return source.texts(work.queries, self.protocol.zero_shot_texts)
        return source.choose(work.queries, cell.shots, bank)


def draws(
    name: str | Path, protocol: Protocol, *, shots: int, limit: int | None = None, seed: int = 0
) -> list[QueryInContext]:
    """A task's queries with the demonstrations that a run draws for them; nothing is answered.

    Args:
        name: of a task whose files come with a package, or the path of its YAML file.
        protocol: how it is asked.
        shots: demonstrations of each query.
        limit: a random part of the queries, the same as a run's; None: all.
        seed: of the draws.

    Raises:
        InputError: no such task, or the protocol has no prompt for it.
        MissingDataError: its files are missing.
        ShotsError: it has fewer demonstrations.
    """
    work = _work(tasks.get_task(name), protocol, Path(), limit, None)
    source = DemonstrationDraw(work.config.name, work.dataset, work.prompt, protocol, "random", seed)
    chosen = source.choose(work.queries, shots)
    return [QueryInContext(item, source.query(item), shown) for item, shown in zip(work.queries, chosen, strict=True)]


def how(cell: Cell, protocol: Protocol) -> Mode:
    """The pipeline's mode for a cell: a protocol may want texts before zero-shot queries."""
    return "text-only" if cell.mode == "zero-shot" and protocol.zero_shot_texts else cell.mode


def support_of(bank: Path) -> list[Item]:
    """The demonstrations of an existing bank, as they are shown.

    Raises:
        ArtifactNotFoundError: no bank is there.
        InputError: it is empty.
    """
    with DemonstrationBank.open(bank) as opened:
        shown = [(entry.key, entry.demonstration) for entry in opened.values()]
    if not shown:
        raise InputError(f"{bank}: this bank holds no demonstrations. `aim-icl bank add {bank} demos.jsonl` adds some.")
    return [Item(key, item.image, item.text, (item.answer,), metadata=item.metadata) for key, item in shown]


def _name(item: Item) -> str:
    """An image's name without its folder, which may have moved when a run resumes."""
    if isinstance(item.image, SideBySide):
        return f"{PurePath(item.image.left).name} {PurePath(item.image.right).name}"
    return PurePath(item.image).name if isinstance(item.image, str | PathLike) else image_digest(item.image)


def _work(
    config: TaskConfig, protocol: Protocol, data: Path, limit: int | None, support: Sequence[Item] | None
) -> TaskPlan:
    prompt = protocol.prompt(config)
    metric = get_metric(config.metric, **(config.metric_options | protocol.metrics.get(config.metric, {})))
    dataset = tasks.load(config, data)
    if config.kind == "boxes":
        check_references(f"task {config.name!r}", [*dataset.queries, *dataset.support])
    if support is not None:
        dataset = Dataset(dataset.queries, support)
    return TaskPlan(config, prompt, metric, dataset, list(_limited(config.name, dataset.queries, limit)))


def _limited(task: str, queries: Sequence[Item], limit: int | None) -> Iterator[Item]:
    if limit is None or limit >= len(queries):
        yield from queries
        return
    seed = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
    places = np.random.default_rng(seed).permutation(len(queries))[:limit]
    yield from (queries[place] for place in sorted(places.tolist()))
