"""Prefixes of prompts, computed once: repeated fused tokens are not run again.

Cached keys and values of 16 demonstrations cost a forward of their tokens; after them a query costs what it costs
alone. Which contexts will repeat is not known in advance, so a prefix is computed apart when it comes a *second* time
(or for several prompts of one batch): contexts drawn again for every query cost nothing extra and crowd nothing out.

How an injector uses it, before each forward of a batch of prompts (`State` is what the framework continues from: keys
and values of each layer, ``(1, heads, tokens, width)``, say):

1. ``shared = self.prefixes.shared(scope, contexts)``; None: compute the prompts whole.
2. Where ``shared.done < len(shared.keys)``: compute what ``shared.state`` has not, for one row (the opening too where
   ``done`` is 0), continuing its positions. **You** ``put(scope, shared.keys, longer, nbytes)``: nobody else does.
3. Expand the state to the batch's rows, and run what comes after it: each row's other demonstrations and its query,
   with the attention mask over prefix and row, and positions that begin at the prefix's length.

The backend then shows this cache as `prefixes` (`aim_sdk.backend.capabilities.ReusesPrefixes`), and the check
`prefix_reuse_is_exact` compares. The skeleton of ``aim-icl backends new`` does it in some 15 lines.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Context, FusedTokens

State = TypeVar("State")
Keys = tuple[str, ...]

DEFAULT_BYTES = 1 << 30
MIN_TOKENS = 32
"""A shorter prefix costs more as a forward of its own than it saves."""
_REMEMBERED = 1 << 14
"""Prefixes that are remembered as seen: a tuple of hashes each."""


@dataclass(frozen=True, slots=True)
class SharedPrefix(Generic[State]):
    """What the contexts of one batch share and is worth having apart."""

    keys: Keys
    """The first demonstrations of every context, by key, in their order: those whose prefix is worth having apart.
    ``len(keys)`` of them stand in the prefix; the other demonstrations of a context, and its query, come after it."""
    done: int
    """How many of ``keys``, from the first, ``state`` covers already: all of them (nothing is left to compute), some
    (compute ``keys[done:]`` after it, and put the longer one), or none."""
    state: State | None
    """What you put for ``keys[:done]``: the opening (BOS, system text) and these demonstrations, computed for one row;
    None if ``done`` is 0: the opening is then computed with the demonstrations. It belongs to the cache, and
    other threads may read it: copy it before it grows in place, expand it to the rows of a batch."""


class PrefixCache(Generic[State]):
    """Keeps what a backend computes of prefixes: an LRU bounded in bytes, safe under threads.

    Args:
        max_bytes: what the states may take together; 0 keeps nothing, and every prompt is computed whole.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self._lock = threading.Lock()
        self._seen: LRUCache[tuple[object, Keys], None] = LRUCache(_REMEMBERED)
        self._hits = self._misses = 0
        self.resize(max_bytes)

    def resize(self, max_bytes: int) -> None:
        """Forget everything and keep up to ``max_bytes`` from now on."""
        max_bytes = whole_number("prefix_bytes", max_bytes, 0)
        with self._lock:
            self._states: LRUCache[tuple[object, Keys], tuple[State, int]] = LRUCache(
                max_bytes, getsizeof=lambda kept: kept[1]
            )
            self._seen.clear()

    def shared(self, scope: object, contexts: Sequence[Context]) -> SharedPrefix[State] | None:
        """Say what the contexts of a batch share that is worth computing apart; None: compute the prompts whole.

        Args:
            scope: what else the state depends on (the prompt format, as it decides the opening); hashable.
            contexts: one per row of the batch; only fused tokens with a key are shared, up to the first item without.
        """
        if not contexts or not self._states.maxsize:
            return None
        rows = [_keyed(context) for context in contexts]
        keys = _common([keys for keys, _ in rows])
        tokens = rows[0][1]
        with self._lock:
            done = next((n for n in range(len(keys), 0, -1) if (scope, keys[:n]) in self._states), 0)
            self._hits += bool(done)
            self._misses += bool(keys) and not done
            again = (
                len(keys)
                if len(rows) > 1
                else next((n for n in range(len(keys), done, -1) if (scope, keys[:n]) in self._seen), 0)
            )
            for context, _ in rows:
                self._seen.update({(scope, context[:n]): None for n in range(1, len(context) + 1)})
            if sum(tokens[done:again]) < MIN_TOKENS:
                again = done
            if not again:
                return None
            state = self._states[scope, keys[:done]][0] if done else None
        return SharedPrefix(keys[:again], done, state)

    def put(self, scope: object, keys: Keys, state: State, nbytes: int) -> None:
        """Keep what was computed of a prefix, unless it is larger than the whole cache. The injector calls it.

        Args:
            scope: as it was given to `shared`.
            keys: `SharedPrefix.keys`: ``state`` covers the opening and all of them.
            state: for one row; later callers get this very object.
            nbytes: what it takes in memory.
        """
        with self._lock:
            if nbytes <= self._states.maxsize:
                self._states[scope, keys] = state, nbytes

    def info(self) -> dict[str, Any]:
        """Number of states, their bytes, the bound, and for how many batches a state was there and was not."""
        with self._lock:
            return {
                "states": len(self._states),
                "bytes": int(self._states.currsize),
                "max_bytes": int(self._states.maxsize),
                "hits": self._hits,
                "misses": self._misses,
            }


def _keyed(context: Context) -> tuple[Keys, list[int]]:
    """Keys and lengths of a context's fused tokens, up to the first without a key."""
    keys, lengths = [], []
    for item in context:
        if not isinstance(item, FusedTokens) or item.key is None:
            break
        keys.append(item.key)
        lengths.append(len(item))
    return tuple(keys), lengths


def _common(rows: Sequence[Keys]) -> Keys:
    first = rows[0]
    length = next((n for n, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows)))
    return first[:length]
