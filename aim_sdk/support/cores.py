"""Which threads compute on the CPU's cores.

torch computes with OpenMP, which gives each thread that computes as many helpers as there are cores. Helpers wait awake
for the next operation, but GNU's OpenMP lets all of them sleep as soon as there are more than cores: small operations
then take twice as long, also if a single thread computes at a time. So one thread at a time has helpers.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


def leave_cores() -> None:
    """Called in a thread that prepares something while another one computes: it takes no helpers, and comes last."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    torch.get_num_threads()  # sets this thread's helpers once, and would do so later
    for library in _openmp():
        library.set_num_threads(1)  # of this thread alone


def hand_over_cores() -> None:
    """Called before another thread computes in this one's place: its helpers end, and come again when it computes."""
    for library in _openmp():
        if library.prefix == "libgomp":  # others let nobody sleep
            library.dynlib.omp_pause_resource_all(_SOFT)


_SOFT = 1
"""`omp_pause_soft`: settings stay."""


def _openmp() -> list[Any]:
    """The OpenMP libraries that are loaded: torch's, and those of others."""
    return [found for found in ThreadpoolController().lib_controllers if found.user_api == "openmp"]
