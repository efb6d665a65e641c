"""Reading in batches: the budget is kept, nothing is lost, and a demonstration is read as it would be alone."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, DemoReader, Query, Reading
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.bank.convert import convert
from aim_sdk.config import Binding
from aim_sdk.errors import CapabilityError, FormatError, ImageError, InputError
from aim_sdk.layers import only_last
from aim_sdk.projectors import untrained
from aim_sdk.reading.encoder import Encoder, batches_of


@given(st.dictionaries(st.integers(0, 200), st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_keep_the_budget_and_lose_nothing(lengths: dict[int, int], budget: int) -> None:
    batches = list(batches_of(lengths, budget))
    assert sorted(place for batch in batches for place in batch) == sorted(lengths)
    for batch in batches:
        padded = len(batch) * max(lengths[place] for place in batch)
        assert padded <= budget or len(batch) == 1
    heights = [[lengths[place] for place in batch] for batch in batches]
    assert [length for row in heights for length in row] == sorted(lengths.values(), reverse=True)


@pytest.fixture(scope="module")
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")


@pytest.fixture
def items(pictures: list[Image.Image]) -> list[Demonstration]:
    texts = ["", "What is it?", "Which animal is this? A lynx, or a fox?", "Why?"]
    return [Demonstration(picture, texts[i % 4], "a cat " * (1 + i % 3)) for i, picture in enumerate(pictures)]


@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
def test_a_demonstration_is_read_as_it_would_be_alone(
    pipe: AIMPipeline, items: list[Demonstration], batch_tokens: int
) -> None:
    found = {place: made for batch in pipe.encoder.stream(items, batch_tokens=batch_tokens) for place, made in batch}
    assert sorted(found) == list(range(len(items)))
    for place, item in enumerate(items):
        (alone,) = pipe.encoder.encode([item])
        torch.testing.assert_close(found[place].fused.embeddings, alone.embeddings, atol=1e-5, rtol=1e-4)


def test_one_bad_demonstration_does_not_cost_its_batch(pipe: AIMPipeline, items: list[Demonstration]) -> None:
    bad = [Demonstration(b"no image", "What?", "x"), Demonstration(items[0].image, "What is <image>?", "x")]
    heard: dict[int, type[InputError]] = {}
    mixed = [*items[:3], *bad, *items[3:]]
    stream = pipe.encoder.stream(mixed, on_error=lambda place, error: heard.update({place: type(error)}))
    assert sorted(place for batch in stream for place, _ in batch) == [0, 1, 2, *range(5, len(mixed))]
    assert sorted(heard) == [3, 4]
    assert heard[4] is FormatError
    with pytest.raises(InputError):
        list(pipe.encoder.stream(mixed))


def test_one_that_fails_in_its_forward_does_not_cost_its_batch(
    pipe: AIMPipeline, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pipe.backend.reader
    run, tried = reader.run, []

    def fragile(prepared: PreparedReadings) -> list[Reading]:
        tried.append(len(prepared))
        if items[2] in prepared.demonstrations:
            raise ImageError("odd.png: cannot be taken.")
        return run(prepared)

    monkeypatch.setattr(reader, "run", fragile)
    heard: dict[int, str] = {}
    stream = pipe.encoder.stream(items, on_error=lambda place, error: heard.update({place: str(error)}))
    found = {place: made for batch in stream for place, made in batch}
    assert heard == {2: "odd.png: cannot be taken."}
    assert sorted(found) == [place for place in range(len(items)) if place != 2]
    assert max(tried) > 1, "batches"
    with pytest.raises(ImageError):
        list(pipe.encoder.stream(items))
    (alone,) = reader.read([items[3]], prompt_format=pipe.prompt_format)
    torch.testing.assert_close(found[3].reading.hidden, alone.hidden, atol=1e-5, rtol=1e-4)


def test_leaving_a_stream_early_stops_its_threads(pipe: AIMPipeline, items: list[Demonstration]) -> None:
    stream = pipe.encoder.stream(items * 20, batch_tokens=60)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aim-decode")]


def test_the_next_batches_are_prepared_while_one_is_computed(
    pipe: AIMPipeline, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, prepared, seen = pipe.backend.reader, [], []
    prepare, run = reader.prepare, reader.run

    def counted(*arguments: Any, **options: Any) -> PreparedReadings:
        found = prepare(*arguments, **options)
        prepared.append(threading.current_thread().name)
        return found

    def waiting(given: PreparedReadings) -> list[Reading]:
        for _ in range(200):
            if len(prepared) > len(seen) + 1:
                break
            threading.Event().wait(0.01)
        seen.append(len(prepared))
        return run(given)

    monkeypatch.setattr(reader, "prepare", counted)
    monkeypatch.setattr(reader, "run", waiting)
    list(pipe.encoder.stream(items, batch_tokens=1))
    assert all(name.startswith("aim-decode") for name in prepared)
    assert all(ahead > done + 1 for done, ahead in enumerate(seen[:-1]))


def test_pooled_readings_of_a_demonstration_and_of_its_query_are_the_same(
    pipe: AIMPipeline, items: list[Demonstration]
) -> None:
    """What comes before the answer does not depend on it."""
    for item in items[:4]:
        (reading,) = pipe.backend.reader.read([item], prompt_format=pipe.prompt_format)
        (asked,) = pipe.encoder.pooled_queries([Query(item.image, item.text)])
        np.testing.assert_allclose(pipe.encoder.pooled(reading), asked, atol=1e-5)


def test_queries_that_are_read_together_are_read_as_each_alone(pipe: AIMPipeline, items: list[Demonstration]) -> None:
    queries = [Query(item.image, item.text) for item in items]
    alone = np.concatenate([pipe.encoder.pooled_queries([query]) for query in queries])
    np.testing.assert_allclose(pipe.encoder.pooled_queries(queries), alone, atol=1e-5)


@pytest.mark.parametrize("bad", [Query(b"no image", "What?"), Query(Image.new("RGB", (9, 9)), "What is <image>?")])
def test_of_queries_that_are_read_together_the_bad_one_is_named(
    pipe: AIMPipeline, items: list[Demonstration], bad: Query
) -> None:
    queries = [Query(item.image, item.text) for item in items]
    with pytest.raises(InputError) as caught:
        pipe.encoder.pooled_queries([*queries[:2], bad, *queries[2:]])
    assert caught.value.query == 2


def test_projecting_kept_readings_is_projecting(pipe: AIMPipeline, items: list[Demonstration], tmp_path: Path) -> None:
    with DemonstrationBank.open(tmp_path / "bank", encoder=pipe.encoder, create=True, keep_readings=True) as bank:
        keys = bank.add(items)
        kept = [bank._store.reading(key) for key in keys]
        again = pipe.encoder.project([reading for reading in kept if reading is not None])
        for key, tokens in zip(keys, again, strict=True):
            torch.testing.assert_close(bank[key].fused.embeddings, tokens.embeddings, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep_readings", [False, True])
def test_a_bank_keeps_the_tokens_that_fused_tokens_stand_for(
    pipe: AIMPipeline, items: list[Demonstration], tmp_path: Path, keep_readings: bool
) -> None:
    options = {"encoder": pipe.encoder, "keep_readings": keep_readings}
    with DemonstrationBank.open(tmp_path / "bank", create=True, **options) as bank:  # type: ignore[arg-type]
        keys = bank.add(items)
    with DemonstrationBank.open(tmp_path / "bank", encoder=pipe.encoder) as bank:
        for key, reading in zip(keys, pipe.encoder.read(items), strict=True):
            found = bank[key].fused.token_ids
            assert found is not None
            assert torch.equal(found, reading.token_ids.cpu())


def test_the_binding_tells_projectors_apart(pipe: AIMPipeline) -> None:
    projector = type(pipe.projector)(pipe.projector.hidden_size, pipe.projector.embedding_size)
    other = Encoder(pipe.backend, projector, pipe.prompt_format)
    assert set(pipe.encoder.binding.differences(other.binding)) == {"projector_hash"}
    same = Encoder(pipe.backend, pipe.projector, pipe.prompt_format.model_copy())
    assert pipe.encoder.binding.scope == same.binding.scope


def test_a_projector_of_other_layers_is_given_them(
    pipe: AIMPipeline, items: list[Demonstration], tmp_path: Path
) -> None:
    projector = untrained("residual-mlp", pipe.backend.vocabulary, layers=(1, -1))
    deep = AIMPipeline(pipe.backend, projector, bank=tmp_path / "deep", keep_readings=True)
    assert deep.encoder.binding.layers == (1, -1)
    assert {"layers", "projector_hash"} <= set(pipe.encoder.binding.differences(deep.encoder.binding))
    keys = deep.bank.add(items)
    wide = [deep.bank._store.reading(key) for key in keys]
    assert {reading.hidden.shape[1] for reading in wide if reading is not None} == {2 * projector.hidden_size}
    chosen = deep.generate([Query(items[0].image, "Why?")], shots=2, selector="reading", max_new_tokens=2)
    assert chosen == deep.generate([Query(items[0].image, "Why?")], shots=2, selector="reading", max_new_tokens=2)
    assert all(deep.generate([Query(items[0].image)], shots=2, mode="no-image", max_new_tokens=2))

    alike = AIMPipeline(
        pipe.backend, untrained("attention", pipe.backend.vocabulary, layers=(1, -1)), bank=tmp_path / "alike"
    )
    assert convert(deep.bank, alike.bank), "the same layers: projected"
    flat = AIMPipeline(pipe.backend, pipe.projector, bank=tmp_path / "flat")
    assert not convert(deep.bank, flat.bank), "other layers: read again"
    (expected,) = pipe.encoder.encode(items[:1])
    torch.testing.assert_close(
        flat.bank[next(iter(flat.bank))].fused.embeddings, expected.embeddings, atol=1e-5, rtol=1e-4
    )


def test_a_reader_of_the_last_layer_alone_refuses_others(pipe: AIMPipeline, items: list[Demonstration]) -> None:
    class Old(DemoReader):
        def run(self, prepared: PreparedReadings) -> list[Reading]:
            only_last(prepared.layers)
            form, with_images = prepared.prompt_format, prepared.with_images
            return pipe.backend.reader.read(prepared.demonstrations, prompt_format=form, with_images=with_images)

        text_only = None  # type: ignore[assignment]

    backend: Any = SimpleNamespace(reader=Old(), fingerprint=pipe.backend.fingerprint)
    old = Encoder(backend, pipe.projector, pipe.prompt_format)
    (expected,) = pipe.encoder.encode(items[:1])
    assert torch.equal(old.encode(items[:1])[0].embeddings, expected.embeddings)
    assert len(next(old.stream(items[:3]))) == 3
    deep = Encoder(backend, untrained("linear", pipe.backend.vocabulary, layers=(1,)), pipe.prompt_format)
    for ask in (lambda: deep.encode(items[:1]), lambda: list(deep.stream(items[:1]))):
        with pytest.raises(CapabilityError, match=r"layers \(1,\): .*only the last hidden states"):
            ask()


def test_a_binding_from_before_there_were_layers_loads(pipe: AIMPipeline) -> None:
    kept = pipe.encoder.binding.model_dump(mode="json")
    del kept["layers"]
    old = Binding.model_validate(kept)
    assert not old.differences(pipe.encoder.binding)
    assert old.scope == pipe.encoder.binding.scope


def test_a_bank_on_disk_answers_as_one_in_memory(pipe: AIMPipeline, items: list[Demonstration], tmp_path: Path) -> None:
    on_disk = AIMPipeline(pipe.backend, pipe.projector, bank=tmp_path / "bank")
    on_disk.bank.add(items)
    reopened = AIMPipeline(pipe.backend, pipe.projector, bank=tmp_path / "bank")
    in_memory = AIMPipeline(pipe.backend, pipe.projector)
    in_memory.bank.add(items)
    queries = [replace(Query(item.image, "And here?"), id=str(n)) for n, item in enumerate(items)]
    for mode in ("aim", "text-only", "interleaved", "no-image"):
        expected = in_memory.generate(queries, shots=3, mode=mode, max_new_tokens=4)
        assert reopened.generate(queries, shots=3, mode=mode, max_new_tokens=4) == expected
    chosen = reopened.generate(queries, shots=3, selector="reading", max_new_tokens=4)
    assert chosen == in_memory.generate(queries, shots=3, selector="reading", max_new_tokens=4)
