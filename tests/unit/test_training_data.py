"""Batches are the same whoever makes them and wherever a run goes on; what is held out is never learnt."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk.errors import InputError
from aim_sdk.training import TrainingConfig
from aim_sdk.training.corpora import Cursor
from aim_sdk.training.data import (
    EpisodeBatch,
    training_batches,
    typical_demonstrations,
)
from aim_sdk.training.episode import Episode
from aim_sdk.training.held_out import held_out, probe_episodes, with_held_out
from tests.corpora import folder_of, lines

SIZES = (13, 4, 1, 0, 22)
STEPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of one to five pairs in five files; every seventh names an image that is not there."""
    folder = tmp_path_factory.mktemp("corpus")
    folder_of(folder, 5)
    for file, size in enumerate(SIZES):
        documents = []
        for number in range(size):
            pairs = [{"image": f"{place}.png", "answer": f"{file}.{number}.{place}"} for place in range(1 + number % 5)]
            if number % 7 == 6:
                pairs[0]["image"] = "gone.png"
            documents.append({"pairs": pairs})
        lines(folder / f"{file}.jsonl", documents)
    return folder


def config(folder: Path, **changes: Any) -> TrainingConfig:
    raw = {
        "output": "run",
        "backend": "pocket",
        "corpus": {"path": str(folder), "min_image_bytes": 0},
        "episodes": {"shots": [1, 3], "targets": 2, "labels": 0.0, "styles": 0.0},
        "evaluation": {"every": 0},
        "batch_size": 3,
        "batches_per_step": 4,
        "workers": 0,
    }
    return TrainingConfig.model_validate(raw | changes)


def told(batch: EpisodeBatch) -> tuple[Any, ...]:
    """All that a batch says, to be counted."""
    return batch.stream, batch.cursor, batch.episodes, tuple(sorted(batch.dropped.items()))


def steps(config: TrainingConfig, count: int = STEPS, world: int = 1, **options: Any) -> list[Counter[str]]:
    """The batches of each step, of all processes."""
    each = config.batches_per_step // world
    made: list[Counter[str]] = [Counter() for _ in range(count)]
    for rank in range(world):
        batches = training_batches(config, rank=rank, world=world, **options)
        for place, batch in enumerate(islice(batches, count * each)):
            made[place // each][repr(told(batch))] += 1
    return made


def documents(batches: list[EpisodeBatch]) -> set[str]:
    return {episode.document for batch in batches for episode in batch.episodes}


def taken(config: TrainingConfig, count: int, **options: Any) -> list[EpisodeBatch]:
    return list(islice(training_batches(config, **options), count))


# --- who makes them


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_steps_batches(corpus: Path, world: int) -> None:
    alone = steps(config(corpus))
    assert all(step.total() == 4 for step in alone)
    assert steps(config(corpus), world=world) == alone


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "world"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_workers_make_the_same_batches_in_the_same_order(corpus: Path, workers: int, world: int) -> None:
    for rank in range(world):
        expected = taken(config(corpus), STEPS * 4, rank=rank, world=world)
        found = taken(config(corpus, workers=workers), STEPS * 4, rank=rank, world=world)
        assert list(map(told, found)) == list(map(told, expected))


def test_every_step_has_a_batch_of_each_stream_in_turn(corpus: Path) -> None:
    batches = taken(config(corpus), 40)
    assert [batch.stream for batch in batches] == [0, 1, 2, 3] * 10
    assert all(len(batch.episodes) == 3 for batch in batches)
    of_streams = [{name for b in batches[stream::4] for name in documents([b])} for stream in range(4)]
    assert sum(map(len, of_streams)) == len(set.union(*of_streams)), "a document belongs to one stream"


def test_another_seed_gives_other_batches(corpus: Path) -> None:
    assert steps(config(corpus, seed=1)) == steps(config(corpus, seed=1)) != steps(config(corpus))


@pytest.mark.parametrize(("count", "world", "next_one"), [(4, 3, 6), (1, 2, 2), (6, 4, 8), (3, 8, 8)])
def test_processes_that_cannot_share_evenly_are_refused(corpus: Path, count: int, world: int, next_one: int) -> None:
    batches = training_batches(config(corpus, batches_per_step=count), world=world)
    with pytest.raises(InputError, match=rf"batches_per_step={count} cannot be divided among {world} .*={next_one}"):
        next(batches)


# --- going on


def test_going_on_equals_no_interruption_at_every_step(corpus: Path) -> None:
    whole = taken(config(corpus), STEPS * 4)
    cursors: dict[int, Cursor] = {}
    for step in range(STEPS):
        after = taken(config(corpus), (STEPS - step) * 4, cursors=cursors)
        assert list(map(told, after)) == list(map(told, whole[step * 4 :])), step
        cursors = cursors | {batch.stream: batch.cursor for batch in whole[step * 4 : step * 4 + 4]}
    assert max(batch.cursor.epoch for batch in whole) >= 1, "over the end of an epoch"


@settings(deadline=None, max_examples=25)
@given(
    streams=st.sampled_from([1, 2, 3, 6]),
    size=st.integers(1, 5),
    seed=st.integers(0, 9),
    step=st.integers(1, 8),
    world=st.sampled_from([1, 2, 3]),
    held=st.booleans(),
)
def test_going_on_with_other_processes_equals_no_interruption(
    corpus: Path, streams: int, size: int, seed: int, step: int, world: int, held: bool
) -> None:
    evaluation = {"every": 1, "held_out": 0.2} if held else {"every": 0}
    ours = config(corpus, batches_per_step=streams, batch_size=size, seed=seed, evaluation=evaluation)
    whole = taken(ours, (step + 2) * streams)
    cursors = {batch.stream: batch.cursor for batch in whole[(step - 1) * streams : step * streams]}
    expected = [
        Counter(repr(told(batch)) for batch in whole[place * streams : (place + 1) * streams])
        for place in (step, step + 1)
    ]
    assert steps(ours, 2, world if streams % world == 0 else 1, cursors=cursors) == expected


# --- what was left out


def test_what_is_left_out_is_counted_once(corpus: Path) -> None:
    """In the first epoch: documents of too few pairs, and a pair without its image."""
    ours = config(corpus, batches_per_step=1, batch_size=1)
    first = [batch for batch in taken(ours, 120) if batch.cursor.epoch == 0]
    dropped = sum((batch.dropped for batch in first), Counter[str]())
    gone = sum(1 for size in SIZES for number in range(size) if number % 7 == 6)
    assert dropped["image missing"] in (gone, gone - 1), "the epoch's last documents count in the next one"
    strict = config(corpus, batches_per_step=1, batch_size=1, episodes={"shots": [3, 3]})
    counted = sum((batch.dropped for batch in taken(strict, 6)), Counter[str]())
    assert counted["fewer than 4 pairs for an episode"] > 0


# --- what is held out


def evaluated(config: TrainingConfig) -> set[str]:
    return {episode.document for episode in probe_episodes(config)}


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_held_out_documents_are_evaluated_and_never_trained_on(corpus: Path, share: float) -> None:
    ours = config(corpus, evaluation={"held_out": share, "episodes": 99}, batches_per_step=2)
    trained, kept = documents(taken(ours, 120)), evaluated(ours)
    every = documents(taken(config(corpus), 200))
    assert trained
    assert kept
    assert not trained & kept
    assert trained | kept == every
    assert all(held_out(name, ours) for name in kept)
    assert not any(held_out(name, ours) for name in trained)
    other = config(corpus, evaluation={"held_out": share, "episodes": 99}, seed=5, batches_per_step=3)
    assert evaluated(other) == kept, "whatever the seed"


def test_a_larger_share_holds_the_smaller_one(corpus: Path) -> None:
    names = [f"file:{number}" for number in range(2000)]
    kept = [
        {name for name in names if held_out(name, config(corpus, evaluation={"held_out": share}))}
        for share in (0.02, 0.3, 0.9)
    ]
    assert kept[0] < kept[1] < kept[2]
    for found, share in zip(kept, (0.02, 0.3, 0.9), strict=True):
        assert len(found) / 2000 == pytest.approx(share, abs=0.03)


def test_the_evaluation_is_the_same_in_every_run(corpus: Path) -> None:
    def made(**changes: Any) -> list[Episode]:
        return probe_episodes(config(corpus, evaluation={"held_out": 0.5, "episodes": 5}, **changes))

    assert len(made()) == 5
    assert made() == made(batch_size=1, batches_per_step=1, steps=7)
    many = probe_episodes(config(corpus, evaluation={"held_out": 0.5, "episodes": 8}))
    assert many[:5] == made()
    assert len({episode.document for episode in many}) == 4, "two of each document"
    assert sum(bool(episode.names) for episode in many) == 4, "one of them binds new names"


def test_with_a_corpus_of_its_own_nothing_is_held_out(corpus: Path, tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    pairs = [{"image": f"{place}.png", "answer": f"own {place}"} for place in range(2)]
    lines(tmp_path / "own.jsonl", [{"pairs": pairs}] * 3)
    own = {"path": str(tmp_path), "min_image_bytes": 0}
    ours = config(corpus, evaluation={"held_out": 0.9, "corpus": own})
    assert evaluated(ours) == {f"own.jsonl:{number}" for number in range(3)}
    assert documents(taken(ours, 200)) == documents(taken(config(corpus), 200))


@pytest.mark.parametrize(("documents", "share"), [(20, 0.2), (100, 0.1), (1000, 0.02)])
def test_the_share_that_is_held_out_grows_where_documents_are_few(documents: int, share: float, tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    pairs = [{"image": f"{place}.png", "answer": str(place)} for place in range(2)]
    lines(tmp_path / "docs.jsonl", [{"pairs": pairs}] * documents)
    path, every = tmp_path, {"every": 1}
    ours, unmeasured = with_held_out(config(path, evaluation=every))
    assert (ours.evaluation.held_out, unmeasured) == (share, None)
    assert len(probe_episodes(ours)) > 1
    told = config(path, evaluation={**every, "held_out": 0.3})
    assert with_held_out(told) == (told, None)


def test_nothing_held_out_is_an_error(corpus: Path) -> None:
    with pytest.raises(InputError, match="no held-out document gives an episode"):
        probe_episodes(config(corpus, evaluation={"held_out": 1e-9}))


# --- corpora that give no episode


@pytest.mark.parametrize(
    "changes",
    [
        {"episodes": {"shots": [5, 5]}},  # no document has six pairs
        {"evaluation": {"held_out": 1 - 1e-12}},  # all is held out
        {"batches_per_step": 200},  # a stream has no document
        {"corpus": {"min_image_bytes": 10**6}},
    ],
    ids=["pairs", "held out", "streams", "images"],
)
def test_a_corpus_without_episodes_ends_in_an_error(corpus: Path, changes: dict[str, Any]) -> None:
    if "corpus" in changes:
        changes = {"corpus": {"path": str(corpus), **changes["corpus"]}}
    with pytest.raises(InputError, match=r"gives no episode.*Next:"):
        taken(config(corpus, **changes), 10_000 if "batches_per_step" not in changes else 200)


def test_a_batch_is_filled_over_many_epochs(tmp_path: Path) -> None:
    """One document, and batches of seven episodes."""
    folder_of(tmp_path, 2)
    lines(tmp_path / "one.jsonl", [{"pairs": [{"image": f"{n}.png", "answer": f"{n}"} for n in range(2)]}])
    batches = taken(config(tmp_path, batches_per_step=1, batch_size=7, workers=0), 3)
    assert [batch.cursor.epoch for batch in batches] == [6, 13, 20]


# --- calibration


def test_typical_demonstrations_are_the_first_and_plain(corpus: Path) -> None:
    ours = config(corpus, episodes={"shots": [1, 3], "labels": 0.5, "styles": 0.5})
    found = typical_demonstrations(ours, 6)
    assert len(found) == 6
    assert all("~" not in str(item.metadata["id"]) for item in found)
    plain = config(corpus, episodes={"shots": [1, 3]}, batches_per_step=2, batch_size=1)
    assert found == typical_demonstrations(plain, 6)
    assert len(typical_demonstrations(ours, 10**6)) < 10**6
