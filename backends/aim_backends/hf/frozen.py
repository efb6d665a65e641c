"""A frozen model of transformers: its embeddings, its sizes, and where it runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from aim_backends.hf.generation_settings import drop_other_ways
from aim_backends.hf.tap import attach, lm_head
from aim_sdk.errors import InputError, UnsupportedModelError

_LOCKS: Final[WeakKeyDictionary[nn.Module, threading.RLock]] = WeakKeyDictionary()
"""Of each model, which several backends may share."""


class FrozenModel:
    """A frozen decoder-only multimodal LLM; what a family overrides of it.

    Args:
        model: an image-text-to-text model with a decoder-only LM; it is frozen and gets hooks (`aim_backends.hf.tap`).
    """

    def __init__(self, model: Any) -> None:
        if not issubclass(type(model), PreTrainedModel):  # a wrapper, which `generate` may pass by
            raise UnsupportedModelError(
                f"{type(model).__name__} is not itself a model of transformers.\n"
                "Next: pass the model inside (of peft's adapters `get_base_model()`, of a compiled one `_orig_mod`)."
            )
        self.model = model.eval().requires_grad_(False)
        self.lock = _LOCKS.setdefault(model, threading.RLock())
        """Held during every use of the backbone: some families keep the positions of the last prompt on the module."""
        drop_other_ways(model.generation_config)
        attach(model)
        self._parts = self._changeable()

    def forward(self, **inputs: Any) -> Any:
        """Run the model once.

        Raises:
            InputError, UnsupportedModelError: somebody has changed the model since it was loaded.
        """
        self.check_unchanged()
        return self.model(**inputs)

    def check_unchanged(self) -> None:
        """Refuse a model that would answer in another way than when it was loaded.

        Raises:
            InputError: it is in training mode.
            UnsupportedModelError: it has other embeddings, another LM head or other adapters.
        """
        if self.model.training:
            raise InputError("the backbone was set to training mode, in which dropout changes it.\nNext: model.eval().")
        if self._changeable() != self._parts:
            raise UnsupportedModelError(
                "the backbone's embeddings, LM head or adapters (peft) are other ones than when it was loaded: what it "
                "has read would not fit.\nNext: save the model as it is now, adapters merged, and load that."
            )

    def _changeable(self) -> tuple[object, ...]:
        """Parts that other libraries replace."""
        model = self.model
        return (model.get_input_embeddings(), lm_head(model), tuple(getattr(model, "peft_config", ())))

    @property
    def input_embeddings(self) -> Float[Tensor, "vocabulary embed"]:
        """The vectors that enter the inner LLM: some families scale the matrix, or keep it in two parts."""
        module = self.model.get_input_embeddings()
        if type(module) is nn.Embedding:
            return module.weight
        return self.embed(range(self.rows))

    @property
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        weight: Tensor = lm_head(self.model).weight
        return weight

    @property
    def device(self) -> torch.device:
        """Where the inputs go; of a model without weights, the CPU."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def dtype(self) -> torch.dtype:
        """What the input embeddings are in."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def embedding_size(self) -> int:
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def context_length(self) -> int | None:
        """The most positions that a prompt and its answer may have; None if the configuration does not say."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def rows(self) -> int:
        """Rows of the input embeddings."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def decoder_layers(self) -> int | None:
        found = getattr(self.model.config.get_text_config(decoder=True), "num_hidden_layers", None)
        return found if isinstance(found, int) else None

    @torch.no_grad()
    def embed(self, ids: Sequence[int]) -> Float[Tensor, "tokens embed"]:
        """The true input embeddings of token ids."""
        embedded: Tensor = self.model.get_input_embeddings()(torch.tensor([list(ids)], device=self.device))
        return embedded[0]
