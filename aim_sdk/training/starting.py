"""What a run begins with: the loaded backbone, a projector, a teacher, and what is kept on disk."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import torch
from accelerate import Accelerator

from aim_sdk.backend.capabilities import HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.registry import get_backend
from aim_sdk.errors import InputError
from aim_sdk.projectors.base import Calibrates, Projector
from aim_sdk.projectors.kinds import untrained
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.training.config import ProjectorSettings, TrainingConfig
from aim_sdk.training.data import typical_demonstrations
from aim_sdk.training.forward import Forward
from aim_sdk.training.teachers import teacher_for
from aim_sdk.training.teaching import TargetCache, Teaching

_TYPICAL: Final = 64
"""Demonstrations that a projector is shown before its training."""


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


def calibrate(encoder: Encoder, config: TrainingConfig) -> None:
    """Show a projector that asks for it some typical readings."""
    if isinstance(encoder.projector, Calibrates):
        work = Forward(encoder, reading_tokens=config.reading_tokens)
        encoder.projector.calibrate(work.readings(typical_demonstrations(config, _TYPICAL)))


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
