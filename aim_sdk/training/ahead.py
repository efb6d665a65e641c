"""Batches are decoded and tokenised in a thread while the backbone computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from aim_sdk.support.cores import leave_cores
from aim_sdk.training.data import EpisodeBatch
from aim_sdk.training.forward import Forward
from aim_sdk.training.work import Work

_AHEAD: Final = 2
"""Prepared batches that wait while one is computed."""


@contextmanager
def prepared_ahead(batches: Iterator[EpisodeBatch], forward: Forward) -> Iterator[Iterator[tuple[EpisodeBatch, Work]]]:
    """Inside the block, iterate over the batches in order, each with what was prepared for it."""

    def prepare() -> tuple[EpisodeBatch, Work]:
        batch = next(batches)
        return batch, forward.prepare(batch.episodes)

    def works(pool: ThreadPoolExecutor) -> Iterator[tuple[EpisodeBatch, Work]]:
        waiting: deque[Future[tuple[EpisodeBatch, Work]]] = deque()
        while True:
            while len(waiting) <= _AHEAD:
                waiting.append(pool.submit(prepare))
            yield waiting.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="aim-batch", initializer=leave_cores) as pool:
        try:
            yield works(pool)
        finally:
            pool.shutdown(cancel_futures=True)
