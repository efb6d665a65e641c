"""Batches of episodes in an order that does not depend on how many processes and workers make them.

A corpus is dealt to as many streams as a step has batches. A process reads the streams of its batches, its workers
share them, and a batch carries its stream's position after it: the positions after the last batches are all that a run
needs to resume exactly there.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aim_sdk.errors import InputError
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.corpora import Corpus, Cursor, DocumentStream, open_corpus
from aim_sdk.training.episode import Episode
from aim_sdk.training.episodes import EpisodeMaker
from aim_sdk.training.held_out import held_out
from aim_sdk.training.things import common_words
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
        self._common = common_words(config.corpus) if config.episodes.labels else frozenset[str]()

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
        maker = EpisodeMaker(config.episodes, seed=config.seed, common=self._common)
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
        "`aim-icl corpus inspect`, lower batches_per_step, episodes.shots or evaluation.held_out, or loosen the "
        "corpus's filters."
    )


def _uninterrupted(worker: int) -> None:
    """Ctrl-C is the trainer's: it saves, and then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def training_demonstrations(config: TrainingConfig, number: int) -> Iterator[Demonstration]:
    """Demonstrations of documents that are trained on, in the run's own order: the same in every process."""
    maker = EpisodeMaker(config.episodes.model_copy(update={"labels": 0.0, "styles": 0.0}), seed=config.seed)
    apart = config.evaluation.every and config.evaluation.corpus is None
    stream = DocumentStream(open_corpus(config.corpus), seed=config.seed, epochs=1)
    documents = (document for document, _ in stream if not (apart and held_out(document.id, config)))
    episodes = (episode for document in documents for episode in maker.episodes(document, 0))
    return islice((item for episode in episodes for item in episode.demonstrations), number)


def typical_demonstrations(config: TrainingConfig, number: int) -> list[Demonstration]:
    """The first demonstrations in the corpus's own order: the same in every process."""
    corpus = open_corpus(config.corpus.model_copy(update={"shuffle": False}))
    maker = EpisodeMaker(config.episodes.model_copy(update={"labels": 0.0, "styles": 0.0}), seed=config.seed)
    episodes = (e for document, _ in DocumentStream(corpus, epochs=1) for e in maker.episodes(document, 0))
    return list(islice((item for episode in episodes for item in episode.demonstrations), number))
