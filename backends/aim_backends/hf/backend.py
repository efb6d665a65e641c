"""The backend of every transformers family: a backbone, its reader and its injector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Self, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from aim_backends.families.notations import NOTATIONS
from aim_backends.families.table import adapter_of, tell_untested
from aim_backends.hf import loading
from aim_backends.hf.attention import read_attention
from aim_backends.hf.backbone import Backbone
from aim_backends.hf.fingerprint import fingerprint
from aim_backends.hf.footprint import TransformersFootprint, weights_bytes
from aim_backends.hf.injector import TransformersInjector
from aim_backends.hf.plain import plain_answer, show_prompt
from aim_backends.hf.reader import TransformersReader
from aim_backends.hf.roles import SpecialTokens, check_option
from aim_backends.hf.sources import source_of
from aim_backends.hf.tap import lm_head
from aim_sdk.backend.box import Box
from aim_sdk.backend.boxes import Notation, Steps
from aim_sdk.backend.capabilities import (
    Interleaves,
    RecomputesActivations,
    ReusesPrefixes,
    Shards,
    ShowsAttention,
    WritesBoxes,
    capability,
)
from aim_sdk.backend.constraints import Constraint
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.files.images import load_image
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.carrier import CarrierProjector
from aim_sdk.types import AttentionMap, Context, Demonstration, ImageInput, Query, Vocabulary


class TransformersBackend(Backend):
    """A frozen decoder-only multimodal LLM of transformers.

    Args:
        backbone: the model with its processor.
        saved: gives the model in the dtype of its files, if they are known.
    """

    def __init__(self, backbone: Backbone, saved: Callable[[], Any] | None = None) -> None:
        self.backbone, self._saved = backbone, saved
        self.model: Any = backbone.model
        """The transformers model."""
        self._reader, self._injector = TransformersReader(backbone), TransformersInjector(backbone)

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
        """Load a frozen backbone from a hub id or a local folder.

        Args:
            model: None takes the backend's default.
            device: None takes a GPU if there is one.
            dtype: a name, a ``torch.dtype`` or ``"auto"`` (the checkpoint's); None: ``"auto"`` on a GPU, else float32.
            special_tokens: see the class.
            **options: passed to transformers' ``from_pretrained``: ``revision``, ``device_map``,
                ``quantization_config``, ``attn_implementation``, ...; ``processor_options`` (a dict) goes to the
                processor alone. ``trust_remote_code=True`` runs a checkpoint's own Python code; by default none is run.
                ``torch_dtype`` is another name of ``dtype``.

        Raises:
            ModelNotFoundError: no such folder, or the hub cannot be reached.
            UnsupportedModelError: the checkpoint is of another family, or its LM is not a decoder.
            CorruptArtifactError: a file of the folder is cut or malformed.
            DeviceError: a device or dtype that does not exist here.
        """
        check_option(special_tokens)  # before the weights are read
        source = source_of(cls.name, cls.default_model, model)
        loaded, processor = loading.load(cls.name, source, device, dtype, options)
        kind = loaded.config.model_type
        tell_untested(kind, source)
        backbone = adapter_of(kind)(loaded, processor, source, special_tokens)
        return cast(Self, cls.serving(kind)(backbone, partial(loading.as_saved, source, options)))

    @classmethod
    def serving(cls, model_type: str) -> type[TransformersBackend]:
        """The class of the backend that is made for a ``model_type``."""
        return cls

    @classmethod
    def footprint_of(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        special_tokens: SpecialTokens = "refuse",
        **options: Any,
    ) -> TransformersFootprint:
        """See `aim_sdk.backend.capabilities.ForeseesCost`: the configuration and the processor are enough."""
        check_option(special_tokens)
        source = source_of(cls.name, cls.default_model, model)
        sketch, processor, placed, precision = loading.sketched(cls.name, source, device, dtype, options)
        backbone = adapter_of(sketch.config.model_type)(sketch, processor, source, special_tokens)
        return TransformersFootprint(backbone, placed, precision, weights_bytes(sketch, precision, source))

    @cached_property
    def footprint(self) -> TransformersFootprint:
        held = sum(parameter.nbytes for parameter in self.model.parameters())
        return TransformersFootprint(self.backbone, self.device, self.model.dtype, held)

    @property
    def slot(self) -> int:
        return self.backbone.slot

    @slot.setter
    def slot(self, token: int) -> None:
        self.backbone.slot = token

    @property
    def reader(self) -> TransformersReader:
        return self._reader

    @property
    def injector(self) -> TransformersInjector:
        return self._injector

    @property
    def decoder_layers(self) -> int | None:
        return self.backbone.decoder_layers

    @cached_property
    def fingerprint(self) -> Fingerprint:
        with self.backbone.lock:
            return fingerprint(self.name, self.backbone, self._saved)

    @property
    def default_format(self) -> PromptFormat:
        return self.backbone.default_format

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.dtype

    @cached_property
    def lacks(self) -> Mapping[type, str]:
        kind, found = self.model.config.model_type, dict[type, str]()
        if self.most_images == 1:
            found[Interleaves] = f"a prompt of {kind!r} holds one image"
        if not self.backbone.family.prefix.alone:
            found[ReusesPrefixes] = f"answers of {kind!r} after a prefix that was computed apart may not be the same"
        if self.backbone.cross_attends:
            found[ShowsAttention] = f"{kind!r} sees images through cross-attention: its prompts hold no visual tokens"
        if self.backbone.boxes is None:
            found[WritesBoxes] = f"how {kind!r} writes boxes is not known"
        if not self._layers:
            told = f"{type(self.model).__name__} does not say what its layers are"
            found |= {Shards: told, RecomputesActivations: told}
        return found

    @property
    def most_images(self) -> int | None:
        return self.backbone.most_images

    @property
    def prefixes(self) -> PrefixCache[DynamicCache]:
        return self._injector.prefixes

    def default_projector(self) -> Projector:
        """The untrained carrier projector, with a warning: this package ships no trained one."""
        warnings.warn(
            f"no projector was given: using the untrained carrier projector. "
            f"Pass projector=<folder, hub id or Projector> to use one that was trained for {self.fingerprint.model!r}.",
            stacklevel=2,
        )
        return CarrierProjector.untrained(self.vocabulary)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def shard(self, mesh: DeviceMesh) -> None:
        _ = self.fingerprint  # of whole weights; it is computed once
        for layer in self._layers:
            fully_shard(layer, mesh=mesh)
        ends = (self.model.get_input_embeddings(), lm_head(self.model))
        fully_shard(self.model, mesh=mesh, ignored_params={p for module in ends for p in module.parameters()})

    @cached_property
    def _layers(self) -> list[nn.Module]:
        """What transformers marks as layers, of the LM and of the vision tower."""
        return [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]

    def recompute_activations(self, on: bool = True) -> None:
        # transformers' own switch does nothing in eval mode, and train mode turns dropout on.
        for layer in self._layers:
            layer.__dict__.pop("forward", None)
            if on:
                layer.forward = partial(_recomputed, layer.forward)

    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        text_ids = [] if with_images else self._reader.text_ids(demonstrations, prompt_format=prompt_format)
        interleaved = demonstrations if with_images else ()
        return plain_answer(self.backbone, query, interleaved, text_ids, prompt_format, max_new_tokens)

    def show_prompt(self, query: Query, context: Context, *, prompt_format: PromptFormat) -> str:
        prepared = self._injector.prepare([query], [context], prompt_format=prompt_format)
        return show_prompt(self.backbone, prepared)

    @property
    def vocabulary(self) -> Vocabulary:
        inputs, outputs = self.backbone.input_embeddings, self.backbone.output_embeddings
        return Vocabulary(inputs, outputs, self.fingerprint, self.decoder_layers)

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        return self._injector.prepare_answers(
            queries, answers, prompt_format=prompt_format, ended=ended, contexts=contexts
        )

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        return self._injector.answer_logits(prepared, contexts)

    def constrained(self, constraint: Constraint) -> TransformersInjector:
        return self._injector.constrained(constraint)

    def write_boxes(self, boxes: Iterable[Box], image: ImageInput) -> str:
        notation = self._notation
        return notation.write(boxes, self._steps(notation, image))

    def read_boxes(self, text: str, image: ImageInput) -> list[Box]:
        notation = self._notation
        return notation.read(text, self._steps(notation, image))

    @property
    def _notation(self) -> Notation:
        capability(self, WritesBoxes)  # raises where it is not known
        return NOTATIONS[self.backbone.family.boxes]

    def _steps(self, notation: Notation, image: ImageInput) -> Steps:
        if notation.steps is not None:
            return notation.steps, notation.steps
        return self.backbone.box_steps(load_image(image))

    def attention(
        self, query: Query, demonstrations: Sequence[Demonstration], answer: str, *, prompt_format: PromptFormat
    ) -> AttentionMap:
        return read_attention(self._injector, query, demonstrations, answer, prompt_format)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Compute a layer again in the backward, if there is one: what leads to no gradient would only be kept."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if not any(tensor.requires_grad for tensor in tensors):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, determinism_check="none", **kwargs)
