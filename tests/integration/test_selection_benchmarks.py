"""benchmarks/selection on a tiny backbone: pools and noise, scores that are the pipeline's own, resuming, the table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from PIL import Image

from aim_backends.pocket.backend import PocketBackend
from aim_sdk import AIMPipeline
from aim_sdk.errors import InputError
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.injection.shots import Shots
from aim_sdk.selection.nearest import log_shares
from benchmarks.selection import runs
from benchmarks.selection.latency import SELECTION, WAYS, measure
from benchmarks.selection.latency import plot as latency_plot
from benchmarks.selection.pools import noisy, pools
from benchmarks.selection.runs import Scores, SelectorSettings, TableSettings, Tasks, kept, run_all
from benchmarks.selection.table import answers_of, compared, markdown, plot, result

pytestmark = pytest.mark.filterwarnings("ignore:no projector was given")
SHIPPED = Path(runs.__file__).parent


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory, pictures: list[Image.Image]) -> Path:
    """Two seeds of two trials, in the files of `benchmarks.pocket.trials`; a picture is shown twice in each."""
    folder = tmp_path_factory.mktemp("trials") / "names-of-2"
    folder.mkdir()
    files = [folder / f"{n}.png" for n in range(8)]
    for picture, file in zip(pictures, files, strict=False):
        picture.save(file)
    names = [f"{seed}-{number}" for seed in (1, 2) for number in range(2)]
    shown = [(files[n % 6], ("dax", "wug")[n % 2]) for n in range(7)]
    support = [
        {"id": f"{name}-{n}", "image": str(file), "text": "What is it?", "answer": answer}
        for name in names
        for n, (file, answer) in enumerate(shown)
    ]
    queries = [
        {
            "id": name,
            "image": str(files[6]),
            "text": "What is it?",
            "answer": "wug\n",
            "choices": ["dax\n", "wug\n"],
            "demonstrations": [f"{name}-{n}" for n in range(7)],
        }
        for name in names
    ]
    for name, lines in (("support", support), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config: dict[str, object] = {
        "name": "pocket-names-of-2",
        "title": "t",
        "kind": "classification",
        "metric": "exact_match",
    }
    config |= {"loader": "jsonl", "files": {"queries": "queries.jsonl", "support": "support.jsonl"}}
    (folder / "task.yaml").write_text(yaml.safe_dump({**config, "source": "s", "licence": "l", "splits": "s"}))
    return folder


def test_pools_are_trials_draws_or_one_per_seed(trials: Path) -> None:
    asked = partial(pools, data=Path("data"), numbers=range(1, 2), seeds=(1, 2))
    made = list(asked(str(trials), size=99))
    assert [pool.name for pool in made] == ["1-1", "2-1"]
    assert [item.answer for item in made[0].demonstrations] == ["dax", "wug"] * 3, "the second of a picture is left out"
    assert made[0].asked[0].choices == ("dax\n", "wug\n")
    assert made[0].asked[0].right == 1
    drawn = list(asked("emoji-names", size=4))
    assert [len(pool.asked) for pool in drawn] == [1, 1]
    assert drawn == list(asked("emoji-names", size=4))
    for pool in drawn:
        assert {item.answer + "\n" for item in pool.demonstrations} == set(pool.asked[0].choices)
    shared = list(pools("emoji-category", data=Path("data"), numbers=range(3), seeds=(1, 2), size=10))
    assert [(len(pool.demonstrations), len(pool.asked)) for pool in shared] == [(10, 3), (10, 3)]
    assert len(shared[0].asked[0].choices) == 6
    assert shared[0].demonstrations != shared[1].demonstrations


def test_noise_changes_as_many_answers_as_it_says(trials: Path) -> None:
    (pool,) = pools("emoji-category", data=Path("data"), numbers=range(1), seeds=(1,), size=20)
    changed = noisy(pool, 0.2)
    assert changed == noisy(pool, 0.2)
    assert len(changed.wrong) == 4
    pairs = list(zip(pool.demonstrations, changed.demonstrations, strict=True))
    assert {place for place, (one, other) in enumerate(pairs) if one.answer != other.answer} == changed.wrong
    assert {item.answer for item in changed.demonstrations} <= {item.answer for item in pool.demonstrations}
    assert all(item.metadata["label"] == item.answer for item in changed.demonstrations)
    assert all(one.image == other.image for one, other in pairs)
    assert noisy(pool, 0.0) == pool


@pytest.fixture(scope="module")
def table(trials: Path, tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> TableSettings:
    """Asked whole."""
    made = TableSettings(
        output=tmp_path_factory.mktemp("table") / "work",
        backend=str(tiny("llava-1.5")),
        parts=(Tasks(names=(str(trials),), numbers=(0, 2), seeds=(1, 2)),),
        selectors={
            "first": SelectorSettings(selector="first"),
            "reading": SelectorSettings(selector="reading"),
            "agreed": SelectorSettings(selector="agreed"),
            "missing": SelectorSettings(selector="rices", options={"pretrained": "/nowhere.safetensors"}),
        },
        shots=(1, 3),
        noise=(0.0, 0.5),
        weights=(0.5,),
    )
    run_all(made)
    return made


def test_scores_are_the_pipeline_s_own(table: TableSettings, trials: Path) -> None:
    found = kept(table)
    assert len(found) == 2 * 4
    one = next(scores for scores in found if scores.noise and scores.query == "2-1")
    (pool,) = pools(str(trials), data=Path("data"), numbers=range(1, 2), seeds=(2,), size=6)
    changed = noisy(pool, 0.5)
    assert one.wrong == tuple(sorted(changed.wrong))
    assert len(one.wrong) == 3
    pipe = AIMPipeline.from_pretrained(table.backend, device="cpu", dtype="float32")
    keys = pipe.bank.add(changed.demonstrations)
    (asked,) = changed.asked
    for name in ("first", "reading", "agreed"):
        for k in (1, 3):
            (generation,) = pipe.generate([asked.query], shots=k, selector=name, max_new_tokens=1)
            assert [keys[place] for place in one.shown[name][k]] == list(generation.demonstrations)
            for mode in ("aim", "interleaved"):
                expected = pipe.score(asked.query, asked.choices, shots=Shots(k, mode=mode, selector=name))
                assert one.log_probs[mode][name][k] == pytest.approx(expected, abs=1e-4)
    zero = pipe.score(asked.query, asked.choices, mode="zero-shot")
    assert one.log_probs["zero-shot"][""][0] == pytest.approx(zero, abs=1e-4)
    (shares,) = pipe.nearest([asked.query], shots=6)
    assert one.votes[0] == pytest.approx(log_shares(shares, asked.choices))
    (shares,) = pipe.nearest([asked.query], shots=3)
    assert one.votes[3] == pytest.approx(log_shares(shares, asked.choices))


def test_what_is_there_is_not_asked_again(table: TableSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(table.output.glob("*/*/*.json"))
    before = {file: file.stat().st_mtime_ns for file in files}
    lost = files[3].read_bytes()
    files[3].unlink()
    run_all(table)
    after = {file: file.stat().st_mtime_ns for file in files}
    assert [file for file in files if before[file] != after[file]] == [files[3]]
    again, was = Scores.model_validate_json(files[3].read_bytes()), Scores.model_validate_json(lost)
    assert (again.shown, again.wrong, again.task) == (was.shown, was.wrong, was.task)
    with pytest.raises(InputError, match=r"answers of other settings \(shots\)\. Next: name another `output`"):
        run_all(table.model_copy(update={"shots": (1, 2)}))


def scores(query: str, right: int, **log_probs: tuple[float, ...]) -> Scores:
    return Scores(
        task="t",
        noise=0.0,
        pool="p",
        query=query,
        right=right,
        wrong=(1,),
        shown={name: {2: (0, 1)} for name in log_probs},
        log_probs={"aim": {name: {2: found} for name, found in log_probs.items()}},
        votes={2: (math.log(0.25), math.log(0.75)), 0: (math.log(0.2), math.log(0.8))},
        refused={},
    )


def test_a_row_is_right_where_its_likeliest_choice_is() -> None:
    found = answers_of(
        [
            scores("a", 0, reading=(-1.0, -2.0), agreed=(-1.0, -3.0)),
            scores("b", 1, reading=(-1.0, -2.0), agreed=(-2.0, -2.0)),
        ],
        (0.5, 1.0),
    )
    trials = [("t", "p a"), ("t", "p b")]
    assert [found.scores["aim, reading"][2][trial] for trial in trials] == [1.0, 0.0]
    assert [found.scores["aim, agreed"][2][trial] for trial in trials] == [1.0, 0.5], "equally likely: its share"
    assert [found.scores["nearest"][2][trial] for trial in trials] == [0.0, 1.0]
    # the vote of all: log .8 - log .2 = 1.39; half of it is less than the LM's 1, all of it is more
    assert [found.scores["aim, reading + 0.5 vote"][2][trial] for trial in trials] == [1.0, 0.0]
    assert [found.scores["aim, reading + 1 vote"][2][trial] for trial in trials] == [0.0, 1.0]
    gain = found.gain("aim, agreed", "aim, reading", 2)
    assert gain is not None
    assert (gain.value, gain.n) == (0.25, 2)


def test_what_a_gain_is_over() -> None:
    assert compared("interleaved, agreed") == "interleaved, reading"
    assert compared("aim, reading + 1 vote") == "aim, reading"
    assert compared("nearest") == "aim, reading"
    assert compared("aim, reading") is None
    assert compared("zero-shot") is None


def test_the_table_and_its_plot(table: TableSettings) -> None:
    found = result(table, kept(table))
    assert set(found["noise"]) == {"0", "0.5"}
    rows = found["noise"]["0.5"]["rows"]
    assert rows["aim, agreed"]["names-of-2"]["3"]["n"] == 4
    assert rows["zero-shot"]["all"].keys() == {"0"}
    assert not any("missing" in row for row in rows)
    wrong = found["noise"]["0.5"]["wrong_shown"]
    assert all(0 <= wrong[name][k]["value"] <= 1 for name in ("first", "reading", "agreed") for k in ("1", "3"))
    assert found["noise"]["0"]["wrong_shown"]["reading"]["3"]["value"] == 0
    assert {"date", "versions", "machine", "settings"} <= found.keys()
    json.dumps(found)
    text = markdown(found)
    assert "| interleaved, agreed |" in text
    assert "nan" not in text
    assert plot(found).startswith(b"\x89PNG")


def test_the_settings_that_are_shipped_are_valid() -> None:
    for file in SHIPPED.glob("*.yaml"):
        made = read_yaml(file, TableSettings)
        assert "reading" in made.selectors
        assert made.output.parts[:3] == ("benchmarks", "selection", "work")


@pytest.mark.slow
def test_latency_is_measured() -> None:
    made = measure(PocketBackend.from_pretrained(device="cpu"), 40, (1, 64), 3)
    assert made["demonstrations"] == 40
    named = {(cell["way"], cell["shots"]): cell for cell in made["cells"]}
    assert named.keys() == {("zero-shot", 0), (SELECTION, 1), *((way, 1) for way in WAYS)}, "64 are more than there are"
    assert named["zero-shot", 0]["of_zero_shot"]["median"] == 1
    assert all(("of_aim" in cell) == way.startswith("interleaved") for (way, _), cell in named.items())
    assert latency_plot([made], 1).startswith(b"\x89PNG")
