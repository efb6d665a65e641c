"""What a table of selectors is made of: each query's choices scored after what each selector shows, in each mode.

Every combination of demonstrations is asked once, whichever selectors show it. A query's scores are kept in a file of
their own: the same command resumes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.bank import BankEntry
from aim_sdk.errors import AIMError, InputError
from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.jobs import kept_settings
from aim_sdk.files.settings import Settings
from aim_sdk.injection.shots import Shots
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.selection.base import Selector, chosen
from aim_sdk.selection.nearest import log_shares, votes
from aim_sdk.selection.registry import SELECTORS
from aim_sdk.types import Mode, Query
from benchmarks.selection.pools import Asked, Pool, noisy, pools

_BATCH: Final = 8
"""Prompts per forward."""


class SelectorSettings(Settings):
    """A selector of the table."""

    selector: str = Field(description="its name")
    options: dict[str, Any] = Field(default={}, description="of its class")

    def made(self) -> Selector:
        """The selector."""
        return SELECTORS[self.selector](**self.options)


class Tasks(Settings):
    """Tasks that are asked alike."""

    names: tuple[str, ...] = Field(description="of the suite, or folders of `benchmarks.pocket.trials`")
    numbers: tuple[int, int] = Field(description="queries of each seed, from the first number up to the second")
    seeds: tuple[int, ...] = Field(description="of the trials, or of the draws")
    pool: int = Field(default=16, description="demonstrations of a pool; a trial has its own")


class TableSettings(Settings):
    """A table: selectors by k, by mode, by noise."""

    output: Path = Field(description="the folder of the answers")
    data: Path = Field(default=Path("data"), description="the folder of the suite's files")
    backend: str = Field(default="pocket", description="of the pipeline, with its default projector")
    dtype: str = Field(default="float32", description="the backbone's")
    parts: tuple[Tasks, ...] = Field(description="what is asked")
    selectors: dict[str, SelectorSettings] = Field(description="the rows, by name; `reading` is what others are over")
    modes: tuple[Mode, ...] = Field(default=("aim", "interleaved"), description="as the suite has them")
    shots: tuple[int, ...] = Field(description="k")
    noise: tuple[float, ...] = Field(default=(0.0, 0.2), description="shares of the answers that are changed")
    weights: tuple[float, ...] = Field(default=(0.5, 1.0), description="of the vote's log share next to the LM's score")


class Scores(BaseModel):
    """All scores of one query."""

    model_config = ConfigDict(frozen=True)
    task: str
    noise: float
    pool: str
    query: str
    right: int = Field(description="the place of the right choice")
    wrong: tuple[int, ...] = Field(description="places of demonstrations whose answers were changed")
    shown: dict[str, dict[int, tuple[int, ...]]] = Field(description="places by selector and k, in the prompt's order")
    log_probs: dict[str, dict[str, dict[int, tuple[float, ...]]]] = Field(
        description="of each choice, by mode, selector and k; zero-shot's selector is empty and its k is 0"
    )
    votes: dict[int, tuple[float, ...]] = Field(description="log shares of the choices, by the k that vote; 0: all")
    refused: dict[str, str] = Field(description="why a selector shows nothing")


def run_all(table: TableSettings) -> None:
    """Ask what was not asked yet."""
    loaded = AIMPipeline.from_pretrained(table.backend, device="cpu", dtype=table.dtype)
    selectors = _usable(table)
    _check_same(table, loaded, selectors)
    for noise in table.noise:
        for pool in _pools(table):
            changed = noisy(pool, noise) if noise else pool
            missing = [one for one in pool.asked if not _file(table, changed, noise, one).exists()]
            if missing:
                _ask(table, loaded, changed, noise, missing, selectors)


def kept(table: TableSettings) -> list[Scores]:
    """All scores that are there."""
    return [Scores.model_validate_json(file.read_bytes()) for file in sorted(table.output.glob("*/*/*.json"))]


def _pools(table: TableSettings) -> Iterator[Pool]:
    for part in table.parts:
        for task in part.names:
            yield from pools(task, data=table.data, numbers=range(*part.numbers), seeds=part.seeds, size=part.pool)


def _usable(table: TableSettings) -> dict[str, Selector]:
    """The selectors whose packages and weights are here; the others are left out with a note."""
    found = {}
    for name, settings in table.selectors.items():
        try:
            made = settings.made()
            if (encoder := getattr(made, "encoder", None)) is not None:
                encoder.texts(["a word"])  # loads CLIP's weights
        except AIMError as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        found[name] = made
    return found


def _check_same(table: TableSettings, loaded: AIMPipeline, selectors: Mapping[str, Selector]) -> None:
    """Refuse a folder of another table, backbone or projector."""
    asked = table.model_dump(mode="json", include={"selectors", "modes", "shots"})
    asked["selectors"] = {name: asked["selectors"][name] for name in selectors}
    pools_of = [part.model_dump(mode="json", include={"names", "pool"}) for part in table.parts]
    made = {"backbone": loaded.backend.fingerprint.model_dump(mode="json"), "projector": loaded.projector.identity}
    wanted = json.loads(json.dumps({**asked, "parts": pools_of, **made}))
    file = table.output / "settings.json"
    if (found := kept_settings(file)) is None:
        write_atomic(file, (json.dumps(wanted, indent=1) + "\n").encode())
    elif found != wanted:
        different = [name for name in wanted if found.get(name) != wanted[name]]
        raise InputError(
            f"{table.output}: answers of other settings ({', '.join(different)}). Next: name another `output`, or "
            f"delete {table.output}."
        )


def _file(table: TableSettings, pool: Pool, noise: float, asked: Asked) -> Path:
    return table.output / f"noise-{noise:g}" / pool.task / f"{pool.name} {asked.name}.json".replace("/", "_")


def _ask(
    table: TableSettings,
    loaded: AIMPipeline,
    pool: Pool,
    noise: float,
    asked: Sequence[Asked],
    selectors: Mapping[str, Selector],
) -> None:
    pipe = AIMPipeline(loaded.backend, loaded.projector)
    pipe.bank.add(pool.demonstrations)
    for one in asked:
        made = _Query(pipe, one)
        for name, selector in selectors.items():
            made.choose(name, selector, [k for k in table.shots if k <= len(pool.demonstrations)])
        scores = Scores(
            task=pool.task,
            noise=noise,
            pool=pool.name,
            query=one.name,
            right=one.right,
            wrong=tuple(sorted(pool.wrong)),
            shown=made.shown,
            log_probs={"zero-shot": {"": {0: made.scores("zero-shot", [()])[()]}}}
            | {mode: made.by_selector(mode) for mode in table.modes},
            votes={k: made.vote(k) for k in (*(k for k in table.shots if k <= made.most), 0)},
            refused=made.refused,
        )
        write_atomic(_file(table, pool, noise, one), (scores.model_dump_json() + "\n").encode())


@dataclass
class _Query:
    """One query of a pool: what is shown, and what it is scored."""

    pipe: AIMPipeline
    asked: Asked
    shown: dict[str, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    _entries: dict[int, BankEntry] = field(default_factory=dict)

    @property
    def query(self) -> Query:
        return self.asked.query

    @property
    def most(self) -> int:
        """Demonstrations that are not the query's own."""
        return len(self.pipe.bank) - len(self.pipe.bank.view().own(self.query))

    def choose(self, name: str, selector: Selector, shots: Sequence[int]) -> None:
        """Note what a selector shows at each k."""
        self.shown[name] = {}
        for k in shots:
            try:
                (entries,) = chosen(self.pipe.bank, selector, [self.query], k)
            except InputError as error:
                self.refused[name] = str(error)
                return
            places = tuple(int(entry.demonstration.metadata["place"]) for entry in entries)
            self._entries |= dict(zip(places, entries, strict=True))
            self.shown[name][k] = places

    def by_selector(self, mode: Mode) -> dict[str, dict[int, tuple[float, ...]]]:
        """The scores of a mode, by selector and k."""
        found = self.scores(mode, list({places for by_k in self.shown.values() for places in by_k.values()}))
        return {name: {k: found[places] for k, places in by_k.items()} for name, by_k in self.shown.items()}

    def scores(self, mode: Mode, shown: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], tuple[float, ...]]:
        """The log-probability of each choice after each combination."""
        found: dict[tuple[int, ...], tuple[float, ...]] = {}
        ordered = sorted(shown, key=len)
        for start in range(0, len(ordered), _BATCH):
            part = ordered[start : start + _BATCH]
            queries, choices = [self.query] * len(part), [self.asked.choices] * len(part)
            shots = Shots(mode=mode, demonstrations=[[self._entries[place] for place in one] for one in part])
            made = self.pipe.backend.injector.score_each(
                queries, self.pipe.contexts(queries, shots=shots), choices, prompt_format=self.pipe.prompt_format
            )
            for one, scored in zip(part, made, strict=True):
                found[one] = tuple(math.fsum(tokens) for tokens in scored.log_probs)
        return found

    def vote(self, k: int) -> tuple[float, ...]:
        """Log shares of the choices among the ``k`` nearest demonstrations; 0: among all."""
        (shares,) = votes(self.pipe.bank, [self.query], k or self.most)
        return tuple(log_shares(shares, self.asked.choices))
