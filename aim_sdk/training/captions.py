"""The teacher of backbones that take one image per prompt: demonstrations with captions in place of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aim_sdk.errors import InputError
from aim_sdk.files.images import image_digest
from aim_sdk.files.record_cache import RecordCache
from aim_sdk.reading.encoder import Encoder
from aim_sdk.training.episode import Episode
from aim_sdk.training.teachers import Teacher
from aim_sdk.types import Context, Demonstration, ImageInput, Query

if TYPE_CHECKING:
    from aim_sdk.training.config import TrainingConfig

REQUEST: Final = "Describe the image in one sentence."
TOKENS: Final = 40
"""The longest caption."""
_BATCH: Final = 8
_LIMIT: Final = 1e9
"""Bytes of captions that a run keeps: some millions."""


class Captions(Teacher):
    """Sees each demonstration with the backbone's own caption of its image before its text, and the query's image.

    A caption is written once, greedily, of the page's own image (not of the view that an episode draws of it), and kept
    in the run's folder.
    """

    def __init__(self, encoder: Encoder, folder: Path, rank: int) -> None:
        super().__init__(encoder, folder, rank)
        scope = f"{encoder.scope} {REQUEST} {TOKENS}"
        self._kept = RecordCache(folder / "captions", "captions", scope, limit=_LIMIT, rank=rank)

    def check(self, config: TrainingConfig) -> None:
        if config.shard:
            raise InputError(
                "teacher 'captions' with shard=true: the processes would have to write equally long captions. "
                "Next: objective.teacher=interleaved, or shard=false."
            )

    def shown(self, episode: Episode) -> tuple[Demonstration, ...]:
        pictures = zip(episode.demonstrations, episode.pictures, strict=True)
        return tuple(replace(item, image=picture) for item, picture in pictures)

    def contexts(self, shown: Sequence[Sequence[Demonstration]]) -> list[Context]:
        captions = self._captions([item.image for items in shown for item in items])
        told = iter(captions)
        described = [[replace(item, text=f"{next(told)}\n{item.text}".strip()) for item in items] for items in shown]
        reader, form = self.encoder.backend.reader, self.encoder.prompt_format
        return [reader.text_only(items, prompt_format=form) for items in described]

    def _captions(self, images: Sequence[ImageInput]) -> list[str]:
        keys = [image_digest(image) for image in images]
        found = {key: str(kept[0]["caption"]) for key in keys if (kept := self._kept.get(key, [])) is not None}
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        for start in range(0, len(missing), _BATCH):
            part = dict(list(missing.items())[start : start + _BATCH])
            queries = [Query(image, REQUEST) for image in part.values()]
            answers = self.encoder.backend.injector.generate(
                queries, [[]] * len(queries), prompt_format=self.encoder.prompt_format, max_new_tokens=TOKENS
            )
            for key, answer in zip(part, answers, strict=True):
                found[key] = answer.text
                self._kept.add(key, {"caption": answer.text}, {})
        return [found[key] for key in keys]

    def close(self) -> None:
        self._kept.close()
