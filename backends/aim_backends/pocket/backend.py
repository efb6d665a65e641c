"""The embedded default: a real, small MLLM from packages, without a model hub or a transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from aim_backends.pocket.attention import read_attention
from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.footprint import PocketFootprint
from aim_backends.pocket.images import ImageEncoder
from aim_backends.pocket.injector import PocketInjector, TokenisedAnswers
from aim_backends.pocket.model import DATA, DEFAULT_FORMAT, PocketModel
from aim_backends.pocket.reader import PocketReader
from aim_backends.shared.segments import SegmentWriter, SpecialTokens
from aim_sdk.backend.constraints import Constraint
from aim_sdk.backend.devices import resolve_device, resolve_dtype
from aim_sdk.backend.hashing import rms, tensor_hash
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import InputError, ModelNotFoundError
from aim_sdk.projectors.base import Projector
from aim_sdk.support.provenance import versions
from aim_sdk.types import AttentionMap, Context, Demonstration, Query, Vocabulary

MODEL = "pocket-1"


class PocketBackend(Backend):
    """SmolLM2-135M and EfficientNet-Lite0 from their packages, a connector, a LoRA and a projector from this one."""

    name = "pocket"
    default_model = MODEL

    def __init__(self, model: PocketModel, special_tokens: SpecialTokens = "refuse") -> None:
        self.model = model
        images, prompts = ImageEncoder(model.vision), SegmentWriter(model, special_tokens)
        self._reader = PocketReader(model, images, prompts)
        self._injector = PocketInjector(model, images, prompts)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        special_tokens: SpecialTokens = "refuse",
        **options: Any,
    ) -> Self:
        if model not in (None, MODEL):
            raise ModelNotFoundError(
                f"pocket is one embedded model, {MODEL!r}; got model={model!r}. Leave `model` out."
            )
        if options:
            raise InputError(
                f"pocket takes no option {', '.join(map(repr, options))}; expected device, dtype or special_tokens."
            )
        return cls(PocketModel.load(resolve_dtype(dtype, torch.float32), resolve_device(device)), special_tokens)

    @classmethod
    def footprint_of(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> PocketFootprint:
        """See `aim_sdk.backend.capabilities.ForeseesCost`; the model is loaded."""
        return cls.from_pretrained(model, device=device, dtype=dtype, **options).footprint

    @cached_property
    def footprint(self) -> PocketFootprint:
        return PocketFootprint(MODEL, self.model, self._injector.prompts)

    @property
    def reader(self) -> PocketReader:
        return self._reader

    @property
    def injector(self) -> PocketInjector:
        return self._injector

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.model.vision.trunk, self.model.vision.connector, self.model.lm

    def recompute_activations(self, on: bool = True) -> None:
        self.model.lm.recompute = on

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.lm.embed_tokens.weight.dtype

    @property
    def prefixes(self) -> PrefixCache[KVCache]:
        return self._injector.prefixes

    @property
    def most_images(self) -> None:
        return None

    @property
    def decoder_layers(self) -> int:
        return self.model.lm.spec.layers

    @cached_property
    def fingerprint(self) -> Fingerprint:
        if self.dtype == torch.float16:  # it rounds differently from everything that is shipped
            return type(self).from_pretrained(device="cpu").fingerprint
        embeddings = self.model.lm.embed_tokens.weight
        embedding_hash = tensor_hash([("embedding", embeddings)], samples=4096)
        assert embedding_hash is not None
        return Fingerprint(
            backend=self.name,
            model=MODEL,
            weights_hash=tensor_hash(self._weights()),
            embedding_hash=embedding_hash,
            tokenizer_hash=self.model.tokenizer_hash,
            hidden_size=embeddings.shape[1],
            embedding_size=embeddings.shape[1],
            embedding_rms=rms(embeddings),
            libraries=versions("aim-icl", "torch", "tokenizers"),
        )

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights as they were read, because merging the LoRA depends on the machine's arithmetic."""
        vision = self.model.vision
        for part, module in (("lm", self.model.lm), ("connector", vision.connector), ("trunk", vision.trunk)):
            for name, value in module.named_parameters():
                if "self_attn" not in name:
                    yield f"{part}.{name}", value
        yield from ((f"lora.{name}", value) for name, value in load_file(DATA / "lora.safetensors").items())

    @property
    def default_format(self) -> PromptFormat:
        return DEFAULT_FORMAT

    @torch.no_grad()
    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """The model's likeliest tokens, one whole forward each."""
        shown: Context = demonstrations
        if not with_images:
            shown = self._reader.text_only(demonstrations, prompt_format=prompt_format)
        (prompt,) = self._injector.queries([query], prompt_format)
        (opening,) = self._injector.contexts([shown], prompt_format)
        lm, ids = self.model.lm, list[int]()
        for _ in range(max_new_tokens):
            answer = lm.embed(torch.tensor(ids, dtype=torch.long, device=self.model.device))
            ids.append(int(lm.head(lm(torch.cat([opening, prompt, answer])[None])[0, -1]).argmax()))
        return ids

    def default_projector(self) -> Projector:
        return Projector.from_pretrained(DATA / "projector")

    def attention(
        self, query: Query, demonstrations: Sequence[Demonstration], answer: str, *, prompt_format: PromptFormat
    ) -> AttentionMap:
        return read_attention(self.model, self._injector, query, demonstrations, answer, prompt_format)

    @property
    def vocabulary(self) -> Vocabulary:
        tied = self.model.lm.embed_tokens.weight
        return Vocabulary(tied, tied, self.fingerprint, self.decoder_layers)

    def constrained(self, constraint: Constraint) -> PocketInjector:
        return self._injector.constrained(constraint)

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> TokenisedAnswers:
        return self._injector.prepare_answers(
            queries, answers, prompt_format=prompt_format, ended=ended, contexts=contexts
        )

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        return self._injector.answer_logits(prepared, contexts)
