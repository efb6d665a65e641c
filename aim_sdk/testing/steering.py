"""Makes a model say what a check needs, by changing its LM head's output: whatever its weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from aim_sdk.backend.capabilities import HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend

_MULTIPLYING = (functional.linear, torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
_MORE = 100
"""Added to the largest logit: then no other token has a chance."""


@contextmanager
def head_changed(backend: Backend, change: Callable[[Tensor], None]) -> Iterator[None]:
    """Change each output of the LM head, or of its copy that the model's documentation runs.

    It may be a module, in any thread, or a product with the weights that no module computes, in this thread.
    """
    products = _Products(capability(backend, HasVocabulary).vocabulary.outputs, change)

    def hook(module: nn.Module, args: object, output: object) -> None:
        is_head = not isinstance(module, nn.Embedding) and products.is_head(getattr(module, "weight", None))
        if is_head and isinstance(output, Tensor) and output is not products.last:
            change(output)

    handle = register_module_forward_hook(hook)
    try:
        with products:
            yield
    finally:
        handle.remove()


class _Products(TorchFunctionMode):
    """Changes what is computed as a product with a head's weights."""

    def __init__(self, head: Tensor, change: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.head, self.change = head, change
        self.last: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if function in _MULTIPLYING and len(args) > 1 and self.is_head(args[1]):
            self.change(found)
            self.last = found
        return found

    def is_head(self, weight: object) -> bool:
        """Whether they are the head's weights, turned or not, or a copy of them, or these times a number."""
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            return False
        if weight.data_ptr() == self.head.data_ptr():
            return True
        if weight.shape != self.head.shape or weight.device != self.head.device:
            return False
        return torch.allclose(weight * (self.head.norm() / weight.norm()), self.head, rtol=1e-2)


@contextmanager
def saying(backend: Backend, ids: Sequence[int]) -> Iterator[None]:
    """Make the tokens of an answer, step by step, by far the likeliest."""
    with head_changed(backend, wanted(ids)):
        yield


def wanted(ids: Sequence[int]) -> Callable[[Tensor], None]:
    """The change of logits that makes one token after the other the likeliest."""
    left = list(ids)

    def wish(logits: Tensor) -> None:
        if left:
            logits[..., left.pop(0)] = logits.max() + _MORE

    return wish


@contextmanager
def exchanged(backend: Backend, one: int, other: int) -> Iterator[None]:
    """Give each of two tokens the other's logit: where the model would say the one, it says the other."""

    def exchange(logits: Tensor) -> None:
        logits[..., [one, other]] = logits[..., [other, one]]

    with head_changed(backend, exchange):
        yield
