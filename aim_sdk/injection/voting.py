"""The vote of the nearest demonstrations: the bank's, or those that a call brings itself."""

from __future__ import annotations

from collections.abc import Sequence

from aim_sdk.bank import BankEntry, DemonstrationBank
from aim_sdk.injection.contexts import nothing_to_show
from aim_sdk.injection.given import of_each_query
from aim_sdk.injection.shots import Shots, check_votes
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.selection.nearest import votes, votes_among
from aim_sdk.types import Query


def shares_of(
    encoder: Encoder,
    bank: DemonstrationBank,
    selector: Selector,
    queries: Sequence[Query],
    shots: Shots,
    temperature: float,
) -> list[dict[str, float]]:
    """The shares of the answers for each query, highest first.

    Raises:
        InputError: the shots are of another mode than `"aim"` or `"nearest"`.
        ShotsError: there are fewer demonstrations, or none.
    """
    check_votes(shots)
    if shots.demonstrations is None:
        rule = shots.selector or selector
        found = votes(bank, queries, shots.count, temperature=temperature, where=rule.where, balance=rule.balance)
    else:
        given = [
            [item.checked() if isinstance(item, BankEntry) else item for item in items]
            for items in of_each_query(shots.demonstrations, len(queries))
        ]
        apart = DemonstrationBank.in_memory(encoder)
        found = votes_among(apart, queries, given, shots.count, temperature=temperature)
    if not all(found):
        raise nothing_to_show(bank, "nearest")
    return found
