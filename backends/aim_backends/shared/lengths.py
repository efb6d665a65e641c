"""Prompts that do not fit into the context."""

from __future__ import annotations

from collections.abc import Sequence

from aim_sdk.errors import ContextLengthError


def check_length(
    title: str,
    limit: int,
    lengths: Sequence[int],
    new_tokens: int,
    bare: Sequence[int] = (),
    shots: Sequence[int] = (),
) -> None:
    """Refuse prompts that leave no room for ``new_tokens``.

    Args:
        title: what the message calls the model.
        limit: positions of its context.
        lengths: of the prompts.
        new_tokens: the most that an answer takes.
        bare: their lengths without demonstrations, if they have some.
        shots: how many demonstrations each has.

    Raises:
        ContextLengthError: one is too long; its ``query`` is the place, and the message says how many would fit.
    """
    longest = max(lengths)
    if longest + new_tokens <= limit:
        return
    row = list(lengths).index(longest)
    which = f" of query {row + 1} of {len(lengths)}" if len(lengths) > 1 else ""
    message = (
        f"the prompt{which} has {longest} tokens and up to {new_tokens} are to be generated, but {title}'s context "
        f"holds {limit}."
    )
    if bare and (cost := longest - bare[row]) and (room := limit - new_tokens - bare[row]) > 0:
        fits = max(0, min(shots[row] - 1, room * shots[row] // cost))
        message += f" About {fits} of its {shots[row]} demonstrations fit: use shots={fits}, or shorter texts."
    else:
        message += " Use fewer shots or shorter texts."
    error = ContextLengthError(message)
    error.query = row
    raise error
