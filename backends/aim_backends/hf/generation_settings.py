"""Settings of ``generate``: what callers may set, what a checkpoint may not, and whose are at fault if it fails."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from aim_backends.hf.blame import OUT_OF_MEMORY, any_text, fails
from aim_backends.hf.tap import injected
from aim_sdk.errors import AIMError, CorruptArtifactError, InputError, problem

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

_INPUTS: Final = ("inputs", "input_ids", "inputs_embeds", "attention_mask", "streamer", "max_length")
_RUN: Final = ("prefill_chunk_size", "token_healing")
"""They run a prompt in parts, or change it: fused tokens would be lost."""
_RETURNED: Final = ("return_dict_in_generate", "output_logits", "output_scores")
_OURS: Final = (*_INPUTS, *_RETURNED)
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


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _several(value: Any) -> Any:
    """One token as a list of it."""
    value = _plain(value)
    return [value] if isinstance(value, int) else value


_Whole = Annotated[StrictInt, BeforeValidator(_plain)]
_Tokens = Annotated[list[StrictInt] | None, BeforeValidator(_several)]


class CallerOptions(BaseModel):
    """The options that are looked at here; ``generate`` looks at all others."""

    model_config = ConfigDict(extra="ignore")

    do_sample: Annotated[StrictBool, BeforeValidator(_plain)] = False
    num_beams: Annotated[_Whole, Field(ge=1)] = 1
    num_return_sequences: Annotated[_Whole, Field(ge=1)] = 1
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[_Whole, Field(ge=0, lt=2**63)] | None = None
    eos_token_id: _Tokens = None
    pad_token_id: Annotated[_Whole, Field(ge=0)] | None = None
    suppress_tokens: _Tokens = None
    logits_processor: list[Any] = []
    stopping_criteria: list[Any] = []

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a caller has given, and nothing else.

        Raises:
            InputError: an option that the injector sets itself or that would lose fused tokens, or a bad value.
        """
        if ours := sorted(set(given) & set(_OURS)):
            raise InputError(f"generation option {ours[0]!r} is set by the injector itself; remove it.")
        if lost := sorted(set(given) & set(_RUN)):
            raise InputError(
                f"generation option {lost[0]!r} changes how a prompt is run: fused tokens would be lost; remove it."
            )
        if "generation_config" in given:
            raise InputError("generation_config=: pass its settings as options instead, such as num_beams=3.")
        try:
            found = cls(**given)
        except ValidationError as error:
            raise InputError(f"generation option {problem(error)}.") from error
        return {**given, **{name: getattr(found, name) for name in found.model_fields_set}}


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
        if fails(lambda: backbone.forward(**inputs)):
            return None
        if fails(lambda: backbone.generate(**inputs, **plain)):
            return CorruptArtifactError(unusable_settings(backbone.source, error))
        options = {name: value for name, value in given.items() if name not in _NOT_SETTINGS}
        if options and fails(lambda: backbone.generate(**inputs, **plain | options)):
            named = [name for name in options if name in str(error)] or sorted(options)
            told = ", ".join(f"{name}={reprlib.repr(options[name])}" for name in named)
            return InputError(f"generation option{'s' * (len(named) > 1)} {told}: {error}")
    return None


def unusable_settings(source: str, error: Exception) -> str:
    """What to do about a checkpoint whose settings of ``generate`` fail."""
    return (
        f"{source}/generation_config.json, or what was changed of these settings since, cannot be used "
        f"({type(error).__name__}: {error}).\nNext: correct that file, or leave it out."
    )
