"""What a backend author implements: reader, projector, injector, and the backend that hands them out.

Callers may rely on this:

* a **reading** depends on its demonstration alone, not on what stands beside it in a batch or on padding (up to float
  noise), and covers exactly the text tokens that the demonstration occupies in a text-only few-shot prompt;
* an **injector** puts fused tokens where those text tokens would stand; with the true embeddings of the text it gives
  exactly the plain backbone's logits (the identity test), with no fused tokens it *is* the plain backbone;
* nothing but the **projector** has trainable parameters, and nothing stays injected after a call, also a failed one.

A backend need not be a transformers model: these classes know tensors and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.backend.injector import Injector
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import CapabilityError
from aim_sdk.projectors.base import Projector
from aim_sdk.types import (
    AttentionMap,
    Context,
    Demonstration,
    Query,
    Vocabulary,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Backend(ABC):
    """One model family: loads a frozen backbone and hands out its reader and its injector."""

    name: ClassVar[str]
    default_model: ClassVar[str | None] = None
    """The hub id that ``from_pretrained()`` loads when no model is named."""
    slot: int | None = None
    """The token id that marks the places of fused tokens, where the injector uses one; it is never generated."""

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
        """The family's own chat template where it has one."""

    @property
    def decoder_layers(self) -> int | None:
        """How many decoder layers the inner LLM has; None where it is not known before they are read."""
        return None

    @property
    def supports_interleaved(self) -> bool:
        """Whether one prompt may hold several images."""
        return True

    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """Return the backbone's own greedy answer as token ids, past reader and injector.

        What the family's documentation would have you write; the conformance kit compares with it. ``demonstrations``
        stand before the query as turns of the same format: with their images (interleaved), or as text alone.

        Raises:
            CapabilityError: there is no such way past the injector.
        """
        raise CapabilityError(f"backend {self.name!r} has no `plain_answer` to compare with.")

    def show_prompt(self, query: Query, context: Context, *, prompt_format: PromptFormat) -> str:
        """Return a prompt as its tokens say it, special tokens too, for messages; optional.

        Raises:
            CapabilityError: it cannot be shown.
        """
        raise CapabilityError(f"backend {self.name!r} does not show its prompts: it has no `show_prompt`.")

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The frozen torch modules that the backbone consists of: training proves that it leaves them as they are.

        None, where the backbone is no torch model.
        """
        return ()

    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the backbone's layers over the processes of a mesh (FSDP2); its results stay the same.

        The embeddings and the LM head stay whole on every process.

        Raises:
            CapabilityError: this backend, or this model, cannot.
        """
        raise CapabilityError(f"backend {self.name!r} stays whole on every process: it has no `shard`.")

    def recompute_activations(self, on: bool = True) -> None:
        """Compute activations again in the backward instead of keeping them: less memory, about a third more time.

        Raises:
            CapabilityError: this backend, or this model, cannot.
        """
        raise CapabilityError(f"backend {self.name!r} keeps all activations: it has no `recompute_activations`.")

    @property
    def prefix_reuse(self) -> bool:
        """Whether fused tokens may be computed once and shared by later prompts."""
        return False

    @abstractmethod
    def default_projector(self) -> Projector:
        """The projector that is used when none is named; trained where the backend ships one."""

    @property
    @abstractmethod
    def input_embeddings(self) -> Float[Tensor, "vocabulary embed"]:
        """The inner LLM's input embedding matrix."""

    @property
    @abstractmethod
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        """The LM head's matrix (the same tensor where it is tied)."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What a projector may take of the backbone besides readings."""
        return Vocabulary(self.input_embeddings, self.output_embeddings, self.fingerprint, self.decoder_layers)

    def attention(
        self, query: Query, demonstrations: Sequence[Demonstration], answer: str, *, prompt_format: PromptFormat
    ) -> AttentionMap:
        """Read how ``answer`` attends to the interleaved prompt before it; optional, for analysis alone.

        Raises:
            CapabilityError: this backend, or this model, does not show its attention.
        """
        raise CapabilityError(f"backend {self.name!r} does not show its attention: it has no `attention` of its own.")
