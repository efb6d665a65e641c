"""Training by a teacher: whose answers are learnt, what is asked once, and what is handed out at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from aim_backends.hf.injector import TransformersInjector
from aim_backends.hf.writing import Prepared, PromptWriter
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
from aim_sdk.errors import ContextLengthError, InputError, TrainingError
from aim_sdk.projectors import Projector
from aim_sdk.training import TrainingConfig, train
from aim_sdk.training.evaluation import Probe, Scores
from aim_sdk.training.journal import read_log
from aim_sdk.training.teachers import Interleaved
from aim_sdk.types import Context, Demonstration

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 180, 60), "black": (9, 9, 9)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 pages of four coloured squares, of which pages share the files."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, colour in COLOURS.items():
        noise = Image.effect_noise((40, 40), 60).convert("RGB")
        Image.blend(noise, Image.new("RGB", (40, 40), colour), 0.8).save(folder / f"{name}.png")
    names = list(COLOURS)
    pages = [[names[(page + place * (1 + page % 3)) % 4] for place in range(4)] for page in range(16)]
    lines = [{"pairs": [{"image": f"{name}.png", "answer": f"A {name} square."} for name in page]} for page in pages]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "docs.jsonl"


@pytest.fixture
def settings(tiny: Callable[[str], Path], corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "output": str(tmp_path / "run"),
        "backend": "llava",
        "model": str(tiny("llava-1.5")),
        "device": "cpu",
        "corpus": {"path": str(corpus), "min_image_bytes": 0},
        "projector": {"kind": "linear"},
        "episodes": {"shots": [2, 3], "text": "What is it?", "labels": 0.0, "styles": 0.0},
        "evaluation": {"every": 0},
        "steps": 6,
        "batch_size": 3,
        "workers": 0,
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Context]]:
    """The contexts of each forward that predicts answers."""
    seen: list[list[Context]] = []
    run = TransformersInjector.answer_logits

    def noted(self: TransformersInjector, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        seen.append(list(contexts))
        return run(self, prepared, contexts)

    monkeypatch.setattr(TransformersInjector, "answer_logits", noted)
    return seen


def run(settings: dict[str, Any], **changes: Any) -> Path:
    config = TrainingConfig.model_validate({**settings, **changes})
    assert train(config, show=False).finished
    return config.output


def taught(asked: list[list[Context]]) -> list[list[Context]]:
    """Those of the interleaved teacher."""
    return [contexts for contexts in asked if isinstance(contexts[0][0], Demonstration)]


def weights(folder: Path, part: str = "projector") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / part)


def test_all_prompts_are_written_while_the_backbone_computes(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    write = PromptWriter.written

    def noted(self: PromptWriter, queries: Any, shown: Sequence[Sequence[Demonstration]], form: Any) -> Prepared:
        threads.append(threading.current_thread().name)
        return write(self, queries, shown, form)

    monkeypatch.setattr(PromptWriter, "written", noted)
    run(settings)
    assert len(threads) >= 2 * settings["steps"]
    assert all(name.startswith("aim-batch") for name in threads)


def test_the_teacher_sees_what_the_student_sees_once_per_episode(
    settings: dict[str, Any], asked: list[list[Context]]
) -> None:
    settings["episodes"]["shots"] = [3, 3]  # one episode per page
    run(settings, steps=16)
    episodes = [context for contexts in taught(asked) for context in contexts]
    assert all(len(context) == 3 and isinstance(context[0], Demonstration) for context in episodes)
    # 16 pages, three times; where the second epoch begins, two batches are prepared ahead of what is known.
    assert 16 <= len(episodes) <= 16 + 2 * 3
    assert len(asked) == 16 + len(taught(asked))
    before = len(asked)
    run(
        settings, steps=16, objective={"weights": {"distill": 1}, "top_tokens": 0}, output=settings["output"] + "-whole"
    )
    assert len(taught(asked[before:])) == 16, "whole distributions are not kept"


def test_more_tokens_than_the_vocabulary_has_are_the_whole_distribution(settings: dict[str, Any]) -> None:
    losses = [
        [line["loss"] for line in read_log(run(settings, objective=objective, output=f"{settings['output']}-{top}"))]
        for top in (0, 10**6)
        for objective in [{"weights": {"distill": 1}, "top_tokens": top}]
    ]
    assert losses[0] == losses[1]


def test_a_corpus_that_gives_no_episode_is_known_before_anything_is_measured(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "measure", None)
    settings["evaluation"] = {"every": 1, "episodes": 4, "held_out": 0.3}
    settings["episodes"]["shots"] = [4, 4]
    with pytest.raises(InputError, match="gives no episode"):
        run(settings)


def test_the_lm_objective_asks_no_teacher(settings: dict[str, Any], asked: list[list[Context]]) -> None:
    run(settings, objective="lm")
    assert not taught(asked)
    assert len(asked) == 6


def test_what_is_kept_of_a_teacher_gives_the_same_steps(settings: dict[str, Any]) -> None:
    """From the second epoch on targets come from the disk; without a disk they are computed again."""
    settings["episodes"]["shots"] = [3, 3]
    kept, again = run(settings, steps=14), run(settings, steps=14, reading_cache_gb=0, output=settings["output"] + "-2")
    losses = [[line["loss"] for line in read_log(folder) if "loss" in line] for folder in (kept, again)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_captions_are_written_once_and_stand_for_their_images(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned, told = [], []
    generate, text_only = TransformersInjector.generate, type(_reader(settings)).text_only

    def generated(self: TransformersInjector, queries: Any, contexts: Any, **options: Any) -> Any:
        assert not any(contexts)
        captioned.extend(queries)
        return generate(self, queries, contexts, **options)

    def shown(self: Any, demonstrations: Sequence[Demonstration], **options: Any) -> Any:
        told.extend(demonstrations)
        return text_only(self, demonstrations, **options)

    monkeypatch.setattr(TransformersInjector, "generate", generated)
    monkeypatch.setattr(type(_reader(settings)), "text_only", shown)
    settings["episodes"]["labels"] = 0.5
    folder = run(settings, objective={"weights": {"distill": 1}, "teacher": "captions"}, steps=8)
    assert {query.text for query in captioned} == {"Describe the image in one sentence."}
    assert len(captioned) == 4, "one for each file, whatever views and pages show it"
    assert all("\n" in item.text and item.text.endswith(("?", "picture?", "it.")) for item in told)
    assert (folder / "captions" / "captions-000.aim").stat().st_size > 100


def _reader(settings: dict[str, Any]) -> Any:
    from aim_sdk.backend.registry import get_backend

    return get_backend("llava").from_pretrained(settings["model"], device="cpu").reader


def test_without_a_name_the_teacher_is_the_best_that_the_backbone_can_be(
    settings: dict[str, Any], tiny: Callable[[str], Path]
) -> None:
    interleaving, single = run(settings, steps=1), settings["output"] + "-single"
    assert not (interleaving / "captions").exists()
    one = {**settings, "backend": "auto", "model": str(tiny("paligemma")), "output": single}
    assert (run(one, steps=1) / "captions").exists()
    with pytest.raises(InputError, match=r"teacher 'interleaved': .*holds one image") as refused:
        run(one, objective={"weights": {"distill": 1}, "teacher": "interleaved"}, output=single + "-2")
    assert "4 images in one prompt.\nNext: objective.teacher=captions." in str(refused.value)


def _saying(gain: float) -> Callable[..., Scores]:
    """A probe by which every later evaluation is nearer to the teacher by ``gain``, in every episode alike."""
    measure = Probe.measure
    calls = 0

    def measured(self: Probe, projector: Projector, done: Callable[[int], None]) -> Scores:
        nonlocal calls
        scores = measure(self, projector, done)
        noise = [0.01 * (place % 3 - 1) for place in range(len(scores["start"]))]
        for place, score in enumerate(scores["start"]):
            assert score is not None
            start = 2.0 + 0.1 * place
            object.__setattr__(score, "kl", (start, 1.0))
            own = scores["aim"][place]
            assert own is not None
            object.__setattr__(own, "kl", (start - gain * min(calls, 2) + (noise[place] if calls else 0), 1.0))
            object.__setattr__(own, "names", score.names)
        calls += 1
        return scores

    return measured


@pytest.mark.parametrize("gain", [0.5, 0.0, -0.5])
def test_what_is_handed_out_is_the_best_or_the_start(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    monkeypatch.setattr(Probe, "measure", _saying(gain))
    settings["evaluation"] = {"every": 1, "episodes": 8, "held_out": 0.3}
    config = TrainingConfig.model_validate({**settings, "steps": 4, "checkpoint_every": 1, "keep_checkpoints": 9})
    result = train(config, show=False)
    assert result.projector is not None
    given = weights(result.projector, "projector.safetensors")
    start = weights(config.output, "checkpoints/step-00000001/start.safetensors")
    second = weights(config.output, "checkpoints/step-00000002/average.safetensors")
    expected = second if gain > 0 else start
    assert all(torch.equal(given[name], value) for name, value in expected.items())
    assert not torch.equal(second["linear.weight"], start["linear.weight"])
    assert result.verdict.startswith("better than its start by +" if gain > 0 else "not better: the start was kept")
    assert result.verdict in (result.projector / "README.md").read_text()
    assert Projector.from_pretrained(result.projector).summary["verdict"] == result.verdict


def test_a_teacher_whose_prompts_are_too_long_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    """Three images and long texts are more than the tiny backbone's context holds."""
    pairs = [{"image": f"{name}.png", "answer": "lorem ipsum dolor sit amet " * 200} for name in COLOURS]
    (tmp_path / "long.jsonl").write_text("\n".join([json.dumps({"pairs": pairs})] * 30))
    corpus = Path(settings["corpus"]["path"])
    settings["corpus"] = {"path": str(tmp_path / "long.jsonl"), "images": str(corpus.parent), "min_image_bytes": 0}
    settings["episodes"] |= {"shots": [3, 3], "max_characters": 9000}
    with pytest.raises(TrainingError, match=r"the teacher's prompt: longer than the backbone's context"):
        run(settings)


def test_an_evaluation_that_measures_nothing_is_an_error(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(self: Interleaved, shown: Any) -> list[Context]:
        raise ContextLengthError("too long")

    monkeypatch.setattr(Interleaved, "contexts", refusing)
    settings["evaluation"] = {"every": 1, "episodes": 4, "held_out": 0.3}
    with pytest.raises(InputError, match=r"none of the 4 held-out episodes can be measured.*longer than") as refused:
        run(settings)
    assert "objective.teacher=captions" in str(refused.value)


def test_without_an_evaluation_the_run_says_that_nothing_is_known(settings: dict[str, Any]) -> None:
    result = train(TrainingConfig.model_validate({**settings, "steps": 1}), show=False)
    assert "not measured" in result.verdict
