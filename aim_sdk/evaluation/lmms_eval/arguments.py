"""lmms-eval's generation arguments and contexts, in this SDK's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aim_sdk.errors import InputError

_MAX_NEW_TOKENS: Final = 1024
"""What lmms-eval's own models take where a task says nothing."""
_PASSED: Final = ("num_beams", "top_p", "top_k", "repetition_penalty", "length_penalty")
_IMAGE: Final = "<image>"


def generation_of(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the keywords of :meth:`aim_sdk.AIMPipeline.generate`, and the strings that end an answer.

    Raises:
        InputError: ``until`` is neither a string nor a list of some.
    """
    until = given.get("until", [])
    until = [until] if isinstance(until, str) else until
    if not isinstance(until, Sequence) or not all(isinstance(stop, str) for stop in until):
        raise InputError(f"until={until!r}: expected a string or a list of strings.")
    options = {name: given[name] for name in _PASSED if given.get(name) is not None}
    temperature = given.get("temperature") or 0
    if temperature > 0:
        options |= {"do_sample": True, "temperature": temperature}
    else:  # greedy has no use for them
        options.pop("top_p", None)
        options.pop("top_k", None)
    return options | {"max_new_tokens": given.get("max_new_tokens") or _MAX_NEW_TOKENS}, list(until)


def stopped(text: str, until: Sequence[str]) -> str:
    """Cut an answer before the first of the strings that end it."""
    for stop in until:
        if stop:
            text = text.split(stop, 1)[0]
    return text


def text_of(context: str) -> str:
    """A context without the places of images, which some tasks write: the prompt format says where the image stands."""
    return context.replace(_IMAGE, "").strip()
