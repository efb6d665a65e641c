"""Selectors that compare by CLIP: images, texts, or both. They need the extra ``clip`` (open_clip).

The weights are loaded when the first query is answered. What they make of the demonstrations is kept in the bank, under
a name that tells weights apart, so that later only queries are encoded.
"""

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
from aim_sdk.errors import InputError
from aim_sdk.files.images import image_digest
from aim_sdk.selection.builtin import Selector, best, dot, others, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.bank.bank import DemonstrationBank
    from aim_sdk.bank.store import Matrix, Where
    from aim_sdk.types import Demonstration, ImageInput, Query

_IMAGES, _TEXTS = 64, 256
"""Images and texts of one forward."""

T = TypeVar("T")


class _ClipSelector(Selector):
    """What the three have in common."""

    def __init__(
        self,
        model: str | Path = "ViT-B-32",
        pretrained: str | Path | None = "openai",
        device: str | None = None,
        *,
        where: Where | None = None,
        balance: str | None = None,
    ) -> None:
        super().__init__(where=where, balance=balance)
        self.encoder = shared_encoder(model, pretrained, device)

    def image_scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Cosines of the images."""
        vectors = bank.features(f"clip-image {self.encoder.name}", self._images)
        return dot(self.encoder.images([query.image for query in queries]), vectors, candidates)

    def text_vectors(self, bank: DemonstrationBank) -> Matrix:
        """The bank's texts."""
        return bank.features(f"clip-text {self.encoder.name}", self._texts, of_images=False)

    def _images(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.images([item.image for item in demonstrations])

    def _texts(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.texts([item.text for item in demonstrations])


class RicesSelector(_ClipSelector):
    """The most similar images by CLIP (Retrieval-based In-Context Examples Selection, Yang et al. 2022).

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        where, balance: see [`Selector`][aim_sdk.selection.builtin.Selector].
    """

    name = "rices"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return self.image_scores(bank, queries, candidates)


class TextSelector(_ClipSelector):
    """The demonstrations whose texts (not answers) are most similar to the query's text by CLIP.

    CLIP reads the first tokens of a text only (77 with most weights): what follows is cut off. Equal texts, as of
    captions, are equally similar: then those that were added first are shown.

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        where, balance: see [`Selector`][aim_sdk.selection.builtin.Selector].
    """

    name = "text"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        vectors = self.text_vectors(bank)
        return dot(self.encoder.texts([query.text for query in queries]), vectors, candidates)


class MmicesSelector(_ClipSelector):
    """The most similar texts among the most similar images.

    Mixed Modality In-Context Example Selection (Chen et al. 2023). The demonstrations whose images are not among the
    ``prefilter`` most similar ones come after all others, by their images: they are shown where more shots, or another
    label, are asked for. Texts are cut as in [`TextSelector`][aim_sdk.clip.encoder.TextSelector].

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        prefilter: how many images; the query's own demonstrations do not count.
        where, balance: see [`Selector`][aim_sdk.selection.builtin.Selector].
    """

    name = "mmices"

    def __init__(
        self,
        model: str | Path = "ViT-B-32",
        pretrained: str | Path | None = "openai",
        device: str | None = None,
        *,
        prefilter: int = 100,
        where: Where | None = None,
        balance: str | None = None,
    ) -> None:
        super().__init__(model, pretrained, device, where=where, balance=balance)
        if not isinstance(prefilter, int) or prefilter < 1:
            raise InputError(f"prefilter={prefilter!r}; expected a whole number of at least 1.")
        self.prefilter = prefilter

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        scores, vectors = self.image_scores(bank, queries, candidates), self.text_vectors(bank)
        asked = self.encoder.texts([query.text for query in queries])
        for query, row, text in zip(queries, scores, asked, strict=True):
            allowed = others(bank, query, candidates)
            near = np.sort(allowed[best(row[allowed], self.prefilter)])
            row -= 4  # below every cosine
            row[near] = dot(text[None], vectors, candidates[near])[0]
        return scores


class ClipEncoder:
    """A frozen CLIP model, loaded when it is first used. Threads may share it.

    Args:
        model: a name of open_clip's (``open_clip.list_models()``); a folder with ``open_clip_config.json`` and weights;
            or ``hf-hub:owner/name``, which holds the same.
        pretrained: the weights of a model that is given by name: a tag of open_clip's
            (``open_clip.list_pretrained()``), or a file, ``.safetensors`` or a state dict that
            ``torch.load(weights_only=True)`` reads. A folder or a repository brings its own.
        device: where it runs; None takes a GPU where there is one.

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
        return self._loaded().name

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
        clip = self._loaded()
        batches = [images[start : start + _IMAGES] for start in range(0, len(images), _IMAGES)]
        with ThreadPoolExecutor(thread_name_prefix="aim-clip") as pool:
            ahead = pool.map(clip.pixels, batches[0])
            for following in [*batches[1:], []]:
                pixels = torch.stack(list(ahead))
                ahead = pool.map(clip.pixels, following)  # decoded while the GPU computes
                yield clip.model.encode_image(pixels.to(self._device), normalize=False)

    def _text_batches(self, texts: list[str]) -> Iterator[torch.Tensor]:
        clip = self._loaded()
        for start in range(0, len(texts), _TEXTS):
            with self._lock:  # fast tokenizers do not bear two threads
                tokens = clip.tokenizer(texts[start : start + _TEXTS])
            yield clip.model.encode_text(tokens.to(self._device), normalize=False)

    def _loaded(self) -> Clip:
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
    """Encode equal items once: it is quicker, and their vectors are the same to the last bit."""
    unique = dict(zip(keys, items, strict=True))
    places = {key: place for place, key in enumerate(unique)}
    with torch.inference_mode():
        made = [batch.float().cpu().numpy() for batch in encode(list(unique.values()))]
    vectors: Matrix = unit(np.concatenate(made))[[places[key] for key in keys]].astype(np.float32, copy=False)
    return vectors
