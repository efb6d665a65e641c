"""Messages for what stops a run: what happened, in which batch, and which setting to change."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aim_sdk.errors import TrainingError
from aim_sdk.files.atomic import write_atomic, writing
from aim_sdk.files.jobs import differences
from aim_sdk.training import checkpoint
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.journal import LOG
from aim_sdk.training.work import Work

_MAY_CHANGE: Final = frozenset(
    {"output", "device", "workers", "reading_tokens", "reading_cache_gb", "recompute_activations", "shard"}
    | {"checkpoint_every", "keep_checkpoints", "log_every"}
)
"""Settings that may differ when a run resumes: they do not change what it computes."""
_GO_ON: Final = "\nThe last checkpoint is untouched: the same command resumes from it."


def claim(config: TrainingConfig) -> None:
    """Note the settings in the run's folder. A run that has taken no step has nothing to keep: its log is removed too.

    Raises:
        TrainingError: the folder holds another run.
    """
    path = config.output / "config.json"
    own = json.loads(config.model_dump_json())
    if path.exists() and not checkpoint.steps_taken(config.output) and not (config.output / "projector").exists():
        with writing(config.output):
            if _differs(path, own):
                (config.output / LOG).unlink(missing_ok=True)  # its losses before the first step are another run's
    elif path.exists():
        theirs, names = _kept(path), _differs(path, own)
        unlike = [name for name in names if name != "steps"]
        if unlike:
            rows = "\n".join(
                differences({name: theirs.get(name) for name in names}, {name: own[name] for name in names})
            )
            raise TrainingError(
                f"{config.output} holds a run with other settings:\n{rows}\n"
                "Next: choose another output=<folder>, or delete this one."
            )
        if names and (reason := _fixed_steps(config)):
            raise TrainingError(
                f"{config.output} holds a run of {theirs.get('steps')} steps, not {config.steps}, and {reason}.\n"
                f"Next: start a new run from its projector: output=<folder> "
                f"projector.start={config.output / 'projector'}."
            )
    write_atomic(path, (json.dumps(own, indent=2) + "\n").encode())


def _kept(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _differs(path: Path, own: Mapping[str, Any]) -> list[str]:
    """The settings in which the run in the folder is another one."""
    theirs = _kept(path)
    return [name for name in own if name not in _MAY_CHANGE and own[name] != theirs.get(name)]


def _fixed_steps(config: TrainingConfig) -> str | None:
    """Why a run cannot continue to another number of steps; None if its steps are those of a longer run."""
    taken, rates = checkpoint.steps_taken(config.output), config.optimizer
    if rates.final_rate < 1:
        return (
            "its learning rate falls over its steps, so a longer run would have had other rates (with "
            "optimizer.final_rate=1 it can be extended)"
        )
    if config.steps < taken:
        return f"{taken} steps were taken already"
    if (warm_up := round(rates.warm_up * config.steps)) > taken:
        return f"optimizer.warm_up would make {warm_up} steps a warm-up, but only {taken} steps were taken"
    return None


def out_of_memory(config: TrainingConfig, work: Work, *, step: int) -> TrainingError:
    """Memory ran out in a batch."""
    settings = [
        f"batch_size (now {config.batch_size}; with more batches_per_step the step stays as large)",
        f"episodes.shots (up to {config.episodes.shots[1]})",
        f"reading_tokens ({config.reading_tokens})",
    ]
    changes = [f"a smaller {setting}" for setting in settings]
    changes += [] if config.recompute_activations else ["recompute_activations=true"]
    changes += [] if config.dtype else ["dtype=bfloat16"]
    return TrainingError(
        f"memory ran out in step {step}, in a batch of {len(work.episodes)} episodes; {_listed(config, [work])} lists "
        f"it.\nNext: {', or '.join(changes)}.{_GO_ON}"
    )


def not_a_number(
    config: TrainingConfig, works: Sequence[Work], *, step: int, loss: float, norm: float, dropped: Counter[str]
) -> TrainingError:
    """A step's loss or gradient is NaN or infinite, or all episodes of its batches were left out."""
    if not any(work.episodes for work in works):
        return TrainingError(
            f"step {step}: all episodes of its batches were left out. Left out so far: {dict(dropped)}.\n"
            "Next: look at `aim-icl corpus inspect`; fewer episodes.shots, a smaller episodes.max_characters or "
            "another objective.teacher make shorter prompts."
        )
    return TrainingError(
        f"step {step} has the loss {loss:.4g} and a gradient of norm {norm:.4g}; the step was not taken. "
        f"{_listed(config, works)} lists its episodes.{_slower(config)}"
    )


def no_parameters(config: TrainingConfig, step: int) -> TrainingError:
    """A step has made parameters that are NaN or infinite."""
    return TrainingError(
        f"after step {step} the projector has parameters that are NaN or infinite; they were not saved."
        f"{_slower(config)}"
    )


def _slower(config: TrainingConfig) -> str:
    rate = config.optimizer.learning_rate
    now = "the kind's own" if rate is None else f"{rate:g}"
    return f"\nNext: a smaller optimizer.learning_rate (now {now}), or dtype=float32.{_GO_ON}"


def _listed(config: TrainingConfig, works: Sequence[Work]) -> Path:
    """Write what a process's batches hold."""
    episodes = [
        {
            "document": episode.document,
            "demonstrations": [[item.text, item.answer] for item in episode.demonstrations],
            "query": episode.query.text,
            "answer": episode.answer,
        }
        for work in works
        for episode in work.episodes
    ]
    path = config.output / f"failed-batch-{os.environ.get('RANK', '0')}.json"  # torchrun's
    write_atomic(path, json.dumps(episodes, indent=1, ensure_ascii=False).encode())
    return path
