"""The cost of prompts: what is counted, what fits, and where the free memory comes from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aim_backends.auto import AutoBackend
from aim_backends.llava import LlavaBackend
from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline, Backend, Demonstration, Query
from aim_sdk.answering.cost_line import cost_line
from aim_sdk.backend.footprint import Footprint
from aim_sdk.errors import CapabilityError, InputError, ModelNotFoundError
from aim_sdk.injection.cost import Cost, PromptCost
from aim_sdk.injection.cost_sample import assumed, longest, real
from aim_sdk.injection.counting import MOST_SHOTS, cost_of, footprint_of
from aim_sdk.support import free_memory
from aim_sdk.support.numbers import byte_count


def _demonstrations(count: int) -> list[Demonstration]:
    return [
        Demonstration(Image.new("RGB", (40 + n, 50), (n, 0, 0)), "what? " * (n + 1), f"a cat {n}") for n in range(count)
    ]


@pytest.fixture(scope="module")
def footprint(tiny: Callable[[str], Path]) -> Footprint:
    return LlavaBackend.footprint_of(str(tiny("llava-1.5")), device="cpu")


def _cost(footprint: Footprint, shots: object = (1, 2), **more: object) -> Cost:
    more = {"sample": real(_demonstrations(3), source="here"), **more}
    return cost_of(footprint, shots=shots, backend="llava", **more)  # type: ignore[arg-type]


def _row(found: Cost, mode: str, shots: int) -> PromptCost:
    (row,) = [one for one in found.prompts if (one.mode, one.shots) == (mode, shots)]
    return row


def test_the_longest_demonstrations_and_the_longest_query_are_counted(footprint: Footprint) -> None:
    shown, form = _demonstrations(3), footprint.sizes.default_format
    queries = [Query(shown[0].image, "short"), Query(shown[0].image, "a much longer question " * 5)]
    found = _cost(footprint, sample=real(shown, queries, source="here"))
    bare = footprint.prompt_tokens(queries[1], [], prompt_format=form)
    lengths = footprint.text_tokens(shown, prompt_format=form)
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 3
    assert _row(found, "zero-shot", 0).tokens == bare
    assert _row(found, "aim", 1).tokens == bare + lengths[2]
    assert _row(found, "aim", 2).tokens == bare + lengths[2] + lengths[1]
    assert _row(found, "interleaved", 2).tokens == footprint.prompt_tokens(
        queries[1], [shown[2], shown[1]], prompt_format=form
    )
    assert [row.images for row in found.prompts] == [1, 1, 1, 2, 3]


def test_more_shots_than_demonstrations_repeat_the_longest(footprint: Footprint) -> None:
    found, lengths = (
        _cost(footprint, [3, 5]),
        footprint.text_tokens(_demonstrations(3), prompt_format=footprint.sizes.default_format),
    )
    three, five = _row(found, "aim", 3).tokens, _row(found, "aim", 5).tokens
    assert three is not None
    assert five == three + 2 * max(lengths)


@given(batch=st.integers(1, 64), new=st.integers(1, 500), free=st.integers(0, 10**8), loaded=st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_fits_in_the_memory(footprint: Footprint, batch: int, new: int, free: int, loaded: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("aim_sdk.injection.counting.free_bytes", lambda device: free)
        found = _cost(footprint, [2], batch_size=batch, max_new_tokens=new, loaded=loaded)
    for row in found.prompts:
        assert row.tokens is not None
        assert row.kv_bytes == footprint.kv_bytes(row.tokens, row.images)
        whole, weights = footprint.kv_bytes(row.tokens + new, row.images), footprint.sizes.weights_bytes
        assert whole is not None
        assert weights is not None
        assert row.memory_bytes == batch * whole + (0 if loaded else weights)
        assert row.fits_memory == (row.memory_bytes <= free)
        limit = footprint.sizes.context_length
        assert limit is not None
        assert row.fits_context == (row.tokens + new <= limit)
        assert row.fits == (row.fits_context and row.fits_memory)


def test_a_context_is_full_at_its_last_token(footprint: Footprint) -> None:
    limit = footprint.sizes.context_length
    assert limit is not None
    (row,) = _cost(footprint, [0]).prompts
    assert row.tokens is not None
    (full,) = _cost(footprint, [0], max_new_tokens=limit - row.tokens).prompts
    (over,) = _cost(footprint, [0], max_new_tokens=limit - row.tokens + 1).prompts
    assert (full.fits_context, over.fits_context) == (True, False)
    assert over.verdict == "no: context"


def test_what_is_not_known_is_said(footprint: Footprint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_sdk.injection.counting.free_bytes", lambda device: None)
    row = _row(_cost(footprint, [1]), "aim", 1)
    assert (row.fits_memory, row.fits, row.verdict) == (None, None, "not known")
    assert "free" not in _cost(footprint, [1]).line


@pytest.mark.parametrize(
    ("shots", "more", "said"),
    [
        (-1, {}, "shots=-1"),
        ("8", {}, "shots='8'"),
        ([2.5], {}, "shots=2.5"),
        (True, {}, "shots=True"),
        (None, {}, "shots=None"),
        (MOST_SHOTS + 1, {}, "at most 4,096"),
        (10**30, {}, "at most 4,096"),
        (1, {"modes": ["aims"]}, "Did you mean 'aim'"),
        (1, {"modes": []}, "no mode is named"),
        (1, {"batch_size": 0}, "batch_size=0"),
        (1, {"max_new_tokens": 1.5}, "max_new_tokens=1.5"),
    ],
)
def test_what_is_refused(footprint: Footprint, shots: object, more: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _cost(footprint, shots, **more)


def test_no_shots_are_zero_shot_and_a_vote_has_no_prompt(footprint: Footprint) -> None:
    assert [(row.mode, row.shots) for row in _cost(footprint, 0).prompts] == [("zero-shot", 0)]
    (row,) = _cost(footprint, [4], modes=["nearest"]).prompts
    assert row.tokens is None
    assert row.fits is False
    assert "vote" in row.problem
    assert "vote" in _cost(footprint, [4], modes=["nearest"]).line


def test_a_family_of_one_image_has_no_interleaved_prompt(tiny: Callable[[str], Path]) -> None:
    found = _cost(AutoBackend.footprint_of(str(tiny("paligemma")), device="cpu"), [2])
    assert _row(found, "interleaved", 2).problem == "a prompt of this model holds 1 image."
    assert _row(found, "aim", 2).tokens is not None


def test_image_size_matters_where_it_matters(tiny: Callable[[str], Path]) -> None:
    small, large = assumed(size=(64, 64)), assumed(size=(1920, 1080))
    next_ = LlavaBackend.footprint_of(str(tiny("llava-next")), device="cpu")
    first = LlavaBackend.footprint_of(str(tiny("llava-1.5")), device="cpu")
    differing = [_cost(next_, 2, sample=sample).prompts[-1].tokens for sample in (small, large)]
    same = [_cost(first, 2, sample=sample).prompts[-1].tokens for sample in (small, large)]
    assert differing[0] != differing[1]
    assert same[0] == same[1]


@pytest.mark.parametrize(("size", "ok"), [((1, 1), True), ((0, 5), False), ((10**5, 10**5), False)])
def test_assumed_sizes(size: tuple[int, int], ok: bool) -> None:
    if ok:
        assert assumed(size=size).demonstrations[0].image.size == size  # type: ignore[union-attr]
        return
    with pytest.raises(InputError, match="image size"):
        assumed(size=size)


def test_the_longest_of_many_are_counted_and_it_is_said() -> None:
    shown = _demonstrations(5)
    sample = real(shown, source="d.jsonl", most=2)
    assert list(sample.demonstrations) == [shown[4], shown[3]]
    assert not sample.complete
    assert sample.told == "the 5 demonstrations of d.jsonl, of which the 2 with the longest texts"
    assert longest(shown, 5) == shown
    assert real(shown, source="d").complete


def test_a_backend_without_the_capability_is_named() -> None:
    class Silent(Backend):
        name = "silent"

    with pytest.raises(CapabilityError, match=r"backend 'silent' lacks the capability 'cost'.*\n.*Next: "):
        footprint_of(Silent, None)


def test_a_hub_id_that_is_not_there_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="Next: check the name and the network"):
        LlavaBackend.footprint_of("nobody/no-such-model-at-all", local_files_only=True)


def test_a_line_is_given_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = AIMPipeline.from_pretrained("pocket")
    said = cost_line(pipe, 2, mode="aim", demonstrations=_demonstrations(3), queries=[Query(Image.new("L", (9, 9)))])
    assert said.startswith("cost: aim, 2 shots: up to ")
    assert said.endswith("fits: yes.")
    assert "\n" not in said
    assert "not known" in cost_line(pipe, 2, mode="no such mode", demonstrations=_demonstrations(1))  # type: ignore[arg-type]
    monkeypatch.setattr(PocketBackend, "footprint", property(lambda self: 1 / 0))
    assert cost_line(pipe, 2, mode="aim") == "cost: not known (division by zero)"


def test_pocket_kv_bytes_are_those_of_its_cache() -> None:
    backend = PocketBackend.from_pretrained(device="cpu")
    query, shown = Query(Image.new("RGB", (30, 30)), "What is it?"), _demonstrations(2)
    prefilled = backend.injector.prefill([query], [shown], backend.default_format, 1)
    tokens = backend.footprint.prompt_tokens(query, shown, prompt_format=backend.default_format)
    assert int(prefilled.mask.sum()) == tokens
    assert backend.footprint.kv_bytes(tokens, 3) == prefilled.cache.nbytes


@pytest.mark.slow
def test_bank_bytes_are_what_a_bank_on_disk_grows_by(tmp_path: Path) -> None:
    files = []
    for n in range(40):
        Image.new("RGB", (30, 30), (n, 9, 9)).save(tmp_path / f"{n}.png")
        files.append(Demonstration(tmp_path / f"{n}.png", "What is it? " * (n % 5 + 1), f"a cat {n}"))
    sizes = []
    for count in (20, 40):
        pipe = AIMPipeline.from_pretrained("pocket", bank=tmp_path / f"bank-{count}")
        pipe.bank.add(files[:count])
        foreseen = pipe.cost(2, demonstrations=files[:count]).bank_bytes
        pipe.bank.close()
        assert foreseen is not None
        sizes.append((foreseen, sum(file.stat().st_size for file in (tmp_path / f"bank-{count}").iterdir())))
    (few, held_few), (more, held_more) = sizes
    assert few <= held_few
    assert more - few <= held_more - held_few <= more - few + 20 * 2000


def test_a_pipeline_counts_its_bank_or_an_assumed_demonstration() -> None:
    pipe = AIMPipeline.from_pretrained("pocket", selector="first")
    assert "assumed" in pipe.cost(2).counted_on
    with pytest.raises(InputError, match="demonstrations"):
        pipe.cost(2, demonstrations=["x"])  # type: ignore[list-item]
    pipe.bank.add(_demonstrations(3))
    found = pipe.cost([2, 3], modes=["aim"], queries=[(Image.new("RGB", (9, 9)), "What is it?")])
    assert found.counted_on == "the 3 demonstrations of the bank"
    assert found.weights_loaded
    none = pipe.cost(2, demonstrations=[])
    assert (none.counted_on, none.fused_tokens) == ("an assumed query", None)
    assert [bool(row.tokens) for row in none.prompts] == [True, False, False]
    by_query = pipe.cost([2, 3], modes=["aim"], demonstrations=[[item] for item in _demonstrations(3)])
    assert by_query.fused_tokens == found.fused_tokens
    (made,) = pipe.generate([Query(Image.new("RGB", (9, 9)), "What is it?")], shots=3, max_new_tokens=1)
    assert _row(found, "aim", 3).tokens == made.prompt_tokens
    assert Cost.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_600, "1 MB"),
        (5 * 10**9, "5 GB"),
        (10**12, "1 TB"),
        (2 * 10**15, "2,000 TB"),
    ],
)
def test_bytes_for_people(count: int, said: str) -> None:
    assert byte_count(count) == said


def test_free_memory_is_what_the_tightest_group_leaves(tmp_path: Path) -> None:
    """Version 2 in a nested group, version 1, no limit, and files that are missing or no numbers."""

    def write(folder: Path, **files: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    write(root / "a", memory__max="1000\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 50\n")
    write(root / "a" / "b", memory__max="max\n", memory__current="5\n", memory__stat="inactive_file 1\n")
    write(root / "memory" / "c", memory__limit_in_bytes="400", memory__usage_in_bytes="500")
    write(root / "memory" / "c", memory__stat="inactive_file 9\ntotal_inactive_file 20\n")
    membership.write_text("0::/a/b\n5:cpu,memory:/c\n4:cpuset:/c\n")
    assert list(free_memory._left_by_groups(root, membership)) == [350, 0]
    membership.write_text("0::/none\n")
    assert list(free_memory._left_by_groups(root, membership)) == []
    assert list(free_memory._left_by_groups(root, tmp_path / "missing")) == []


def test_free_memory_of_devices() -> None:
    free = free_memory.free_bytes(torch.device("cpu"))
    assert free is not None
    assert 10**6 < free < 10**14
    assert free_memory.free_bytes(torch.device("meta")) is None
