"""A task as it is run: where its demonstrations come from, in its configuration and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aim_sdk.errors import InputError
from aim_sdk.evaluation.lmms_eval.few_shot import POOL, FewShotArguments, check_enough
from aim_sdk.evaluation.lmms_eval.sampler import ImageSampler
from aim_sdk.evaluation.lmms_eval.split_shots import SplitShots
from aim_sdk.evaluation.lmms_eval.splits import Split, split_of
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import DEFAULT_SHOTS


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """What the queries of a task are shown."""

    task: Any
    """lmms-eval's."""
    arguments: FewShotArguments
    asked: int
    """Its ``num_fewshot``, as lmms-eval prepared it."""
    of_bank: Shots
    """What is shown, if there is no split."""
    split: SplitShots | None = None
    said: str = ""
    """One line for people; empty for zero-shot."""

    def check(self) -> None:
        """Refuse to answer requests that are not what the command asks for.

        Raises:
            InputError: see `FewShotArguments.check_command`; or the questions were not made in this run.
        """
        self.arguments.check_command(self.task, self.asked)
        if self.asked and not self.task.sampler.asked:
            raise InputError(
                f"task {self.task.config.task}: its questions come from lmms-eval's cache of requests, where another "
                "model's demonstrations may be written into them. Next: leave --cache_requests out."
            )


def prepare(arguments: FewShotArguments, task: Any, seed: int | None, encoder: Encoder, *, show: bool) -> PreparedTask:
    """Decide what a task's queries are shown; its configuration says so from then on.

    Args:
        arguments: the model's.
        task: lmms-eval's, whose settings are final.
        seed: lmms-eval's few-shot seed.
        encoder: reads demonstrations.
        show: a progress bar on stderr while they are read.

    Raises:
        InputError: the task has no demonstrations of that number, or none at all.
    """
    config, asked, count = task.config, task.config.num_fewshot or 0, arguments.count(task)
    if count == 0 or arguments.mode == "zero-shot":
        return PreparedTask(task, arguments, asked, Shots(mode="zero-shot"))
    how: dict[str, Any] = {"selector": arguments.selector, "mode": arguments.mode}
    split = None
    if arguments.bank is not None:
        where: dict[str, Any] = {"bank": arguments.bank}
        source = f"the bank {arguments.bank}"
    else:
        assert count is not None
        documents, pool = Split(task, split_of(task, arguments.split), arguments.answer), arguments.pool or POOL
        check_enough(task, documents.name, len(documents), count, pool)
        documents.image(0)  # refuses a task of videos, or of several images, before its texts are read
        how |= {"seed": seed or 0}
        split = SplitShots(encoder, documents, count, pool=pool, show=show, **how)
        where = {"split": documents.name, "documents": len(documents), "pool": len(split.pool)}
        source = f"{len(split.pool)} of the {len(documents)} documents of split {documents.name!r}"
    task.sampler = ImageSampler(task)
    task.set_config("fewshot_config", {"sampler": "aim", **where, **how, "shots": count or f"up to {DEFAULT_SHOTS}"})
    if count is not None:
        task.set_config("num_fewshot", count)
    number = count or f"up to {DEFAULT_SHOTS}"
    settings = ", ".join(f"{name} {value}" for name, value in how.items())
    said = f"{config.task}: {number} demonstrations per query from {source}; {settings}."
    shots = Shots(count, selector=arguments.selector, mode=arguments.mode)
    return PreparedTask(task, arguments, asked, shots, split, said)
