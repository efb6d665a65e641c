"""Shows the queries of one task demonstrations from a split of the task's own data."""

from __future__ import annotations

from collections.abc import Sequence

from aim_sdk.bank import DemonstrationBank
from aim_sdk.evaluation.demonstrations import DemonstrationDraw
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.lmms_eval.splits import Split
from aim_sdk.evaluation.protocol import PromptSettings, get_protocol
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.registry import get_selector
from aim_sdk.support.modes import READ
from aim_sdk.types import Mode, Query


class SplitShots:
    """The demonstrations of one task, which have a bank of their own: what else is evaluated does not change them.

    ``random`` draws for each query by seed, task and document, and reads what was drawn. Other selectors choose from a
    pool, which is read whole before the first query: so many random documents of the split, the same for all queries.

    Args:
        encoder: reads them.
        split: where they come from.
        shots: how many each query is shown.
        selector: a name.
        mode: how they are shown.
        pool: how many documents are drawn from.
        seed: another one gives other draws.
        show: a progress bar on stderr while the pool is read.
    """

    def __init__(
        self, encoder: Encoder, split: Split, shots: int, *, selector: str, mode: Mode, pool: int, seed: int, show: bool
    ) -> None:
        self._split, self._shots, self._mode, self._show = split, shots, mode, show
        protocol = get_protocol("lmms-eval").model_copy(update={"pool": pool})
        support = split if pool < len(split) else list(split)
        task = str(split.task.config.task)
        self._draw = DemonstrationDraw(task, Dataset((), support), PromptSettings(), protocol, selector, seed)
        self.model = FewShotModel(encoder, DemonstrationBank.in_memory(encoder), get_selector(selector))
        """What answers the task's queries."""
        self._keys: dict[str, str] = {}

    @property
    def pool(self) -> Sequence[Item]:
        """The documents that demonstrations are drawn from."""
        return self._draw.pool

    def query(self, item: Item) -> Query:
        """A document as it is asked."""
        return self._draw.query(item)

    def before(self, queries: Sequence[Item]) -> tuple[Shots, list[list[str]]]:
        """Return what is shown before each query, and the names (split and place) of its documents, in order.

        Raises:
            ShotsError: a query has too few.
            InputError: a document cannot be read.
        """
        if self._draw.selector is not None and not self._keys:
            keys = self.model.bank.add(self._draw.shown(), progress=self._show)
            self._draw.in_bank(keys)
            self._keys = {item.id: key for item, key in zip(self.pool, keys, strict=True)}
        chosen = self._draw.choose(queries, self._shots, self.model.bank)
        names = [[name for name, _ in shown] for shown in chosen]
        if self._mode not in READ and not self._keys:  # nothing has to be read
            shown = [[demonstration for _, demonstration in items] for items in chosen]
            return Shots(mode=self._mode, demonstrations=shown), names
        new = {name: shown for items in chosen for name, shown in items if name not in self._keys}
        self._keys |= zip(new, self.model.bank.add(list(new.values())), strict=True)
        entries = [[self.model.bank[self._keys[name]] for name in shown] for shown in names]
        return Shots(mode=self._mode, demonstrations=entries), names
