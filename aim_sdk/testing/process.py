"""The process-wide state that an adapter can change: named, compared, and restored after each check."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_SEED = 20_260_101


def process_state() -> dict[str, object]:
    """The process-wide state, by name; two such states can be compared."""
    kind, keys, *place = np.random.get_state()
    return {
        "torch's gradient mode (`torch.no_grad()` gives it back)": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's choice of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's random generator (a `torch.Generator` is one's own)": torch.get_rng_state().numpy().tobytes(),
        "Python's random generator": random.getstate(),
        "numpy's random generator": (kind, np.asarray(keys).tobytes(), *place),
    }


@contextmanager
def process_kept() -> Iterator[None]:
    """Restore what a block changed for the whole process."""
    drawn, numbers = random.getstate(), np.random.get_state()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numbers)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def seed_the_process() -> None:
    """Set the random generators to a state that no adapter's own seed gives."""
    random.seed(_SEED)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
