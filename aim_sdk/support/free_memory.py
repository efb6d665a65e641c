"""How much memory a device has left: a GPU's own, or the RAM that this process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """The bytes that are free on a device now; None if the device does not say.

    On the CPU: what the system can give without swapping, and no more than the limit of this process's control group
    (a container's) leaves.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    if device.type != "cpu":
        return None
    return min([int(psutil.virtual_memory().available), *_left_by_groups(_CGROUPS, Path("/proc/self/cgroup"))])


def _left_by_groups(root: Path, membership: Path) -> Iterator[int]:
    """What each control group that this process is in leaves of its limit; a file that is missing sets none.

    Args:
        root: where control groups are mounted.
        membership: lists the groups, as ``/proc/self/cgroup``.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, top = ("memory.max", "memory.current", "inactive_file"), root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            top = root / "memory"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):  # the limits of those above hold, too
            if (left := _left(folder, *names)) is not None:
                yield left
            if folder == top:
                break


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """What one group leaves of its limit; pages of files, which are given back when needed, count as free."""
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(stat.get(reclaimable, 0)))
    except (OSError, ValueError):  # no such file, or "max"
        return None
