"""What is prepared for a forward is data, counted and printed; a demonstration that fails later is dropped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from aim_sdk import Backend, Demonstration, Query, Reading
from aim_sdk.backend.capabilities import Trainable, capability
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.errors import ImageError
from aim_sdk.projectors import untrained
from aim_sdk.reading.encoder import Encoder
from aim_sdk.training.episode import Episode
from aim_sdk.training.forward import Forward
from tests.conformance.third_party.adapter import KiteBackend

PICTURES = [Image.new("RGB", (48, 48), colour) for colour in ("red", "green", "blue", "white")]
SHOTS = [Demonstration(image, "What is it?", f"a cat {n}") for n, image in enumerate(PICTURES)]


@pytest.fixture(scope="module")
def llava(tiny: Callable[[str], Path]) -> TransformersBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")


@pytest.mark.parametrize("kind", ["kite", "pocket", "llava"])
def test_what_is_prepared_is_counted_and_printed(kind: str, request: pytest.FixtureRequest) -> None:
    makes: dict[str, Callable[[], Backend]] = {
        "kite": KiteBackend,
        "pocket": lambda: PocketBackend.from_pretrained(device="cpu"),
        "llava": lambda: request.getfixturevalue("llava"),
    }
    backend = makes[kind]()
    form, trainable = backend.default_format, capability(backend, Trainable)
    read = backend.reader.prepare(SHOTS, prompt_format=form)
    assert len(read) == len(read.demonstrations) == len(backend.reader.run(read)) == len(SHOTS)
    alone = [backend.reader.prepare([shot], prompt_format=form).positions for shot in SHOTS]
    assert read.positions == len(SHOTS) * max(alone)
    written = trainable.prepare_answers([Query(PICTURES[0], "What?")], ["a dog"], prompt_format=form)
    assert written.answers == ("a dog",)
    assert len(written) == len(trainable.answer_logits(written, [[]])) == 1
    for prepared in (read, written):
        assert type(prepared).__name__ in (shown := repr(prepared))
        assert len(shown) < 2500
    if kind != "kite":  # whose batches are never empty
        assert not trainable.answer_logits(trainable.prepare_answers([], [], prompt_format=form), [])
        assert not backend.reader.run(backend.reader.prepare([], prompt_format=form))


def test_an_episode_whose_demonstration_fails_in_its_forward_is_dropped(
    llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(llava, untrained("linear", llava.vocabulary), llava.default_format)
    forward = Forward(encoder, reading_tokens=4096)
    query = Query(PICTURES[0], "What is it?")
    episodes = [Episode((SHOTS[0], SHOTS[1]), query, "a dog", ""), Episode((SHOTS[2], SHOTS[3]), query, "a fox", "")]
    named = [
        replace(e, demonstrations=tuple(replace(d, metadata={"id": f"{n} {d.answer}"}) for d in e.demonstrations))
        for n, e in enumerate(episodes)
    ]
    run = llava.reader.run

    def fragile(prepared: PreparedReadings) -> list[Reading]:
        if any(item.answer == "a cat 1" for item in prepared.demonstrations):
            raise ImageError("odd.png: cannot be taken.")
        return run(prepared)

    (expected,) = forward.run(forward.prepare(named[1:])).students
    monkeypatch.setattr(llava.reader, "run", fragile)
    work = forward.prepare(named)
    (found,) = forward.run(work).students
    assert [episode.answer for episode in work.episodes] == ["a fox"]
    assert work.dropped == {"image refused by the backbone": 1}
    assert found.log_probs.tolist() == pytest.approx(expected.log_probs.tolist(), abs=1e-4)
    assert not forward.run(forward.prepare(named[:1])).students
