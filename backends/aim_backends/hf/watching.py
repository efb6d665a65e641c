"""What watches generation step by step: processors of logits, criteria that end it, and the streamer of its text."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.support.finite import not_finite

if TYPE_CHECKING:
    from aim_backends.hf.decoding import Decoding


class Finite(LogitsProcessor):
    """Refuses logits with NaN or infinity, which would become token 0 or a failed draw.

    The first logits are checked at once, where most backbones that overflow do so. Later steps do not wait for the
    device: it records what is lost, and `check` looks when the answer is complete.
    """

    def __init__(self, queries: int, dtype: torch.dtype, *, drawn: bool) -> None:
        self._queries, self._dtype, self._drawn = queries, dtype, drawn
        self._lost: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        lost = ~scores.amax(-1).isfinite()  # with NaN anywhere in a row, the largest is NaN
        if self._lost is None:
            self._lost = lost
            self.check()
        self._lost = self._lost | lost if len(self._lost) == len(lost) else self._lost.any() | lost
        return scores.masked_fill(lost[:, None], 0.0) if self._drawn else scores  # a draw from NaN fails

    def check(self) -> None:
        """Raise NonFiniteError for the first query that is lost."""
        if self._lost is None or not bool(self._lost.any()):
            return
        error = not_finite("the backbone's logits", self._dtype)
        error.query = int(self._lost.nonzero()[0, 0]) * self._queries // len(self._lost)
        raise error


class AnswerEnds(StoppingCriteria):
    """Ends a row where its answer does. Unlike with ``stop_strings``, a string that leads it does not count."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        width = self._decoding.width
        return torch.tensor(self._decoding.over(input_ids[:, width:].tolist()), device=input_ids.device)


class Admitted(LogitsProcessor):
    """Leaves the tokens that a grammar admits."""

    def __init__(self, grammar: AnswerGrammar, width: int) -> None:
        self._grammar, self._width = grammar, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self._grammar.admit(input_ids[:, self._width :].tolist(), scores)


class Left(StoppingCriteria):
    """Ends generation when its reader has left."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class Pieces(BaseStreamer):
    """Generated text from one thread to another. Decodes the whole answer each time: exact for every tokenizer."""

    def __init__(self, decode: Callable[[list[int]], str], settled: Callable[[list[int]], bool]) -> None:
        self._decode, self._settled = decode, settled
        self.ids: list[int] = []
        self._given = 0
        self._queue: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        self._prompt = True
        self.left = Left()

    def put(self, value: Tensor) -> None:
        if self._prompt:
            self._prompt = False
            return
        self.ids += value.flatten().tolist()
        if self._settled(self.ids):
            self._give()

    def end(self) -> None:
        self._give()

    def finish(self) -> None:
        self._queue.put(None)

    def fail(self, error: BaseException) -> None:
        self._queue.put(error)

    def __iter__(self) -> Iterator[str]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _give(self) -> None:
        text = self._decode(self.ids)
        self._queue.put(text[self._given :])
        self._given = len(text)
