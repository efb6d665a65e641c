"""Settings of ``generate``: a checkpoint's own ones that are not used, and whose settings are at fault if it fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch

from aim_backends.hf.blame import OUT_OF_MEMORY, any_text, fails
from aim_backends.hf.tap import injected
from aim_sdk.errors import AIMError, CorruptArtifactError, InputError

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

_OTHER_WAYS: Final = (
    "assistant_early_exit",
    "cache_implementation",
    "constraints",
    "dola_layers",
    "force_words_ids",
    "is_assistant",
    "num_return_sequences",
    "penalty_alpha",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "token_healing",
    "use_cache",
    "use_mtp",
)
"""Settings that ask for another search, for several answers, or to run a prompt in another way."""

_NOT_SETTINGS: Final = ("logits_processor", "prefix_allowed_tokens_fn", "seed", "stopping_criteria")
"""Options that hold the caller's own code, whose errors are its own, and what ``generate`` does not take."""


def drop_other_ways(settings: Any) -> None:
    """Answers are greedy and one per query if the caller asks for nothing else: a checkpoint's settings say how tokens
    are weighted and where an answer ends, not how its prompt is run. ``settings`` are its ``generation_config``."""
    for name in _OTHER_WAYS:
        if getattr(settings, name, None) is not None:
            setattr(settings, name, None)


def at_fault(backbone: Backbone, given: Mapping[str, Any], rows: int, error: Exception) -> AIMError | None:
    """The error for settings that fail after any text: the caller's, or the checkpoint's own; None if neither do.

    Args:
        backbone: whose ``generate`` has failed.
        given: the caller's options.
        rows: of the batch.
        error: what it has raised.
    """
    if isinstance(error, (AIMError, *OUT_OF_MEMORY)):
        return None
    inputs = any_text(backbone, rows)
    plain = {"do_sample": False, "num_beams": 1, "max_new_tokens": 1, "pad_token_id": backbone.pad_token_id}
    with backbone.lock, torch.no_grad(), injected(None):
        if fails(lambda: backbone.model(**inputs)):
            return None
        if fails(lambda: backbone.generate(**inputs, **plain)):
            return CorruptArtifactError(unusable_settings(backbone.source, error))
        options = {name: value for name, value in given.items() if name not in _NOT_SETTINGS}
        if options and fails(lambda: backbone.generate(**inputs, **plain | options)):
            named = [name for name in options if name in str(error)] or sorted(options)
            told = ", ".join(f"{name}={options[name]!r}" for name in named)
            return InputError(f"generation option{'s' * (len(named) > 1)} {told}: {error}")
    return None


def unusable_settings(source: str, error: Exception) -> str:
    """What to do about a checkpoint whose settings of ``generate`` fail."""
    return (
        f"{source}/generation_config.json cannot be used ({type(error).__name__}: {error}).\n"
        "Next: correct that file, or leave it out."
    )
