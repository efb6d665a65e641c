"""Selectors that compare by CLIP: images, texts, or both. They need the extra ``clip`` (open_clip).

The weights are loaded when the first query is answered. The vectors of the demonstrations are kept in the bank, under a
name that identifies the weights, so that later only queries are encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aim_sdk.clip.encoder import shared_encoder
from aim_sdk.errors import InputError
from aim_sdk.selection.base import Selector, others
from aim_sdk.selection.ranking import best
from aim_sdk.support.vectors import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.bank.store import Where
    from aim_sdk.bank.view import BankView
    from aim_sdk.types import Demonstration, Matrix, Query


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

    def image_scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Cosines of the images."""
        vectors = view.features(f"clip-image {self.encoder.name}", self._images)
        return dot(self.encoder.images([query.image for query in queries]), vectors, candidates)

    def text_vectors(self, view: BankView) -> Matrix:
        """The bank's texts."""
        return view.features(f"clip-text {self.encoder.name}", self._texts, of_images=False)

    def _images(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.images([item.image for item in demonstrations])

    def _texts(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.texts([item.text for item in demonstrations])


class RicesSelector(_ClipSelector):
    """The most similar images by CLIP (Retrieval-based In-Context Examples Selection, Yang et al. 2022).

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        where, balance: see [`Selector`][aim_sdk.selection.base.Selector].
    """

    name = "rices"

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return self.image_scores(view, queries, candidates)


class TextSelector(_ClipSelector):
    """The demonstrations whose texts (not answers) are most similar to the query's text by CLIP.

    CLIP reads the first tokens of a text only (77 with most weights): what follows is cut off. Equal texts, as of
    captions, are equally similar: then those that were added first are shown.

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        where, balance: see [`Selector`][aim_sdk.selection.base.Selector].
    """

    name = "text"

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        vectors = self.text_vectors(view)
        return dot(self.encoder.texts([query.text for query in queries]), vectors, candidates)


class MmicesSelector(_ClipSelector):
    """The most similar texts among the most similar images.

    Mixed Modality In-Context Example Selection (Chen et al. 2023). The demonstrations whose images are not among the
    ``prefilter`` most similar ones come after all others, by their images: they are shown where more shots, or another
    label, are asked for. Texts are cut as in [`TextSelector`][aim_sdk.selection.clip.TextSelector].

    Args:
        model, pretrained, device: see [`ClipEncoder`][aim_sdk.clip.encoder.ClipEncoder].
        prefilter: how many images; the query's own demonstrations do not count.
        where, balance: see [`Selector`][aim_sdk.selection.base.Selector].
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

    def scores(self, view: BankView, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        scores, vectors = self.image_scores(view, queries, candidates), self.text_vectors(view)
        asked = self.encoder.texts([query.text for query in queries])
        for query, row, text in zip(queries, scores, asked, strict=True):
            allowed = others(view, query, candidates)
            near = np.sort(allowed[best(row[allowed], self.prefilter)])
            row -= 4  # below every cosine
            row[near] = dot(text[None], vectors, candidates[near])[0]
        return scores
