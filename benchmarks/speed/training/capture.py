"""From batches of episodes to steps whose inputs are ready: each batch runs once by the SDK; its inputs are noted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from aim_backends.hf import TransformersBackend
from aim_backends.pocket.backend import PocketBackend
from aim_sdk.backend.interfaces import Backend
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.training import TrainingConfig
from aim_sdk.training.data import EpisodeBatch
from aim_sdk.training.forward import Forward
from aim_sdk.training.objectives import WeightedSum
from aim_sdk.training.targets import Target
from aim_sdk.training.work import Work
from benchmarks.speed.training.floor import Bare, Step, loss_of
from benchmarks.speed.training.hf import BareTransformers
from benchmarks.speed.training.pocket import BarePocket


def bare_of(backend: Backend) -> Bare:
    """A loaded backend's model, without the SDK."""
    if isinstance(backend, PocketBackend):
        return BarePocket(backend)
    assert isinstance(backend, TransformersBackend)
    return BareTransformers(backend)


@torch.no_grad()
def captured(
    bare: Bare, forward: Forward, batch: EpisodeBatch, objectives: Sequence[str], config: TrainingConfig
) -> Step:
    """One batch's step; its teacher and its targets, if the forward has a teacher.

    Raises:
        AssertionError: by floor and by trainer it has two losses.
    """
    work = forward.prepare(batch.episodes)
    if work.dropped:
        raise SystemExit(f"the corpus cannot be used: {dict(work.dropped)}")
    parts = [[work.names[place] for place in part.places] for part in work.reads]
    with bare.noting() as given:
        readings = forward.read(work)
        work.reads, work.cached = [], {name: reading.kept() for name, reading in readings.items()}
        students = forward.run(work).students
    if work.dropped:
        raise SystemExit(f"the corpus cannot be used: {dict(work.dropped)}")
    *reads, asked = given
    taught = reads.pop() if forward.teaching else None
    device, keys = forward.backend.device, [lesson.keys for lesson in work.lessons]
    items = dict(zip(chain(*keys), chain(*(e.demonstrations for e in work.episodes)), strict=True))
    queries = [[episode.query.image] for episode in work.episodes]
    shown = [[*(item.image for item in e.demonstrations), e.query.image] for e in work.episodes]
    names, read = list(readings), list(chain(*parts))
    fused, answers = [sum(len(readings[name]) for name in row) for row in keys], list(map(len, students))
    rows = [(names.index(name), n) for row in keys for name in row for n in range(len(readings[name]))]
    first, second = torch.tensor(rows).T.to(device)
    step = Step(
        reads=[
            bare.reads(one, [items[name] for name in part], [readings[name] for name in part])
            for one, part in zip(reads, parts, strict=True)
        ],
        order=[read.index(name) for name in names],
        batch=ReadingBatch.collate([readings[name] for name in names]),
        rows=(first, second),
        slots=bare.slots(asked, fused),
        student=bare.prompts(asked, queries, answers),
        teacher=None if taught is None else bare.prompts(taught, shown, answers),
        wanted=torch.cat([student.token_ids for student in students]),
        target=_joined(work),
        weights=torch.cat([torch.full((n,), 1 / n / len(answers), device=device) for n in answers]),
        read_tokens=sum(map(len, readings.values())),
        answer_tokens=sum(fused) + sum(answers),
    )
    for objective in objectives:
        whole = WeightedSum({objective: 1.0})
        pairs = zip(students, work.lessons, strict=True)
        ours = torch.stack([whole.loss(student, lesson.target) for student, lesson in pairs]).mean()
        _check_same(bare, forward, step, objective, ours, config.objective.top_tokens)
    return step


def _check_same(bare: Bare, forward: Forward, step: Step, objective: str, ours: Tensor, top: int) -> None:
    close = 1e-4 if forward.backend.dtype == torch.float32 else 5e-2
    for ready in (False, True):
        found = loss_of(bare, forward.projector, step, objective, ready=ready, top=top)
        torch.testing.assert_close(found, ours, rtol=close, atol=close / 100, check_dtype=False)


def _joined(work: Work) -> Target | None:
    """The targets of all lessons, one after the other."""
    targets = [lesson.target for lesson in work.lessons if lesson.target is not None]
    if not targets:
        return None
    known = [[part for part in (t.token_ids, t.top, t.ids, t.rest) if part is not None] for t in targets]
    return Target(*map(torch.cat, zip(*known, strict=True)))
