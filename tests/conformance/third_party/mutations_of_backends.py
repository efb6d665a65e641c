"""Bugs in the adapter of Kite: what a backend says of itself, and models that say too little."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aim_sdk import Fingerprint, PromptFormat, Query
from aim_sdk.backend.hashing import tensor_hash
from tests.conformance.third_party.adapter import KiteBackend
from tests.conformance.third_party.model import KiteModel
from tests.conformance.third_party.mutant import Part
from tests.conformance.third_party.mutations_of_reading import SystemDroppedInChat


class ConstantHash(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        return KiteBackend().fingerprint.model_copy(update={"weights_hash": "0" * 64})


class HashOfTheEmbeddings(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        found = tensor_hash([("embeddings", self.input_embeddings)])
        return KiteBackend().fingerprint.model_copy(update={"weights_hash": found})


class WrongSize(KiteBackend):
    @cached_property
    def fingerprint(self) -> Fingerprint:
        return KiteBackend().fingerprint.model_copy(update={"hidden_size": 64})


class HeadForEmbeddings(KiteBackend):
    @property
    def input_embeddings(self) -> Tensor:
        return self.model.head.weight


class EmbeddingsForHead(KiteBackend):
    @property
    def output_embeddings(self) -> Tensor:
        return self.model.tokens.weight


class PlainAnswerIsItsOwn(KiteBackend):
    """Asks the injector: what the adapter does to a prompt, it does to both."""

    template_class = SystemDroppedInChat

    def plain_answer(self, query: Query, *, prompt_format: PromptFormat, max_new_tokens: int, **options: Any) -> Any:
        shown = [options.get("demonstrations", ())]
        (made,) = self.injector.generate([query], shown, prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        return list(made.token_ids)


# Models that say too little for the other checks to see anything


class Forgetful(KiteModel):
    """Sees its last dozen tokens."""

    def window(self, causal: Tensor) -> Tensor:
        return causal & ~causal.tril(causal.shape[1] - causal.shape[0] - 12)


class Blind(KiteModel):
    def see(self, image: Any) -> Tensor:
        return torch.zeros_like(super().see(image))


class Dull(KiteModel):
    """Says nearly the same whatever it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight.mul_(1e-6)


CAUGHT: list[tuple[str, Part]] = [
    ("fingerprint", ConstantHash),
    ("fingerprint", HashOfTheEmbeddings),
    ("fingerprint", WrongSize),
    ("reading_is_the_text", HeadForEmbeddings),
    ("reading_is_scored", EmbeddingsForHead),
    ("sensitivity", Forgetful),
    ("sensitivity", Blind),
    ("sensitivity", Dull),
    ("identity_chat", PlainAnswerIsItsOwn),
]
"""Which check must catch which bug."""
