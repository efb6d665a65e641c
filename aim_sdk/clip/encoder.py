"""A frozen CLIP model that encodes images and texts, for selectors and for corpora. It needs the extra ``clip``."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from aim_sdk.backend.devices import resolve_device
from aim_sdk.clip.weights import Clip, find_source, load_clip
from aim_sdk.files.images import image_digest
from aim_sdk.support.cores import leave_cores
from aim_sdk.support.vectors import unit

if TYPE_CHECKING:
    from aim_sdk.types import ImageInput, Matrix

_IMAGES, _TEXTS = 64, 256
"""Images and texts of one forward."""

T = TypeVar("T")


class ClipEncoder:
    """A frozen CLIP model, loaded when it is first used. Threads may share it.

    Args:
        model: a name of open_clip's (``open_clip.list_models()``); a folder with ``open_clip_config.json`` and weights;
            or ``hf-hub:owner/name``, which holds the same.
        pretrained: the weights of a model that is given by name: a tag of open_clip's
            (``open_clip.list_pretrained()``), or a file, ``.safetensors`` or a state dict that
            ``torch.load(weights_only=True)`` reads. A folder or a repository brings its own.
        device: where it runs; None takes a GPU if there is one.

    Raises:
        MissingDependencyError: open_clip is not installed.
        ModelNotFoundError: there is no such file or folder; when it is first used: the weights cannot be downloaded.
        InputError: no such model or tag; no weights; when it is first used: they do not fit.
        DeviceError: no such device.
    """

    def __init__(
        self, model: str | Path = "ViT-B-32", pretrained: str | Path | None = "openai", device: str | None = None
    ) -> None:
        self._source = find_source(str(model), str(pretrained or ""))
        self._device = resolve_device(device)
        self._lock = threading.Lock()
        self._clip: Clip | None = None

    @property
    def name(self) -> str:
        """Tells model and weights apart: a model and a tag, or a hash of the files."""
        return self.loaded().name

    def images(self, images: Sequence[ImageInput]) -> Matrix:
        """Encode images to unit vectors ``(images, dim)``.

        Raises:
            ImageError: one cannot be decoded.
        """
        return _each_once(images, [image_digest(image) for image in images], self._image_batches)

    def texts(self, texts: Sequence[str]) -> Matrix:
        """Encode texts to unit vectors ``(texts, dim)``; what exceeds CLIP's context is cut off."""
        return _each_once(texts, texts, self._text_batches)

    def _image_batches(self, images: list[ImageInput]) -> Iterator[torch.Tensor]:
        clip = self.loaded()
        batches = [images[start : start + _IMAGES] for start in range(0, len(images), _IMAGES)]
        with ThreadPoolExecutor(thread_name_prefix="aim-clip", initializer=leave_cores) as pool:
            ahead = pool.map(clip.pixels, batches[0])
            for following in [*batches[1:], []]:
                pixels = torch.stack(list(ahead))
                ahead = pool.map(clip.pixels, following)  # decoded while the GPU computes
                yield clip.model.encode_image(pixels.to(self._device), normalize=False)

    def _text_batches(self, texts: list[str]) -> Iterator[torch.Tensor]:
        clip = self.loaded()
        for start in range(0, len(texts), _TEXTS):
            with self._lock:  # fast tokenizers are not thread-safe
                tokens = clip.tokenizer(texts[start : start + _TEXTS])
            yield clip.model.encode_text(tokens.to(self._device), normalize=False)

    def loaded(self) -> Clip:
        """The model with what prepares its inputs; loaded when it is first asked for."""
        with self._lock:
            if self._clip is None:
                self._clip = load_clip(self._source, self._device)
            return self._clip


_shared: weakref.WeakValueDictionary[tuple[str, str, str], ClipEncoder] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def shared_encoder(model: str | Path, pretrained: str | Path | None, device: str | None) -> ClipEncoder:
    """One encoder for all selectors of the same weights, as long as one of them lives."""
    with _sharing:
        key = str(model), str(pretrained), str(device)
        encoder = _shared.get(key)
        if encoder is None:
            encoder = _shared[key] = ClipEncoder(model, pretrained, device)
        return encoder


def _each_once(items: Sequence[T], keys: Sequence[str], encode: Callable[[list[T]], Iterator[torch.Tensor]]) -> Matrix:
    """Encode equal items once: it is faster, and their vectors are the same to the last bit."""
    unique = dict(zip(keys, items, strict=True))
    places = {key: place for place, key in enumerate(unique)}
    with torch.inference_mode():
        made = [batch.float().cpu().numpy() for batch in encode(list(unique.values()))]
    vectors: Matrix = unit(np.concatenate(made))[[places[key] for key in keys]].astype(np.float32, copy=False)
    return vectors
