"""How many demonstrations a task's queries are shown: what the command, the task and ``--model_args`` say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aim_sdk.errors import InputError, ShotsError
from aim_sdk.evaluation.lmms_eval.splits import evaluated
from aim_sdk.injection.given import shots_of
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Mode

POOL = 2048
"""Demonstrations are drawn from so many documents of a split, as in OpenFlamingo's protocol."""


@dataclass(frozen=True, slots=True)
class FewShotArguments:
    """What ``--model_args`` say about demonstrations.

    Args:
        shots: how many; must agree with ``--num_fewshot`` if both are given.
        bank: where they come from; None: from a split of the task's own data.
        selector, mode: see `AimModel`.
        split: the split; None: the task's own for it.
        answer: the column that holds their answers; None: the task's ``doc_to_target``.
        pool: they are drawn from so many random documents of the split; None: 2048.

    Raises:
        InputError: a number is none.
    """

    shots: int | None
    bank: str | None
    selector: str
    mode: Mode
    split: str | None
    answer: str | None
    pool: int | None

    def __post_init__(self) -> None:
        shots_of(self.shots)
        if self.pool is not None:
            whole_number("pool", self.pool, 1)
        if self.bank is not None and self._of_splits:
            raise InputError(f"{self._of_splits[0]}: demonstrations come from bank={self.bank}; leave one of them out.")

    def count(self, task: Any) -> int | None:
        """How many demonstrations a task's queries are shown; None: of the bank, up to 8.

        Args:
            task: lmms-eval's task, as it was prepared for the run.

        Raises:
            InputError: two numbers that differ, or something that only demonstrations need.
        """
        name, asked = task.config.task, task.config.num_fewshot or 0
        if asked < 0:
            raise InputError(f"--num_fewshot {asked}: expected a whole number of at least 0.")
        if asked and self.shots not in (None, asked):
            raise InputError(
                f"task {name}: shots={self.shots}, but --num_fewshot (or the task's YAML file) says {asked}. "
                "Leave shots out, or give the same number."
            )
        if asked and self.mode == "zero-shot":
            raise InputError(
                f"task {name}: mode=zero-shot shows none, but --num_fewshot is {asked}. Leave one of them out."
            )
        if asked or self.bank is not None:
            return asked or self.shots
        self.check_zero_shot(name)
        return 0

    def check_zero_shot(self, name: str) -> None:
        """Refuse what needs demonstrations, where there are to be none.

        Raises:
            InputError: naming what to give.
        """
        given = [f"shots={self.shots}"] if self.shots else self._of_splits
        if given:
            number = self.shots or "N"
            raise InputError(
                f"task {name}: {given[0]}, but no demonstrations: neither --num_fewshot nor a bank is given.\n"
                f"Next: --num_fewshot {number} takes them from the task's own training split; bank=FOLDER from a bank "
                "(`aim-icl bank add`)."
            )

    def check_command(self, task: Any, asked: int) -> None:
        """Refuse a run that does not do what its command says.

        Args:
            task: lmms-eval's task.
            asked: its ``num_fewshot``, as it was prepared.

        Raises:
            InputError: lmms-eval did not use the command's ``--num_fewshot``, or 0 was asked for and there is a bank.
        """
        typed = getattr(getattr(task, "args", None), "num_fewshot", None)
        name = task.config.task
        if typed is not None and typed != asked:
            raise InputError(
                f"task {name}: --num_fewshot {typed} is ignored by lmms-eval, because the task's YAML file says "
                f"num_fewshot: {asked}. Change the file (or `include` it in one of your own), or leave the option out."
            )
        if typed == 0 and self.bank is not None and self.shots != 0 and self.mode != "zero-shot":
            raise InputError(
                f"--num_fewshot 0, but bank={self.bank} gives demonstrations. Leave one of them out, or add shots=0."
            )

    @property
    def _of_splits(self) -> list[str]:
        given = {"fewshot_split": self.split, "fewshot_answer": self.answer, "pool": self.pool}
        return [f"{name}={value}" for name, value in given.items() if value is not None]


def check_enough(task: Any, split: str, documents: int, shots: int, pool: int) -> None:
    """Refuse more shots than a query can be shown.

    Raises:
        ShotsError: naming both numbers.
    """
    own = split == evaluated(task)
    there = min(documents - own, pool)
    if shots > there:
        said = f"pool={pool}" if pool < documents - own else f"split {split!r} has {documents} documents"
        said += ", and a query's own is not shown" if own else ""
        raise ShotsError(f"task {task.config.task}: --num_fewshot {shots}, but {said}. Ask for at most {there}.")
