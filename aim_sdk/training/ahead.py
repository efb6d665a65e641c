"""Batches are decoded and tokenised in a thread while the backbone computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from aim_sdk.reading.encoder import yield_cores
from aim_sdk.training.data import Batch
from aim_sdk.training.forward import Forward, Work

_AHEAD: Final = 2
"""Batches that wait, prepared, after the one that is computed."""


@contextmanager
def prepared_ahead(batches: Iterator[Batch], forward: Forward) -> Iterator[Iterator[tuple[Batch, Work]]]:
    """Inside the block, iterate over the batches in order, each with what was prepared of it."""

    def prepare() -> tuple[Batch, Work]:
        batch = next(batches)
        return batch, forward.prepare(batch.episodes)

    def works(pool: ThreadPoolExecutor) -> Iterator[tuple[Batch, Work]]:
        waiting: deque[Future[tuple[Batch, Work]]] = deque()
        while True:
            while len(waiting) <= _AHEAD:
                waiting.append(pool.submit(prepare))
            yield waiting.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="aim-batch", initializer=yield_cores) as pool:
        try:
            yield works(pool)
        finally:
            pool.shutdown(cancel_futures=True)
