"""The settings of a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from aim_sdk.errors import unknown
from aim_sdk.files.settings import Settings
from aim_sdk.training.corpora.registry import AUTO, FORMATS


class CorpusConfig(Settings):
    """Where a corpus is, how its images and texts are paired, and what is left out.

    The defaults are the recipe with which the field trains on MMC4: images of at least 10 KB, matched one to one with
    sentences, a similarity of at least 0.24, and the first 6 images of a document. A document with more images is cut,
    not left out, as OpenFlamingo does it.
    """

    path: Path = Field(description="a folder of the corpus's files, or one of them")
    format: str = Field(
        default=AUTO,
        description="auto: recognised by the first files' content; or a name (see aim_sdk.training.corpora.registry)",
    )
    images: Path | None = Field(
        default=None, description="the folder that image names are relative to; None: that of the file naming them"
    )
    min_similarity: float = Field(default=0.24, description="pairs with a known similarity below it are left out")
    one_to_one: bool = Field(
        default=True,
        description="a text belongs to one image of its document: the matching of the highest total similarity (mmc4), "
        "or the nearest image (obelics)",
    )
    min_image_bytes: int = Field(default=10 * 1024, ge=0, description="smaller image files are left out")
    max_images: int = Field(
        default=6,
        ge=1,
        description="the most pairs of a document; its first ones are kept. llava and webdataset: see group",
    )
    min_pairs: int = Field(default=2, ge=1, description="documents with fewer pairs are left out")
    similarity: Literal["corpus", "clip", "none"] = Field(
        default="corpus", description="corpus: its own; clip: computed by CLIP from image and answer; none: ignored"
    )
    clip_model: str = Field(default="ViT-B-32", description="as aim_sdk.clip.encoder.ClipEncoder takes it")
    clip_pretrained: str = Field(default="openai", description="as aim_sdk.clip.encoder.ClipEncoder takes it")
    clip_device: str = Field(default="cpu", description="documents are read in worker processes: each loads CLIP there")
    group: int = Field(
        default=8,
        ge=1,
        description="llava, webdataset: the number of consecutive single-image samples that make a document",
    )
    shuffle: bool = Field(default=True, description="a new order every epoch; False: the order of the files")

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != AUTO and name not in FORMATS:
            raise ValueError(unknown("format", name, [AUTO, *FORMATS]))
        return name

    @model_validator(mode="after")
    def _some_document_fits(self) -> Self:
        if self.max_images < self.min_pairs:
            raise ValueError(
                f"max_images={self.max_images} and min_pairs={self.min_pairs}: no document has so few pairs and so many"
            )
        return self
