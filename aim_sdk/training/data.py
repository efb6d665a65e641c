"""Batches of episodes in an order that does not depend on how many processes and workers make them.

A corpus is dealt to as many streams as a step has batches. A process reads the streams of its batches, its workers
share them, and a batch carries its stream's position after it: the positions after the last batches are all that a run
needs to resume exactly there.
"""

from __future__ import annotations

import hashlib
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aim_sdk.errors import InputError
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.corpora import Corpus, Cursor, DocumentStream, open_corpus
from aim_sdk.training.episodes import Episode, EpisodeMaker
from aim_sdk.types import Demonstration


@dataclass(frozen=True, slots=True)
class EpisodeBatch:
    """Episodes of one forward."""

    stream: int
    cursor: Cursor
    """The position in the stream after this batch."""
    episodes: tuple[Episode, ...]
    dropped: Counter[str]
    """What was left out on the way to this batch, by reason."""


class EpisodeBatches(IterableDataset[EpisodeBatch]):
    """The batches of some streams in turn, one of each: endless, or until a corpus gives no more.

    Args:
        config: the run's.
        corpus: the opened corpus.
        streams: which of ``config.batches_per_step`` streams.
        cursors: where each of them begins; by default, at its start.
    """

    def __init__(
        self, config: TrainingConfig, corpus: Corpus, streams: Sequence[int], cursors: Mapping[int, Cursor]
    ) -> None:
        self.config, self.corpus, self.streams, self.cursors = config, corpus, tuple(streams), dict(cursors)

    def __iter__(self) -> Iterator[EpisodeBatch]:
        info = get_worker_info()
        streams = self.streams[info.id :: info.num_workers] if info else self.streams
        batches = [self._batches(stream) for stream in streams]
        while True:
            for stream in batches:
                batch = next(stream, None)
                if batch is None:  # a step needs one of each
                    return
                yield batch

    def _batches(self, number: int) -> Iterator[EpisodeBatch]:
        config = self.config
        maker = EpisodeMaker(config.episodes, seed=config.seed)
        stream = DocumentStream(
            self.corpus,
            stream=number,
            streams=config.batches_per_step,
            seed=config.seed,
            cursor=self.cursors.get(number, Cursor(0, 0)),
        )
        episodes: list[Episode] = []
        lost, reported = Counter[str](), Counter[str]()
        fruitful = stream.cursor.epoch
        for document, cursor in stream:
            if cursor.epoch > fruitful + 1:
                return
            if config.evaluation.every and config.evaluation.corpus is None and held_out(document.id, config):
                continue
            # The cursor is after the document; its episodes are those of the epoch that it was read in.
            made = maker.episodes(document, cursor.epoch)
            if made:
                fruitful = cursor.epoch
            else:
                lost[f"fewer than {config.episodes.shots[0] + 1} pairs for an episode"] += 1
            episodes += made
            if len(episodes) >= config.batch_size:
                dropped = stream.dropped + lost
                yield EpisodeBatch(number, cursor, tuple(episodes[: config.batch_size]), dropped - reported)
                episodes, reported = [], dropped


def training_batches(
    config: TrainingConfig, *, rank: int = 0, world: int = 1, cursors: Mapping[int, Cursor] | None = None
) -> Iterator[EpisodeBatch]:
    """The batches of one process, ``batches_per_step / world`` per step.

    Raises:
        InputError: the processes cannot share the batches evenly, or a stream gives no episode.
        ArtifactError: the corpus cannot be opened.
    """
    if config.batches_per_step % world:
        raise InputError(
            f"batches_per_step={config.batches_per_step} cannot be divided among {world} processes. "
            f"Next: batches_per_step={-(-config.batches_per_step // world) * world}."
        )
    streams = range(rank, config.batches_per_step, world)
    dataset = EpisodeBatches(config, open_corpus(config.corpus), streams, cursors or {})
    # Workers take turns: with unequal numbers of streams their batches would come out of turn.
    workers = max(n for n in range(config.workers + 1) if n == 0 or len(streams) % n == 0)
    # Spawned: a fork of a process whose threads compute may hang.
    context = "spawn" if workers else None
    loader: DataLoader[EpisodeBatch] = DataLoader(
        dataset, batch_size=None, num_workers=workers, multiprocessing_context=context, worker_init_fn=_uninterrupted
    )
    yield from loader
    raise InputError(
        f"{config.corpus.path}: one of {config.batches_per_step} streams of documents gives no episode. Next: look at "
        "`aim-icl corpus inspect`, lower batches_per_step or episodes.shots, or loosen the corpus's filters."
    )


def _uninterrupted(worker: int) -> None:
    """Ctrl-C is the trainer's: it saves, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def held_out_episodes(config: TrainingConfig) -> list[Episode]:
    """The evaluation's episodes: the first ones, in the corpus's own order, of documents that are never trained on."""
    own = config.evaluation.corpus
    corpus = open_corpus((own or config.corpus).model_copy(update={"shuffle": False}))
    settings = config.episodes.model_copy(update={"targets": 1})
    maker = EpisodeMaker(settings, seed=config.seed + 1)
    documents = (document for document, _ in DocumentStream(corpus, epochs=1) if own or held_out(document.id, config))
    episodes = (episode for document in documents for episode in maker.episodes(document, 0))
    found = list(islice(episodes, config.evaluation.episodes))
    if not found:
        raise InputError(
            "evaluation: no held-out document gives an episode. "
            "Next: a larger evaluation.held_out, an evaluation.corpus of its own, or evaluation.every=0."
        )
    return found


_SHARES: Final = (0.02, 0.05, 0.1, 0.2)
_FEWEST: Final = 8
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
    maker = EpisodeMaker(config.episodes.model_copy(update={"targets": 1}), seed=config.seed + 1)
    places: list[float] = []
    documents = 0
    for document, _ in DocumentStream(corpus, epochs=1):
        documents += 1
        if (place := _place(document.id)) < _SHARES[-1]:
            places += [place] * len(maker.episodes(document, 0))
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


def typical_demonstrations(config: TrainingConfig, number: int) -> list[Demonstration]:
    """The first demonstrations in the corpus's own order: the same in every process."""
    corpus = open_corpus(config.corpus.model_copy(update={"shuffle": False}))
    maker = EpisodeMaker(config.episodes.model_copy(update={"labels": 0.0, "styles": 0.0}), seed=config.seed)
    episodes = (e for document, _ in DocumentStream(corpus, epochs=1) for e in maker.episodes(document, 0))
    return list(islice((item for episode in episodes for item in episode.demonstrations), number))


def held_out(document: str, config: TrainingConfig) -> bool:
    """Whether a document is kept for the evaluation, by its name alone."""
    return _place(document) < (config.evaluation.held_out or _SHARES[0])


def _place(document: str) -> float:
    """Where a document's name puts it, from 0 to 1."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
