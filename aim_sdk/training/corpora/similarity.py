"""How alike images and sentences are, and which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aim_sdk.errors import ImageError
from aim_sdk.files.images import load_image
from aim_sdk.support.dependencies import imported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.clip.encoder import ClipEncoder
    from aim_sdk.types import ImageInput


class ClipSimilarity:
    """Cosines by CLIP. The weights are loaded when they are first used, once per process.

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].

    Raises:
        MissingDependencyError: open_clip is not installed.
        ModelNotFoundError, InputError, DeviceError: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
    """

    def __init__(self, model: str, pretrained: str, device: str) -> None:
        self._arguments = model, pretrained, device
        self._encoder: ClipEncoder | None = self._shared()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_encoder": None}

    def matrix(self, images: Sequence[ImageInput], texts: Sequence[str]) -> NDArray[np.float64]:
        """Cosines ``(images, texts)``; an image that cannot be decoded has a row of NaN."""
        found = np.full((len(images), len(texts)), np.nan)
        if not images or not texts:
            return found
        self._encoder = encoder = self._encoder or self._shared()
        good = list(range(len(images)))
        try:
            vectors = encoder.images(images)
        except ImageError:
            good = [place for place in good if _decodes(images[place])]
            if not good:
                return found
            vectors = encoder.images([images[place] for place in good])
        found[good] = vectors @ encoder.texts(texts).T
        return found

    def _shared(self) -> ClipEncoder:
        from aim_sdk.clip.encoder import shared_encoder

        return shared_encoder(*self._arguments)


def match(similarity: NDArray[np.float64], *, one_to_one: bool) -> list[tuple[int, int]]:
    """Pair images with sentences; ``similarity`` is ``(images, sentences)``, NaN where a pair is ruled out.

    Returns ``(image, sentence)``, in the order of the sentences. One to one, the sum of the similarities is the highest
    that is possible with as many pairs as possible; otherwise every image takes the sentence most like it.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    allowed = np.isfinite(similarity)
    # Far below any cosine, so that a pair that is ruled out is only taken if there is no other.
    filled = np.where(allowed, similarity, -1e3)
    if not allowed.any():
        return []
    if one_to_one:
        images, sentences = imported("scipy.optimize").linear_sum_assignment(filled, maximize=True)
    else:
        images, sentences = np.arange(len(filled)), filled.argmax(1)
    pairs = zip(images.tolist(), sentences.tolist(), strict=True)
    return sorted((pair for pair in pairs if allowed[pair]), key=lambda pair: (pair[1], pair[0]))


def _decodes(image: ImageInput) -> bool:
    try:
        load_image(image)
    except ImageError:
        return False
    return True
