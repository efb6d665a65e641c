"""Whole answers of a batch, with their log-probabilities."""

from __future__ import annotations

from aim_backends.shared.decoding import Decoder, Prompts
from aim_sdk.errors import CutAnswerError
from aim_sdk.types import Generation


def generated(decoder: Decoder, prompt: Prompts, *, log_probs: bool) -> list[Generation]:
    """Answer every prompt; ``log_probs``: with those of the chosen tokens.

    Raises:
        CutAnswerError: a constrained answer is not whole; its ``query`` is the place.
        NonFiniteError: see `Decoder.steps`.
    """
    rows: list[list[int]] = [[] for _ in prompt.lengths]
    logs: list[list[float]] = [[] for _ in rows]
    for step, logits in decoder.steps(prompt):
        for row, token in zip(rows, step, strict=True):
            if token is not None:
                row.append(token)
        if log_probs:
            for log, row, token in zip(logs, logits.float().log_softmax(-1), step, strict=True):
                if token is not None:
                    log.append(float(row[token]))
    made = []
    for place, (ids, log, length) in enumerate(zip(rows, logs, prompt.lengths, strict=True)):
        try:
            made.append(decoder.generation(ids, length, tuple(log) if log_probs else None))
        except CutAnswerError as error:
            error.query = place
            raise
    return made
