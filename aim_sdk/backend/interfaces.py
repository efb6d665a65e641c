"""What a backend author implements: reader, injector, and the backend that hands them out. Everything else is optional.

Callers may rely on this:

* a **reading** depends on its demonstration alone, not on what stands next to it in a batch or on padding (up to float
  noise), and covers exactly the text tokens that the demonstration occupies in a text-only few-shot prompt;
* an **injector** puts fused tokens where those text tokens would stand; with the true embeddings of the text it gives
  exactly the plain backbone's logits (the identity test), with no fused tokens it *is* the plain backbone;
* nothing but the **projector** has trainable parameters, and nothing stays injected after a call, even a failed one.

A backend need not be a transformers model: these classes know tensors and nothing else. Its optional abilities are
described by Protocols: `aim_sdk.backend.capabilities`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch

from aim_sdk.backend.injector import Injector
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.projectors.base import Projector


class Backend(ABC):
    """One model family: loads a frozen backbone and hands out its reader and its injector."""

    name: ClassVar[str]
    default_model: ClassVar[str | None] = None
    """The hub id that ``from_pretrained()`` loads when no model is named."""

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Load a frozen backbone from a hub id or a local folder.

        Raises:
            ModelNotFoundError: no such folder, or the hub cannot be reached.
            UnsupportedModelError: the checkpoint is of another family.
            DeviceError: a device or dtype that does not exist here.
        """

    @property
    @abstractmethod
    def reader(self) -> DemoReader:
        """Reads demonstrations."""

    @property
    @abstractmethod
    def injector(self) -> Injector:
        """Answers queries."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Identifies the backbone; computed once."""

    @property
    @abstractmethod
    def default_format(self) -> PromptFormat:
        """The family's own chat template, if it has one."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where readings are, and where fused tokens go."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What readings and fused tokens are in."""

    @property
    def lacks(self) -> Mapping[type, str]:
        """What the class can do and the loaded model cannot: capabilities (`aim_sdk.backend.capabilities`) by reason.

        ``{Interleaves: "a prompt of 'paligemma' holds one image"}``; empty if the model can do everything.
        """
        return {}

    @abstractmethod
    def default_projector(self) -> Projector:
        """The projector that is used when none is named; a trained one if the backend ships one."""
