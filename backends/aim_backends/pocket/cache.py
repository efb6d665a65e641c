"""Keys and values of the tokens that a decoder has seen."""

from collections.abc import Callable
from typing import Final

from torch import Tensor

_ROOM: Final = 8
"""Tokens, at least; an eighth of a long cache, so that what is copied at times stays small compared with what is
read."""


class KVCache:
    """Keys and values of the tokens already seen; one pair ``(B, key_value_heads, T, head_size)`` per layer.

    The first tokens are kept as they come. What grows after them keeps room for more, so that decoding writes one
    token instead of copying all. Copies never see that room: they share what is there, never change it, and make room
    of their own when they grow.
    """

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._held: list[int] = []  # tokens per layer

    def __len__(self) -> int:
        """Return the number of tokens held."""
        return self._held[0] if self._held else 0

    @property
    def nbytes(self) -> int:
        """The memory that its tensors keep, room included."""
        return sum(part.untyped_storage().nbytes() for pair in self._layers for part in pair)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's new keys and values; return all of them."""
        if layer == len(self._layers):
            self._layers.append((keys, values))
            self._held.append(keys.shape[2])
            return keys, values
        past, held = self._held[layer], self._held[layer] + keys.shape[2]
        if held > self._layers[layer][0].shape[2]:
            old_keys, old_values = self.layer(layer)
            self._layers[layer] = _with_room(old_keys, held), _with_room(old_values, held)
        for kept, new in zip(self._layers[layer], (keys, values), strict=True):
            kept[:, :, past:held] = new
        self._held[layer] = held
        return self.layer(layer)

    def copy(self) -> "KVCache":
        """Return a cache that grows on its own."""
        return self._map(lambda part: part)

    def expand(self, batch: int) -> "KVCache":
        """Return a copy for ``batch`` rows, made from one row."""
        return self._map(lambda part: part.expand(batch, -1, -1, -1))

    def select(self, rows: Tensor) -> "KVCache":
        """Return a copy that holds the given rows, each as often as it is named."""
        return self._map(lambda part: part[rows])

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and the values that one layer holds."""
        keys, values = self._layers[layer]
        return keys[:, :, : self._held[layer]], values[:, :, : self._held[layer]]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "KVCache":
        other = KVCache()
        for layer in range(len(self._layers)):
            keys, values = self.layer(layer)
            other._layers.append((change(keys), change(values)))
        other._held = list(self._held)
        return other


def _with_room(part: Tensor, tokens: int) -> Tensor:
    """Copy ``part`` to where there is room for ``tokens`` and some more."""
    batch, heads, held, size = part.shape
    roomy = part.new_empty(batch, heads, tokens + max(_ROOM, tokens // 8), size)
    roomy[:, :, :held] = part
    return roomy
