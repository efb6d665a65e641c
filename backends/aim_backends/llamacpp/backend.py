"""llama.cpp in this process: models and their image encoders in the GGUF format."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from aim_backends.llamacpp.context import LlamaContext, State
from aim_backends.llamacpp.footprint import LlamaCppFootprint
from aim_backends.llamacpp.injector import LlamaCppInjector
from aim_backends.llamacpp.library import library
from aim_backends.llamacpp.loaded import LoadedModel, Runtime
from aim_backends.llamacpp.reader import LlamaCppReader
from aim_backends.llamacpp.sources import POCKET, Parts, gguf_parts, pocket_parts
from aim_backends.shared.rows import PromptRows
from aim_backends.shared.segments import PromptSegments, SegmentWriter, SpecialTokens
from aim_sdk.backend.constraints import Constraint
from aim_sdk.backend.devices import resolve_device, resolve_dtype
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import DeviceError, InputError, ModelNotFoundError
from aim_sdk.files.atomic import expanded
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.carrier import CarrierProjector
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Demonstration, ImageInput, Query, Vocabulary


class LlamaCppBackend(Backend):
    """A GGUF model; readings and fused tokens are float32 on the CPU, wherever its layers run."""

    name = "llama.cpp"

    def __init__(self, parts: Parts, special_tokens: SpecialTokens = "refuse") -> None:
        self._parts = parts
        self.model: LoadedModel = parts.model
        self._rows = PromptRows(SegmentWriter(parts.text, special_tokens), parts.images, parts.model.embed)
        self._reader = LlamaCppReader(parts.model, self._rows)
        self._injector = LlamaCppInjector(parts.model, parts.text, self._rows)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        mmproj: str | Path | None = None,
        gpu_layers: int = 0,
        threads: int | None = None,
        special_tokens: SpecialTokens = "refuse",
        **options: Any,
    ) -> Self:
        """Load a GGUF file with its images' projector.

        Args:
            model: a ``.gguf`` file; ``"pocket"``: the embedded model, whose images are encoded by torch.
            device: None or ``"cpu"``: where readings are. Layers are put on a GPU by ``gpu_layers``.
            dtype: of keys and values; None: float16.
            mmproj: the file with the image encoder of the same checkpoint; None: the one ``*mmproj*.gguf`` next to it.
            gpu_layers: how many layers a GPU computes.
            threads: of the CPU; None: as many as torch takes.
            special_tokens: "refuse" texts that spell the model's special tokens, or "allow" them.
            **options: there are none.

        Raises:
            ModelNotFoundError: a file is missing.
            CorruptArtifactError: llama.cpp cannot load it.
            UnsupportedModelError: it is no decoder-only model, or has positions of several dimensions.
            MissingDependencyError: the wheel with llama.cpp is missing, or of another version.
        """
        if options:
            raise InputError(
                f"llama.cpp takes no option {', '.join(map(repr, options))}; expected mmproj, dtype, gpu_layers, "
                "threads or special_tokens."
            )
        if device is not None and resolve_device(device).type != "cpu":
            raise DeviceError(
                f"device {str(device)!r}: readings of llama.cpp are on the CPU.\n"
                "Next: leave device out; gpu_layers=99 puts all layers on the GPU that the library was built for."
            )
        runtime = Runtime(
            resolve_dtype(dtype, torch.float16),
            whole_number("gpu_layers", gpu_layers, 0),
            torch.get_num_threads() if threads is None else whole_number("threads", threads, 1),
        )
        if runtime.threads > _MOST_THREADS:
            raise InputError(f"threads={threads}: llama.cpp takes {_MOST_THREADS} at most.")
        if gpu_layers and not library().llama_supports_gpu_offload():
            raise DeviceError(
                f"gpu_layers={gpu_layers}: the installed library was built for the CPU alone.\n"
                "Next: leave it out, or install a wheel of xllamacpp that was built for the GPU."
            )
        if model == POCKET:
            if mmproj is not None:
                raise InputError(f"mmproj={str(mmproj)!r}: pocket's images are encoded by torch. Leave it out.")
            return cls(pocket_parts(runtime), special_tokens)
        if model is None:
            raise InputError(
                "llama.cpp needs two files: model=MODEL.gguf and mmproj=MMPROJ.gguf, the image encoder of the same "
                f"checkpoint. Or model={POCKET!r}, the embedded model."
            )
        file = _file(model, "a model in the GGUF format", "convert_hf_to_gguf.py")
        images = _next_to(file) if mmproj is None else mmproj
        return cls(
            gguf_parts(file, _file(images, "its image encoder (mmproj), a GGUF file", _MMPROJ), runtime), special_tokens
        )

    @classmethod
    def footprint_of(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> LlamaCppFootprint:
        """See `aim_sdk.backend.capabilities.ForeseesCost`; the files are mapped into memory."""
        return cls.from_pretrained(model, device=device, dtype=dtype, **options).footprint

    @cached_property
    def footprint(self) -> LlamaCppFootprint:
        return LlamaCppFootprint(self.model, self._rows, self.default_format)

    @property
    def reader(self) -> LlamaCppReader:
        return self._reader

    @property
    def injector(self) -> LlamaCppInjector:
        return self._injector

    @property
    def fingerprint(self) -> Fingerprint:
        return self._parts.fingerprint

    @property
    def default_format(self) -> PromptFormat:
        return self._parts.default_format

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.model.embeddings, self.model.head, self.fingerprint, self.decoder_layers)

    @property
    def decoder_layers(self) -> int:
        return self.model.layers

    @property
    def most_images(self) -> None:
        return None

    @property
    def prefixes(self) -> PrefixCache[State]:
        return self._injector.prefixes

    def constrained(self, constraint: Constraint) -> LlamaCppInjector:
        return self._injector.constrained(constraint)

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
        """The model's likeliest tokens: texts are given as tokens, as llama.cpp's own programs give them."""
        prompts = self._rows.prompts
        parts: list[Tensor | list[int]] = [prompts.opening(prompt_format)]
        for item in demonstrations:
            parts += self._plain(prompts.demonstration(item, prompt_format), item.image if with_images else None)
        parts += self._plain(prompts.query(query, prompt_format), query.image)
        with LlamaContext(self.model, 1, sum(map(len, parts)) + max_new_tokens) as context:
            for part in parts:
                if len(part):
                    logits = context.run(0, part)
            ids = [int(logits.argmax())]
            while len(ids) < max_new_tokens:
                ids.append(int(context.step(ids[-1:])[0].argmax()))
        return ids

    def _plain(self, segments: PromptSegments, image: ImageInput | None) -> list[Tensor | list[int]]:
        shown = [] if image is None else self._rows.images.encode([image])
        return [segments.before, *shown, [*segments.after, *segments.answer]]

    def default_projector(self) -> Projector:
        if self._parts.projector is not None:
            return Projector.from_pretrained(self._parts.projector)
        warnings.warn(
            "no projector was given: using the untrained carrier projector. "
            f"Pass projector=<folder, hub id or Projector> to use one that was trained for {self.fingerprint.model!r}.",
            stacklevel=2,
        )
        return CarrierProjector.untrained(self.vocabulary)


_MOST_THREADS: Final = 512
"""As in ggml.h."""
_MMPROJ: Final = "convert_hf_to_gguf.py --mmproj"


def _file(path: str | Path, expected: str, written_by: str) -> Path:
    """Raises: ModelNotFoundError: it is no file."""
    found = expanded(path)
    if found.is_file() and path:
        return found
    there = "a folder" if found.is_dir() else "there is no such file"
    raise ModelNotFoundError(
        f"{str(path)!r}: {there}. Expected {expected}.\n"
        f"Next: the path of a .gguf file; llama.cpp's {written_by} writes one of a checkpoint."
    )


def _next_to(model: Path) -> Path:
    """The image encoder in a model's folder.

    Raises:
        InputError: there is none, or several.
    """
    found = sorted(path for path in model.parent.glob("*mmproj*.gguf") if path != model)
    if len(found) == 1:
        return found[0]
    there = f"{len(found)} are there: {', '.join(path.name for path in found)}" if found else "none is there"
    raise InputError(
        f"mmproj: the image encoder of {model.name} is looked for next to it, as *mmproj*.gguf, and {there}.\n"
        "Next: mmproj=MMPROJ.gguf."
    )
