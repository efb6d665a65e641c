"""lmms-eval's arguments and contexts, in this SDK's terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError, unknown

_MAX_NEW_TOKENS: Final = 1024
"""The defaults of lmms-eval's own models, used if a task does not set them."""
_PASSED: Final = ("num_beams", "top_p", "top_k", "repetition_penalty", "length_penalty")
_IMAGE: Final = "<image>"


def check_known(given: Mapping[str, object], names: Collection[str]) -> None:
    """Refuse arguments of ``--model_args`` that the model does not take.

    Raises:
        InputError: there is one.
    """
    for name in given:
        raise InputError(f"model aim: {unknown('argument', name, names)}")


def batch_size_of(given: int | str) -> int:
    """Return the prompts of a forward.

    Raises:
        InputError: not a whole number of at least 1 (``auto``, say).
    """
    if not str(given).isdecimal() or int(given) < 1:
        raise InputError(
            f"--batch_size {given}: expected a whole number of at least 1; model aim cannot choose one by itself."
        )
    return int(given)


def check_bank(bank: str | None) -> None:
    """Refuse a bank that is not there.

    Raises:
        ArtifactNotFoundError: no bank is there.
    """
    if bank is not None:
        DemonstrationBank.check_there(bank)


def generation_of(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the keywords of `aim_sdk.AIMPipeline.generate`, and the strings that end an answer.

    Raises:
        InputError: ``until`` is neither a string nor a list of some.
    """
    until = given.get("until") or []  # a task without separators has None
    until = [until] if isinstance(until, str) else until
    if not isinstance(until, Sequence) or not all(isinstance(stop, str) for stop in until):
        raise InputError(f"until={until!r}: expected a string or a list of strings.")
    options = {name: given[name] for name in _PASSED if given.get(name) is not None}
    if options.get("num_beams") == 1:  # the default, which not every backend has a name for
        del options["num_beams"]
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
