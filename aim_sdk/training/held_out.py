"""Documents that are never trained on, chosen by their names alone, and the episodes that are measured on them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from itertools import islice
from typing import Final

from PIL import Image

from aim_sdk.errors import ImageError, InputError
from aim_sdk.files.images import image_digest
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.corpora import CorpusConfig, DocumentStream, open_corpus
from aim_sdk.training.corpora.documents import Document
from aim_sdk.training.episode import Episode
from aim_sdk.training.episodes import EpisodeMaker
from aim_sdk.training.things import common_words
from aim_sdk.types import Demonstration, ImageInput


class _ProbeMaker:
    """Makes two episodes of a document: one binds new names to its images, one continues it with its own text."""

    def __init__(self, config: TrainingConfig, common: frozenset[str] = frozenset()) -> None:
        settings, seed = config.episodes.model_copy(update={"targets": 1, "styles": 0.0}), config.seed + 1
        several = (min(2, settings.shots[1]), settings.shots[1])  # one shot shows one name: nothing is to be told apart
        naming = settings.model_copy(update={"labels": 1.0, "relatives": 1.0, "shots": several})
        self._makers = (
            EpisodeMaker(naming, seed=seed, common=common),
            EpisodeMaker(settings.model_copy(update={"labels": 0.0}), seed=seed),
        )

    def episodes(self, document: Document) -> list[Episode]:
        """Both kinds, in turn."""
        return [episode for maker in self._makers for episode in maker.episodes(document, 0)]


def probe_episodes(config: TrainingConfig) -> list[Episode]:
    """The evaluation's episodes: the first ones, in the corpus's own order, of documents that are never trained on.

    Raises:
        InputError: there are none.
    """
    own = config.evaluation.corpus
    corpus = open_corpus((own or config.corpus).model_copy(update={"shuffle": False}))
    maker = _ProbeMaker(config, common_words(own or config.corpus))
    stream = DocumentStream(corpus, epochs=1)
    documents = (document for document, _ in stream if own or held_out(document.id, config))
    episodes = (_kept(episode) for document in documents for episode in maker.episodes(document))
    found = list(islice(episodes, config.evaluation.episodes))
    if not found and own:
        raise no_episode("evaluation.corpus", own, stream, config)
    if not found:
        raise InputError(
            f"evaluation: no held-out document gives an episode. Left out of the corpus: {dict(stream.dropped)}. "
            "Next: a larger evaluation.held_out, an evaluation.corpus of its own, or evaluation.every=0."
        )
    return found


def no_episode(name: str, corpus: CorpusConfig, stream: DocumentStream, config: TrainingConfig) -> InputError:
    """What to change where none of a corpus's documents, all of which a stream has seen, gives an episode."""
    left_out = f"; left out: {dict(stream.dropped)}" if stream.dropped else ""
    fewest = config.episodes.shots[0] + 1
    longer = f"fewer episodes.shots: now an episode takes {fewest} pairs of one document"
    return InputError(
        f"{name}: {corpus.path} gives no episode{left_out}. "
        f"Next: {stream.drops.cures(lambda setting: f'{name}.{setting}') or longer}."
    )


def check_corpus(config: TrainingConfig) -> None:
    """Look for the first document that gives an episode.

    Raises:
        InputError: there is none.
    """
    stream = DocumentStream(open_corpus(config.corpus.model_copy(update={"shuffle": False})), epochs=1)
    maker = EpisodeMaker(config.episodes, seed=config.seed)
    if not any(maker.episodes(document, 0) for document, _ in stream):
        raise no_episode("corpus", config.corpus, stream, config)


def _kept(episode: Episode) -> Episode:
    """The same episode with its views as files' bytes, which are smaller, and names for their readings."""
    return replace(
        episode,
        demonstrations=tuple(_named(item) for item in episode.demonstrations),
        query=replace(episode.query, image=_packed(episode.query.image)),
    )


def _named(item: Demonstration) -> Demonstration:
    if "id" in item.metadata:
        return item
    try:
        image = _packed(item.image)
        content = f"{image_digest(image)}\0{item.text}\0{item.answer}"
    except ImageError:  # it is left out, with its reason, where it is read
        return item
    return replace(item, image=image, metadata={"id": f"view:{hashlib.sha256(content.encode()).hexdigest()}"})


def _packed(image: ImageInput) -> ImageInput:
    """A drawn view as the bytes of a PNG; what comes from the corpus stays as it is."""
    if not isinstance(image, Image.Image):
        return image
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


_SHARES: Final = (0.02, 0.05, 0.1, 0.2)
_FEWEST: Final = 16
"""The number of held-out episodes that a share should give."""


def with_held_out(config: TrainingConfig) -> tuple[TrainingConfig, str | None]:
    """Choose the share of held-out documents, if the settings leave it open; the same in every process.

    Returns:
        The settings. If not even two episodes can be held out, they have no evaluation, and the reason is returned with
        them.
    """
    evaluation = config.evaluation
    if not evaluation.every or evaluation.held_out is not None or evaluation.corpus is not None:
        return config, None
    corpus = open_corpus(config.corpus.model_copy(update={"shuffle": False}))
    maker = _ProbeMaker(config)
    places: list[float] = []
    documents = 0
    for document, _ in DocumentStream(corpus, epochs=1):
        documents += 1
        if (place := _place(document.id)) < _SHARES[-1]:
            places += [place] * len(maker.episodes(document))
        if sum(place < _SHARES[0] for place in places) >= _FEWEST:
            break
    enough = (share for share in _SHARES if sum(place < share for place in places) >= _FEWEST)
    share = next(enough, _SHARES[-1])
    if len(places) > 1:
        return _changed(config, held_out=share), None
    return _changed(config, every=0), (
        f"no held-out evaluation: of {documents} documents, {share:.0%} give {len(places)} episodes, too few to "
        "measure anything. Next: more documents, an evaluation.corpus of its own, or a larger evaluation.held_out."
    )


def _changed(config: TrainingConfig, **changes: object) -> TrainingConfig:
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=changes)})


def held_out(document: str, config: TrainingConfig) -> bool:
    """Whether a document is kept for the evaluation, by its name alone."""
    return _place(document) < (config.evaluation.held_out or _SHARES[0])


def _place(document: str) -> float:
    """Where a document's name puts it, from 0 to 1."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
