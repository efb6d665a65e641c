"""``torchrun -m aim_sdk.cli bank add``: a large set is read by several processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aim_sdk.bank.bank import DiskBank
    from aim_sdk.errors import InputError
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.types import Demonstration

    Source = Callable[[], Iterator[Demonstration]]


def ranks() -> int:
    """How many processes torchrun started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This one's number."""
    return int(os.environ.get("RANK", "0"))


def own_device(device: str | None) -> str | None:
    """The GPU of this process, if there are some and none is named."""
    import torch

    if device is not None or ranks() == 1 or not torch.cuda.is_available():
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextmanager
def put_together(
    bank: Path,
    pipe: AIMPipeline,
    source: Source,
    total: int | None,
    batch_tokens: int,
    *,
    keep_readings: bool,
    keep_images: bool,
) -> Iterator[DiskBank | None]:
    """Read this process's share, wait for the others, and hand the first process the bank, which takes all shares.

    What the bank or a part of an interrupted call has is not read. Once the block has ended, the parts are deleted.

    Args:
        bank: its folder.
        pipe: reads.
        source: gives all demonstrations, again at every call.
        total: how many there are about.
        batch_tokens: see `DemonstrationBank.add`.
        keep_readings, keep_images: what a new bank keeps.
    """
    import torch.distributed as group

    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.bank.parts import FromParts, Parts, part_folders

    group.init_process_group("gloo", timeout=timedelta(days=30))
    _read_share(bank, pipe, source, total, batch_tokens)
    group.barrier()
    if rank():
        yield None
    else:
        with ExitStack() as stack:
            encoder = FromParts(pipe.encoder, Parts(bank, pipe.encoder, stack))
            yield stack.enter_context(
                DemonstrationBank.open(
                    bank, encoder=encoder, create=True, keep_readings=keep_readings, keep_images=keep_images
                )
            )
        for folder in part_folders(bank):
            shutil.rmtree(folder)
    group.barrier()
    group.destroy_process_group()


def _read_share(bank: Path, pipe: AIMPipeline, source: Source, total: int | None, batch_tokens: int) -> None:
    import torch.distributed as group

    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.bank.disk.folder import INDEX
    from aim_sdk.bank.parts import Parts, part_folder
    from aim_sdk.errors import InputError

    with ExitStack() as stack:
        exists = (bank / INDEX).exists()
        held = stack.enter_context(DemonstrationBank.open(bank, encoder=pipe.encoder)) if exists else None
        before = Parts(bank, pipe.encoder, stack)
        group.barrier()  # nobody makes a part while others look for parts

        def is_there(item: Demonstration) -> bool:
            try:
                return (held is not None and held.holds(item)) or before.find(item) is not None
            except InputError:  # the first process says so
                return True

        def left_out(item: Demonstration, error: InputError) -> None:
            """The first process reads it again, and reports it."""

        share = (item for n, item in enumerate(source()) if n % ranks() == rank() and not is_there(item))
        part = stack.enter_context(
            DemonstrationBank.open(part_folder(bank, rank()), encoder=pipe.encoder, create=True, keep_readings=True)
        )
        if first := list(islice(share, 1)):
            part.add(
                chain(first, share),
                batch_tokens=batch_tokens,
                progress=rank() == 0,
                total=None if total is None else total // ranks(),
                on_error=left_out,
            )
