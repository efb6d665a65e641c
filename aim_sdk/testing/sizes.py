"""More queries at a time, and answers of unlike lengths."""

from __future__ import annotations

from typing import Any

import torch

from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require, require_close, shown
from aim_sdk.testing.kit import check
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import QUERIES, SHOTS
from aim_sdk.testing.ties import is_tie, shared
from aim_sdk.types import Generation, Query

_TEMPLATE = "{image} Q: {text}\nA: {answer}"
_TOKENS = 4
_BEFORE = ((), (0,), (2, 3), (3,), (), (5, 6), (7,), (2,))
"""The demonstrations before each query of a batch, by their places."""


@check
@close("tokens, log-probabilities", bfloat16=0.05, float16=0.015)
def check_large_batch(backend: Backend) -> None:
    """Each query of a batch of eight gets the answer that it gets alone, however long the others' are.

    Catches large batches that answer one query or use one context for all, rows that come back sorted by length, and
    later tokens whose places count the padding.
    """
    queries = [*QUERIES, *(Query(shot.image, shot.text) for shot in (SHOTS[2], SHOTS[3], *SHOTS[5:]))]
    form = PromptFormat.plain(_TEMPLATE)
    contexts = [backend.reader.text_only([SHOTS[n] for n in places], prompt_format=form) for places in _BEFORE]
    free = backend.injector.generate(queries, contexts, prompt_format=form, max_new_tokens=_TOKENS)
    form = PromptFormat.plain(_TEMPLATE + _some_end(free))  # the same prompts; some answers now end early
    options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": _TOKENS, "log_probs": True}
    batch = backend.injector.generate(queries, contexts, **options)
    require(len(batch) == len(queries), f"{len(batch)} answers to {len(queries)} queries")
    for row, (query, context, found) in enumerate(zip(queries, contexts, batch, strict=True)):
        (alone,) = backend.injector.generate([query], [context], **options)
        same = (found.text, found.prompt_tokens) == (alone.text, alone.prompt_tokens)
        if not same and not is_tie(backend, query, context, found, alone, **options):
            rows = [
                n
                for n, made in enumerate(batch)
                if (made.text, made.prompt_tokens) == (alone.text, alone.prompt_tokens)
            ]
            require(
                False,
                f"row {row} of a batch of {len(batch)} is {found}; its query alone gives {alone}, which is "
                f"{f'row {rows[0]}' if rows else 'no row'} of the batch\n  {shown(backend, query, context, form)}",
            )
        logs, expected = (torch.tensor(made.log_probs or ())[: shared(found, alone)] for made in (found, alone))
        require_close(logs, expected, backend, f"log-probabilities of row {row} in a batch, and alone")


def _some_end(answers: list[Generation]) -> str:
    """A character that ends some of the answers and not all of them; "" if there is none."""
    texts = [made.text[1:] for made in answers]
    within = {
        character: sum(character in text for text in texts)
        for character in sorted(set("".join(texts)))
        if character.isprintable() and not character.isspace() and character not in "{}\ufffd"
    }
    uneven = [character for character, number in within.items() if number < len(answers)]
    return max(uneven, key=within.__getitem__, default="")
