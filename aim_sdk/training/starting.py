"""What a run begins with: the loaded backbone, a projector, a teacher, and what is kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Final

import torch
from accelerate import Accelerator

from aim_sdk.backend.capabilities import HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.registry import get_backend
from aim_sdk.errors import InputError
from aim_sdk.files.jobs import LOCK, alone
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.beginning import Calibrates, Fits
from aim_sdk.projectors.kinds import untrained
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.progress import advancing
from aim_sdk.support.terminal import say
from aim_sdk.training.average import copied
from aim_sdk.training.config import ProjectorSettings, TrainingConfig
from aim_sdk.training.data import training_demonstrations, typical_demonstrations
from aim_sdk.training.failures import claim
from aim_sdk.training.forward import Forward
from aim_sdk.training.teachers import teacher_for
from aim_sdk.training.teaching import TargetCache, Teaching
from aim_sdk.types import Reading

_TYPICAL: Final = 64
"""Demonstrations that a projector is shown before its training."""


def claim_folder(config: TrainingConfig, stack: ExitStack) -> None:
    """Take the run's folder for all processes of the job, as long as the stack is open.

    Raises:
        ArtifactWriteError: another job is writing there.
        TrainingError: it holds another run.
    """
    stack.enter_context(alone(config.output / LOCK))
    claim(config)


def load(config: TrainingConfig, accelerator: Accelerator) -> tuple[Backend, Projector]:
    """Load the backbone, and make or load the projector.

    Raises:
        InputError: the settings of the projector to start from are not its own.
        AIMError: the backend or the projector cannot be loaded.
    """
    device = config.device if config.device or accelerator.num_processes == 1 else str(accelerator.device)
    backend = get_backend(config.backend).from_pretrained(
        config.model, device=device, dtype=config.dtype, **config.backend_options
    )
    torch.manual_seed(config.seed)
    vocabulary = capability(backend, HasVocabulary).vocabulary
    settings = config.projector
    if settings.start is not None:
        projector = Projector.from_pretrained(settings.start)
        _check_start(settings, projector)
        projector.attach(vocabulary)
    else:
        projector = untrained(settings.kind, vocabulary, layers=settings.layers, **settings.options)
    return backend, projector.to(torch.float32).requires_grad_().train()


def _check_start(settings: ProjectorSettings, projector: Projector) -> None:
    """The settings of a projector to start from must match it: it has its own kind, layers and options."""
    has = {"kind": projector.kind, "layers": projector.layers, "options": projector.options}
    told = settings.model_dump(include=settings.model_fields_set & has.keys())
    if differing := [name for name, value in told.items() if value != has[name]]:
        rows = "".join(f"\n  projector.{name}: {has[name]} there, {told[name]} here" for name in differing)
        raise InputError(f"{settings.start} is a projector with other settings:{rows}\nNext: leave these settings out.")


def begin(encoder: Encoder, config: TrainingConfig, *, fitting: bool, show: bool) -> tuple[Projector, int]:
    """Prepare a projector for its first step, in place.

    Args:
        encoder: holds the projector.
        config: the run's.
        fitting: False: the run resumes, and a checkpoint has the weights.
        show: whether to show progress on stderr.

    Returns:
        The projector as it is before it is fitted, which the run is compared with; and to how many readings it was
        fitted.
    """
    if fitting and isinstance(encoder.projector, Calibrates):
        work = Forward(encoder, reading_tokens=config.reading_tokens)
        encoder.projector.calibrate(work.readings(typical_demonstrations(config, _TYPICAL)))
    start = copied(encoder.projector, capability(encoder.backend, HasVocabulary).vocabulary)
    return start, _fit(encoder, config, show=show) if fitting else 0


def _fit(encoder: Encoder, config: TrainingConfig, *, show: bool) -> int:
    """Fit a new projector to readings of the corpus, if it can be; what is held out is not read."""
    projector, settings = encoder.projector, config.projector
    if not (settings.fit and settings.start is None and isinstance(projector, Fits) and len(projector.layers) > 1):
        return 0
    work, shown = Forward(encoder, reading_tokens=config.reading_tokens), training_demonstrations(config, settings.fit)
    with advancing("fitting, readings", settings.fit, shown=show) as advance:

        def readings() -> Iterator[Reading]:
            while chunk := list(islice(shown, _TYPICAL)):
                yield from work.readings(chunk)
                advance(len(chunk))

        fitted = projector.fit(readings())
    if show and not fitted:
        say(
            f"the projector is not fitted: readings of {encoder.backend.name!r} do not show how images differ",
            err=True,
        )
    return fitted


def reading_cache(
    config: TrainingConfig, encoder: Encoder, accelerator: Accelerator, stack: ExitStack
) -> ReadingCache | None:
    """Where this process keeps readings; None if the settings give them no space."""
    if not (limit := _limit(config, accelerator)):
        return None
    cache = ReadingCache(config.output / "readings", encoder, limit=limit, rank=accelerator.process_index)
    stack.callback(cache.close)
    return cache


def teaching(config: TrainingConfig, encoder: Encoder, accelerator: Accelerator, stack: ExitStack) -> Teaching:
    """The run's teacher, with what it keeps on disk.

    Raises:
        InputError: the backbone cannot be the teacher that the settings name.
    """
    rank, top, limit = accelerator.process_index, config.objective.top_tokens, _limit(config, accelerator)
    teacher = teacher_for(config, encoder, rank)
    stack.callback(teacher.close)
    if not (limit and top):
        return Teaching(teacher, top=top)
    scope = f"{encoder.scope} {type(teacher).__name__} {top}"
    cache = TargetCache(config.output / "targets", scope, limit=limit, rank=rank)
    stack.callback(cache.close)
    return Teaching(teacher, top=top, cache=cache)


def _limit(config: TrainingConfig, accelerator: Accelerator) -> float:
    """Bytes that one process may keep on disk."""
    return config.reading_cache_gb * 1e9 / int(accelerator.num_processes)
