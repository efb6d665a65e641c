"""The parts of a training run: settings, episodes, batches, kept readings, checkpoints, the frozen backbone."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from aim_backends.llava import LlavaBackend
from aim_sdk import Demonstration
from aim_sdk.encoder import Encoder
from aim_sdk.errors import CorruptArtifactError, InputError, TrainingError
from aim_sdk.projectors import untrained
from aim_sdk.training import TrainingConfig, checkpoint, optimizer
from aim_sdk.training.augmentation import Augmentation
from aim_sdk.training.config import EpisodeSettings, OptimizerSettings
from aim_sdk.training.corpora import Cursor, Document, Pair
from aim_sdk.training.data import Batch, held_out, held_out_episodes, training_batches
from aim_sdk.training.episodes import Episode, EpisodeMaker, cut
from aim_sdk.training.evaluation import difference, summarize
from aim_sdk.training.frozen import check_frozen, checksum
from aim_sdk.training.journal import Journal, read_log
from aim_sdk.training.readings import ReadingCache
from tests.corpora import picture

# --- settings


def settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {"output": str(tmp_path / "run"), "backend": "llava", "corpus": {"path": str(tmp_path)}, **changes}


def load(tmp_path: Path, text: str, *overrides: str) -> TrainingConfig:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return TrainingConfig.load(path, overrides)


MINIMAL = "output: run\nbackend: llava\ncorpus: {path: here}\n"


def test_overrides_reach_groups_that_the_file_does_not_name(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL, "optimizer.learning_rate=5e-5", "steps=7", "episodes.shots=[2, 3]", "dtype=null")
    assert (config.steps, config.episodes.shots, config.dtype) == (7, (2, 3), None)
    assert config.optimizer.learning_rate == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("text", "override", "said"),
    [
        (MINIMAL, "stepz=3", "Did you mean 'steps'"),
        (MINIMAL, "optimizer.lr=3", "optimizer.lr: no such setting"),
        (MINIMAL, "corpus.min_simlarity=3", "Did you mean 'min_similarity'"),
        (MINIMAL, "steps=many", "steps: "),
        (MINIMAL, "backend.name=x", "'backend' has no settings of its own"),
        (MINIMAL, "steps=[1", "not YAML"),
        ("- a list", "steps=1", "settings by name"),
        ("a: [", "steps=1", "cannot be read as YAML"),
        ("backend: llava", "steps=1", "output"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, text: str, override: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        load(tmp_path, text, override)


# --- episodes


@given(st.text(alphabet="ab .!?。\n", max_size=80), st.integers(1, 60))
def test_a_text_is_cut_at_a_sentence_end_if_there_is_one(text: str, limit: int) -> None:
    found, whole = cut(text, limit), text.strip()
    assert len(found) <= limit
    assert whole.startswith(found)
    if len(whole) <= limit:
        assert found == whole
    elif any(whole[: n + 1].endswith(end) and whole[n + 1] == " " for n in range(limit) for end in ".!?"):
        assert found[-1] in ".!?。"


def document(number: int = 0, pairs: int = 6) -> Document:
    made = (Pair(picture(number * 10 + place), "", f"Sentence {number}.{place}.") for place in range(pairs))
    return Document(f"docs:{number}", tuple(made))


def shape(episode: Episode) -> tuple[Any, ...]:
    return [(d.answer, d.metadata.get("id")) for d in episode.demonstrations], episode.answer, episode.document  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(8))
def test_demonstrations_are_the_pairs_right_before_the_target(seed: int) -> None:
    maker = EpisodeMaker(EpisodeSettings(shots=(2, 3), targets=3), seed=seed)
    answers = [pair.answer for pair in document().pairs]
    episodes = maker.episodes(document(), epoch=1)
    assert len({episode.answer for episode in episodes}) == len(episodes) == 3
    for episode in episodes:
        target, shots = answers.index(episode.answer), len(episode.demonstrations)
        assert 2 <= shots <= 3
        assert [d.answer for d in episode.demonstrations] == answers[target - shots : target]
    assert list(map(shape, maker.episodes(document(), 1))) == list(map(shape, episodes))
    assert maker.episodes(document(pairs=2), 0) == []


def test_a_demonstrations_id_is_its_content() -> None:
    maker = EpisodeMaker(EpisodeSettings(shots=(1, 1)), seed=0)
    one, same, other = document(0, 2), document(0, 2), document(0, 2)
    other = replace(other, pairs=(replace(other.pairs[0], image=picture(99)), other.pairs[1]))
    ids = [maker.episodes(item, 0)[0].demonstrations[0].metadata["id"] for item in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_a_new_name_is_told_before_it_is_asked_for(shots: int) -> None:
    augmentation = Augmentation(EpisodeSettings())
    seen = set()
    for seed in range(30):
        shown, query, answer = augmentation.naming(random.Random(seed), document().pairs, shots)
        assert len(shown) == shots
        assert answer in {item.answer for item in shown}
        assert {item.text for item in shown} == {query.text}
        assert "id" not in shown[0].metadata  # another view each time: not to be kept
        seen |= {item.answer for item in shown}
    assert len(seen) > 25


def test_answers_of_one_style() -> None:
    maker = EpisodeMaker(EpisodeSettings(shots=(2, 3), styles=1.0), seed=3)
    for number in range(20):
        for episode in maker.episodes(document(number), 0):
            answers = [*(item.answer for item in episode.demonstrations), episode.answer]
            assert len({answer.lower().split("sentence")[0] for answer in answers}) == 1
            assert len({answer.split(".")[-1] for answer in answers}) == 1


# --- batches


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = []
    for number in range(40):
        pairs = [{"image": f"{number}-{place}.png", "answer": f"Sentence {number}.{place}."} for place in range(3)]
        for place in range(3):
            (tmp_path / f"{number}-{place}.png").write_bytes(picture(number * 3 + place, 8))
        lines.append(json.dumps({"pairs": pairs}))
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    return tmp_path


def config(corpus: Path, **changes: Any) -> TrainingConfig:
    base = settings(corpus, batch_size=2, batches_per_step=4, workers=0, episodes={"shots": [1, 2]})
    base["corpus"] = {"path": str(corpus / "docs.jsonl"), "min_image_bytes": 0}
    return TrainingConfig.model_validate({**base, **changes})


def steps(config: TrainingConfig, count: int, world: int = 1, cursors: Any = None) -> list[list[Any]]:
    """Each step's batches in the streams' order, whoever makes them."""
    each = config.batches_per_step // world
    made: list[list[Batch]] = [[] for _ in range(count)]
    for rank in range(world):
        batches = islice(training_batches(config, rank=rank, world=world, cursors=cursors), count * each)
        for number, batch in enumerate(batches):
            made[number // each].append(batch)
    return [[(b.stream, b.cursor, *map(shape, b.episodes)) for b in sorted(s, key=lambda b: b.stream)] for s in made]


def test_batches_do_not_depend_on_the_number_of_processes(corpus: Path) -> None:
    assert steps(config(corpus), 12) == steps(config(corpus), 12, world=2) == steps(config(corpus), 12, world=4)


@pytest.mark.slow
def test_batches_do_not_depend_on_workers(corpus: Path) -> None:
    assert steps(config(corpus), 6) == steps(config(corpus, workers=2), 6)


@pytest.mark.parametrize("behind", [1, 4, 9])
def test_batches_go_on_from_any_step(corpus: Path, behind: int) -> None:
    whole = steps(config(corpus), 12)
    cursors = {stream: cursor for stream, cursor, *_ in whole[behind - 1]}
    assert steps(config(corpus), 12 - behind, cursors=cursors) == whole[behind:]


def test_held_out_documents_are_never_trained_on(corpus: Path) -> None:
    settings = config(corpus, evaluation={"held_out": 0.3, "episodes": 99})
    trained = {episode[2] for step in steps(settings, 30) for batch in step for episode in batch[2:]}
    evaluated = {episode.document for episode in held_out_episodes(settings)}
    assert not trained & evaluated
    assert len(trained | evaluated) == 40
    assert all(held_out(name, settings) for name in evaluated)


@pytest.mark.parametrize(
    ("changes", "world", "said"),
    [({"episodes": {"shots": [5, 6]}}, 1, "gives no episode"), ({}, 3, "batches_per_step=6")],
)
def test_batches_that_cannot_be_made(corpus: Path, changes: Any, world: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        next(training_batches(config(corpus, **changes), world=world))


# --- kept readings


@pytest.fixture(scope="module")
def encoder(tiny: Callable[[str], Path]) -> Encoder:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    return Encoder(backend, untrained("linear", backend), backend.default_format)


def test_readings_come_back_bit_for_bit_and_a_torn_end_is_cut_off(encoder: Encoder, tmp_path: Path) -> None:
    shown = [Demonstration(Image.new("RGB", (20, 20), (n * 60, 9, 9)), "What?", f"answer {n}") for n in range(3)]
    readings = encoder.read(shown)
    cache = ReadingCache(tmp_path, encoder, limit=1e9)
    for number, reading in enumerate(readings):
        cache.add(str(number), reading)
    cache.close()
    path = tmp_path / "readings-000.aim"
    data = path.read_bytes()
    for removed in (0, 1, 50, 500):
        path.write_bytes(data[: len(data) - removed])
        again = ReadingCache(tmp_path, encoder, limit=1e9)
        assert len(again) == (3 if not removed else 2)
        for number in range(len(again)):
            kept = again.get(str(number))
            assert kept is not None
            whole, reading = encoder.whole(kept), readings[number]
            for name in ("token_ids", "hidden", "embeddings"):
                assert torch.equal(getattr(whole, name), getattr(reading, name))
            assert (whole.image_position, whole.answer_start) == (reading.image_position, reading.answer_start)
        again.add("2", readings[2])
        assert again.get("2") is not None
        again.close()


def test_a_flipped_byte_is_read_anew_and_another_scope_begins_anew(encoder: Encoder, tmp_path: Path) -> None:
    (reading,) = encoder.read([Demonstration(Image.new("RGB", (20, 20)), "What?", "a thing")])
    cache = ReadingCache(tmp_path, encoder, limit=1e9)
    cache.add("a", reading)
    cache.close()
    path = tmp_path / "readings-000.aim"
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(bytes(data))
    damaged = ReadingCache(tmp_path, encoder, limit=1e9)
    assert "a" in damaged
    assert damaged.get("a") is None
    assert "a" not in damaged
    damaged.close()
    deeper = Encoder(encoder.backend, untrained("linear", encoder.backend, layers=(0, -1)), encoder.prompt_format)
    other = ReadingCache(tmp_path, deeper, limit=1e9)
    assert len(other) == 0
    other.close()


def test_every_process_reads_all_files_and_keeps_to_its_share(encoder: Encoder, tmp_path: Path) -> None:
    (reading,) = encoder.read([Demonstration(Image.new("RGB", (20, 20)), "What?", "a thing")])
    first = ReadingCache(tmp_path, encoder, limit=1e9, rank=0)
    first.add("a", reading)
    first.close()
    second = ReadingCache(tmp_path, encoder, limit=600, rank=1)
    assert second.get("a") is not None
    second.add("b", reading)  # no room
    assert "b" not in second
    second.close()


# --- checkpoints


def _trained(encoder: Encoder, steps: int) -> tuple[Any, torch.optim.AdamW]:
    projector = untrained("linear", encoder.backend)
    torch.manual_seed(0)
    built = optimizer.build(projector, OptimizerSettings())
    for _ in range(steps):
        _step(projector, built)
    return projector, built


def _step(projector: nn.Module, built: torch.optim.Optimizer) -> None:
    for parameter in projector.parameters():
        parameter.grad = torch.sin(parameter.detach() * 3 + 1)
    built.step()


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(encoder: Encoder, tmp_path: Path) -> None:
    projector, built = _trained(encoder, 3)
    state = checkpoint.State(step=3, cursors={0: (1, 4)}, dropped={"no text": 2}, episodes=9, tokens=99)
    for step in (1, 2, 3, 3):
        checkpoint.save(tmp_path, state.model_copy(update={"step": step}), projector, built, keep=2)
    (tmp_path / "checkpoints" / ".partial-00000009").mkdir()
    other, other_built = _trained(encoder, 0)
    assert checkpoint.load(tmp_path, other, other_built) == state
    assert state.cursor_of() == {0: Cursor(1, 4)}
    _step(projector, built)
    _step(other, other_built)
    assert all(torch.equal(a, b) for a, b in zip(projector.parameters(), other.parameters(), strict=True))
    checkpoint.save(tmp_path, state, projector, built, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["state.json", "projector.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named(encoder: Encoder, tmp_path: Path, name: str) -> None:
    projector, built = _trained(encoder, 1)
    folder = checkpoint.save(tmp_path, checkpoint.State(step=1), projector, built, keep=2)
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    with pytest.raises(CorruptArtifactError, match=r"step-00000001: the checkpoint cannot be taken over"):
        checkpoint.load(tmp_path, *_trained(encoder, 0))


# --- frozen, rates, log


@given(st.integers(0, 63), st.integers(0, 31))
def test_any_changed_bit_changes_the_checksum(place: int, bit: int) -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 8).requires_grad_(False)
    before = checksum([module])
    assert checksum([module]) == before
    words = module.weight.view(torch.int32).view(-1)
    words[place] ^= 1 << bit if bit < 31 else -(2**31)
    assert checksum([module]) != before


def test_changed_places_change_the_checksum_and_a_backbone_that_could_learn_is_refused() -> None:
    module = nn.Linear(4, 4).requires_grad_(False)
    before = checksum([module])
    module.weight[0], module.weight[1] = module.weight[1].clone(), module.weight[0].clone()
    assert checksum([module]) != before
    with pytest.raises(TrainingError, match="weight for one"):
        check_frozen([nn.Linear(2, 2)])


def test_rates_follow_warm_up_and_cosine_and_the_projectors_own(encoder: Encoder) -> None:
    settings = OptimizerSettings(learning_rate=1.0, warm_up=0.1, final_rate=0.01)
    built = optimizer.build(untrained("carrier", encoder.backend), settings)
    rates = [optimizer.set_rate(built, settings, step, 100) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[-1] == pytest.approx(0.01)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert sorted({round(group["lr"], 6) for group in built.param_groups}) == [0.01, 0.2]


def test_a_log_goes_on_behind_its_checkpoint(tmp_path: Path) -> None:
    first = Journal(tmp_path, 0)
    loss = summarize([(4.0, 2), (9.0, 3)])
    first.evaluation(0, {"aim": loss}, {})
    for step in range(1, 6):
        first.training(step, loss=float(step))
    first.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    again = Journal(tmp_path, 3)
    again.close()
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1, 2, 3]
    assert again.evaluated(0)
    assert not again.evaluated(3)
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_means_are_over_tokens_and_differences_are_paired() -> None:
    assert summarize([(4.0, 2), (9.0, 3), (0.0, 0)]).mean == pytest.approx(13 / 5)
    assert summarize([(4.0, 2), (6.0, 3)]).error == pytest.approx(0.0)
    gain = difference([(4.0, 2), (9.0, 3)], [(5.0, 2), (10.5, 3)])
    assert (gain.mean, gain.n) == (pytest.approx(-0.5), 2)
    assert gain.error == pytest.approx(0.0, abs=1e-9)
