"""An assessment asks what the pipeline would be asked, resumes, and keeps a verdict that is used."""

from __future__ import annotations

import json
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.assessment import journal
from aim_sdk.assessment.candidates import Candidate
from aim_sdk.assessment.report import write_page
from aim_sdk.bank.verdict import FILE, VerdictWarning, verdict_of
from aim_sdk.errors import CorruptArtifactError, InputError, ShotsError
from aim_sdk.injection.label_notes import LabelWarning
from aim_sdk.selection.builtin import ReadingSelector
from tests.conftest import CalledCli

SMALL = {"shots": [1], "batch_size": 5}
COLOURS = {"blick": "red", "dax": "blue"}


def drawn(colour: str, rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    left, top, size = rng.randrange(24), rng.randrange(24), rng.randrange(24, 38)
    ImageDraw.Draw(image).ellipse((left, top, left + size, top + size), fill=colour)
    return image


def examples(number: int, seed: int = 0) -> list[Demonstration]:
    rng = random.Random(seed)
    names = [list(COLOURS)[n % 2] for n in range(number)]
    return [Demonstration(drawn(COLOURS[name], rng), "What is this?", name) for name in names]


@pytest.fixture(scope="module")
def pocket() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.fixture
def pipe(pocket: AIMPipeline) -> AIMPipeline:
    made = AIMPipeline(pocket.backend, pocket.projector)
    made.bank.add(examples(12))
    return made


@pytest.fixture(scope="module")
def whole(pocket: AIMPipeline) -> AIMPipeline:
    """One that no test changes."""
    made = AIMPipeline(pocket.backend, pocket.projector)
    made.bank.add(examples(12))
    return made


@pytest.mark.slow
def test_every_outcome_is_what_the_pipeline_answers(pipe: AIMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[journal.Unit, journal.Outcome] = {}
    add = journal.Journal.add
    monkeypatch.setattr(journal.Journal, "add", lambda self, made: (kept.update(dict(made)), add(self, made))[1])
    found = pipe.assess(**SMALL)
    assert found.choices == ("blick", "dax")
    assert {row.setting.mode for row in found.rows} == {
        "zero-shot",
        "nearest",
        "text-only",
        "aim",
        "interleaved",
    }
    items = list(pipe.bank)
    assert {(row.setting, item, None) for row in found.rows for item in items} <= kept.keys()
    asked = {unit[0] for unit in kept}
    assert (found.without_images is not None) == (found.verdict.looked_at.mode == "aim")
    assert len(asked) == len(found.rows) + (found.without_images is not None)
    for row in found.rows:
        for item in (items[0], items[7]):
            query = pipe.bank[item].demonstration
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (alone,) = pipe.classify(
                    [(query.image, query.text)],
                    found.choices,
                    shots=row.setting.shots or None,
                    mode=row.setting.mode,
                    selector=row.setting.selector,
                )
            outcome = kept[row.setting, item, None]
            assert outcome.answer == alone.label
            assert outcome.probabilities == pytest.approx(list(alone.probabilities.values()), abs=2e-3)
            assert item not in alone.demonstrations


@pytest.mark.slow
def test_taking_one_out_equals_a_bank_without_it(pipe: AIMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[journal.Unit, journal.Outcome] = {}
    add = journal.Journal.add
    monkeypatch.setattr(journal.Journal, "add", lambda self, made: (kept.update(dict(made)), add(self, made))[1])
    found = pipe.assess(shots=[2], modes=["aim"], selectors=["first"])
    again = {unit: outcome for unit, outcome in kept.items() if unit[2] is not None}
    assert again
    (setting, item, taken), outcome = next(iter(again.items()))
    smaller = AIMPipeline(pipe.backend, pipe.projector)
    smaller.bank.add([entry.demonstration for entry in pipe.bank.values() if entry.key != taken])
    query = pipe.bank[item].demonstration
    (alone,) = smaller.classify([(query.image, query.text)], found.choices, shots=2, selector="first")
    assert outcome.probabilities == pytest.approx(list(alone.probabilities.values()), abs=2e-3)
    place = found.choices.index(query.answer)  # type: ignore[union-attr]
    effects = [
        100 * (kept[setting, i, None].probabilities[found.choices.index(pipe.bank[i].demonstration.answer)] - o)  # type: ignore[index, union-attr]
        for (_, i, key), one in again.items()
        if key == taken
        for o in [one.probabilities[found.choices.index(pipe.bank[i].demonstration.answer)]]  # type: ignore[index, union-attr]
    ]
    assert place in (0, 1)
    (influence,) = [one for one in found.influence if one.key == taken]
    assert influence.effect == pytest.approx(sum(effects) / len(effects))
    assert influence.shown == len(effects)


@pytest.mark.slow
def test_an_interrupted_assessment_resumes_and_ends_alike(
    pipe: AIMPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SMALL | {"modes": ["aim", "text-only"]}
    whole = pipe.assess(**asked, folder=tmp_path / "whole")
    add, calls = journal.Journal.add, []

    def interrupted(self: journal.Journal, made: list[tuple[journal.Unit, journal.Outcome]]) -> None:
        calls.append(len(made))
        if len(calls) == 4:
            raise KeyboardInterrupt
        add(self, made)

    monkeypatch.setattr(journal.Journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipe.assess(**asked, folder=tmp_path / "parts")
    (file,) = (tmp_path / "parts").glob("outcomes-*.jsonl")
    assert len(file.read_bytes().splitlines()) == sum(calls[:3])
    with file.open("ab") as half:
        half.write(b'{"setting": {"mo')
    before = sum(calls[:3])
    calls[:] = [0] * 10
    again = pipe.assess(**asked, folder=tmp_path / "parts")
    assert sum(calls) + before == sum(1 for _ in next(iter((tmp_path / "whole").glob("outcomes-*"))).open())
    assert again.model_dump(exclude={"seconds", "made"}) == whole.model_dump(exclude={"seconds", "made"})
    calls[:] = [0] * 10
    pipe.assess(**asked, folder=tmp_path / "parts")
    assert not sum(calls)


@pytest.mark.slow
def test_the_verdict_is_kept_used_and_gets_stale(pipe: AIMPipeline, pocket: AIMPipeline, tmp_path: Path) -> None:
    asked = (drawn("red", random.Random(9)), "What is this?")
    with pytest.raises(InputError, match="was not assessed"):
        pipe(asked, shots="auto")
    found = pipe.assess(**SMALL, modes=["aim"])
    assert found.verdict.helps
    run = found.verdict.run
    assert pipe.bank.verdict is not None
    assert (pipe.bank.verdict.mode, pipe.bank.verdict.shots) == (run.mode, run.shots)
    with warnings.catch_warnings():
        warnings.simplefilter("error", VerdictWarning)
        (auto,) = pipe.classify([asked], mode="auto")
    (named,) = pipe.classify([asked], shots=run.shots, mode=run.mode, selector=run.selector)
    assert auto.probabilities == named.probabilities
    with pytest.raises(InputError, match="Next: leave"):
        pipe(asked, shots="auto", selector="random")
    pipe.bank.add(examples(13)[-1:])
    with pytest.warns(VerdictWarning, match="of 12 demonstrations, and the bank has changed"):
        pipe(asked, shots="auto")

    disk = AIMPipeline(pocket.backend, pocket.projector, bank=tmp_path / "bank")
    disk.bank.add(examples(12))
    bad = "Do not use examples: they are bad."
    disk.bank.keep_verdict(verdict_of("zero-shot", 0, None, bad, items=12, keys=disk.bank))
    with pytest.warns(VerdictWarning, match="no demonstrations are shown: Do not use examples"):
        assert disk(asked, mode="auto") == disk(asked, mode="zero-shot")
    (tmp_path / "bank" / FILE).write_text("{}")
    with pytest.raises(CorruptArtifactError, match="bank assess"):
        disk(asked, mode="auto")


@pytest.mark.slow
def test_wrong_answers_in_the_bank_are_found(pocket: AIMPipeline) -> None:
    right = examples(100, seed=3)
    wrong = set(random.Random(0).sample(range(100), 20))
    other = dict(zip(COLOURS, reversed(COLOURS), strict=True))
    pipe = AIMPipeline(pocket.backend, pocket.projector)
    given = [replace(one, answer=other[one.answer]) if n in wrong else one for n, one in enumerate(right)]
    keys = pipe.bank.add(given)
    assert len(set(keys)) == 100
    found = pipe.assess(shots=[4], modes=["nearest"])
    named = [one.key for one in found.doubtful]
    assert len(set(named[:20]) & {keys[n] for n in wrong}) >= 16
    assert all(pipe.bank[one.key].demonstration.answer == one.answer != one.likelier for one in found.doubtful)
    assert found.verdict.helps


def test_free_answers_are_generated_and_compared(tiny: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=str(tiny("llava-1.5")), projector="residual", device="cpu")
    asked = [(image, text) for image in pictures[:5] for text in ("What?", "Which?")]
    pipe.bank.add([Demonstration(image, text, f"thing {n}") for n, (image, text) in enumerate(asked)])
    found = pipe.assess(shots=[1], max_new_tokens=3)
    assert found.metric == "exact match"
    assert found.choices is found.confusion is found.calibration is None
    assert not found.verdict.helps
    assert {row.setting.mode for row in found.rows} == {"zero-shot", "text-only", "aim", "interleaved"}
    long = AIMPipeline(pipe.backend, pipe.projector)
    long.bank.add([Demonstration(i, t, f"a long caption of thing {n}") for n, (i, t) in enumerate(asked)])
    assert long.assess(shots=[1], modes=["aim"], max_new_tokens=3).metric == "CIDEr-D"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shots": [12]}, "the bank has 11 demonstrations to show"),
        ({"shots": 2}, r"shots: int; expected a list, as in \[1, 2, 4\]"),
        ({"shots": []}, "shots: an empty list"),
        ({"shots": "auto"}, "shots: str; expected a list"),
        ({"modes": ["no-image"]}, "is a control"),
        ({"modes": ["zero-shot"]}, "none of them shows demonstrations"),
        ({"modes": "nearest"}, "modes: str; expected a list"),
        ({"selectors": ["readin"]}, "Did you mean 'reading'"),
        ({"selectors": []}, "selectors: an empty list"),
        ({"choices": ["blick", "wug"]}, "6 of 12 items have an answer that is no choice: 'dax'"),
        ({"validation": "x.jsonl"}, "validation: str; expected a list"),
        ({"validation": ["a"] * 9}, "validation: str; expected Demonstration objects"),
        ({"limit": 6}, "limit"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_what_cannot_be_asked_is_refused_first(whole: AIMPipeline, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        whole.assess(**asked)
    assert whole.bank.verdict is None


def test_banks_that_cannot_be_assessed(pipe: AIMPipeline, tmp_path: Path) -> None:
    few = AIMPipeline(pipe.backend, pipe.projector)
    few.bank.add(examples(4))
    with pytest.raises(InputError, match="needs 8 at least"):
        few.assess()
    same = AIMPipeline(pipe.backend, pipe.projector)
    same.bank.add([replace(one, answer="dax") for one in examples(12)])
    with pytest.raises(InputError, match="all 12 items have the answer 'dax'"):
        same.assess()
    copies = AIMPipeline(pipe.backend, pipe.projector)
    copies.bank.add([replace(examples(1)[0], answer=f"a{n}") for n in range(9)])
    with pytest.raises(InputError, match="all of the bank have its image and its text"):
        copies.assess()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "assessment.html").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        pipe.assess(folder=tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file; expected a folder"):
        pipe.assess(folder=tmp_path / "file")
    disk = AIMPipeline(pipe.backend, pipe.projector, bank=tmp_path / "bank")
    disk.bank.add(examples(12))
    with pytest.raises(InputError, match="this is the bank itself"):
        disk.assess(folder=tmp_path / "bank")


def test_answers_that_only_case_tells_apart_are_named(pipe: AIMPipeline) -> None:
    cased = AIMPipeline(pipe.backend, pipe.projector)
    cased.bank.add(
        [replace(one, answer=one.answer.upper() if n < 4 else one.answer) for n, one in enumerate(examples(16))]
    )
    with pytest.warns(LabelWarning, match="only case or blanks tell apart"):
        cased.assess(shots=[1], modes=["nearest"])


def test_a_selector_that_its_name_does_not_tell_is_refused(pipe: AIMPipeline) -> None:
    filtered = AIMPipeline(pipe.backend, pipe.projector, selector=ReadingSelector(where={"split": "a"}))
    filtered.bank.add([replace(one, metadata={"split": "a"}) for one in examples(12)])
    with pytest.raises(InputError, match="keeps a selector's name alone"):
        filtered.assess(shots=[1], modes=["nearest"])


def test_a_verdict_of_fewer_items_does_not_replace_one(pipe: AIMPipeline) -> None:
    pipe.assess(shots=[1], modes=["nearest"])
    before = pipe.bank.verdict
    with pytest.warns(VerdictWarning, match="keeps its verdict of 12 items; this one is of 8"):
        pipe.assess(shots=[1], modes=["nearest"], limit=8)
    assert pipe.bank.verdict == before
    pipe.bank.add(examples(14)[-1:])  # another bank: its own verdict counts, however few
    pipe.assess(shots=[1], modes=["nearest"], limit=8)
    assert pipe.bank.verdict is not None
    assert pipe.bank.verdict.items == 8


def test_a_bank_that_changes_meanwhile_has_a_stale_verdict(pipe: AIMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    add = journal.Journal.add

    def meanwhile(self: journal.Journal, made: list[tuple[journal.Unit, journal.Outcome]]) -> None:
        add(self, made)
        if len(pipe.bank) == 12:
            pipe.bank.add(examples(13)[-1:])

    monkeypatch.setattr(journal.Journal, "add", meanwhile)
    found = pipe.assess(shots=[1], modes=["nearest"])
    assert (found.demonstrations, len(pipe.bank)) == (12, 13)
    assert pipe.bank.verdict is not None
    assert pipe.bank.verdict.stale(pipe.bank)


def test_a_bank_that_shrank_is_assessed_again(pipe: AIMPipeline) -> None:
    pipe.bank.keep_verdict(verdict_of("aim", 13, "reading", "Use AIM.", items=12, keys=pipe.bank))
    with pytest.raises(ShotsError, match="assess it again"):
        pipe(drawn("red", random.Random(1)), "What is this?", shots="auto")


def test_images_that_changed_are_left_out_and_named(pipe: AIMPipeline, tmp_path: Path) -> None:
    files = []
    for n, one in enumerate(examples(12)):
        assert isinstance(one.image, Image.Image)
        one.image.save(tmp_path / f"{n}.png")
        files.append(replace(one, image=tmp_path / f"{n}.png"))
    disk = AIMPipeline(pipe.backend, pipe.projector)
    keys = disk.bank.add(files)
    drawn("green", random.Random(5)).save(tmp_path / "3.png")
    (tmp_path / "4.png").unlink()
    found = disk.assess(shots=[1], modes=["nearest"])
    assert found.verdict.n == 10
    assert [one[:12] for one in found.left_out] == [keys[3][:12], keys[4][:12]]
    missing = disk.assess(
        files[:1] * 9 + [replace(files[1], image="no.png"), *files[1:3]], shots=[1], modes=["nearest"]
    )
    assert (missing.verdict.n, len(missing.left_out)) == (11, 1)


def test_random_answers_accuse_nobody(pipe: AIMPipeline) -> None:
    rng = random.Random(2)
    useless = AIMPipeline(pipe.backend, pipe.projector)
    answers = rng.sample(["blick", "dax"] * 10, 20)
    useless.bank.add([replace(one, answer=answer) for one, answer in zip(examples(20), answers, strict=True)])
    found = useless.assess(shots=[2], modes=["nearest"])
    assert not found.verdict.helps
    assert not found.doubtful


def test_one_question_is_not_doubled(pipe: AIMPipeline) -> None:
    alone = pipe.assess(shots=[1], modes=["nearest"])
    (row,) = alone.rows[1:]
    assert row.against_zero_shot is not None
    assert alone.verdict.against_zero_shot.p == pytest.approx(row.against_zero_shot.p)
    two = pipe.assess(shots=[1], modes=["nearest", "text-only"])
    if two.verdict.helps:
        assert two.verdict.against_zero_shot.p == pytest.approx(min(1, 2 * row.against_zero_shot.p))


def test_damaged_outcomes_are_asked_again(pipe: AIMPipeline, tmp_path: Path) -> None:
    whole = pipe.assess(shots=[1], modes=["nearest"], folder=tmp_path)
    (file,) = tmp_path.glob("outcomes-*")
    lines = file.read_text().splitlines()
    first = json.loads(lines[0])
    first["outcome"] = {"answer": "blau", "probabilities": None, "refused": None}
    file.write_text("\n".join([json.dumps(first), "junk", *lines[1:]]) + "\n")
    again = pipe.assess(shots=[1], modes=["nearest"], folder=tmp_path)
    assert again.rows == whole.rows


def test_texts_cannot_act_in_the_page(pipe: AIMPipeline, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\u202e\x1b[2J"
    other = AIMPipeline(pipe.backend, pipe.projector)
    other.bank.add([replace(one, text=hostile, answer=f"{one.answer}<b>\u202e") for one in examples(12)])
    found = other.assess(shots=[1], modes=["nearest"])
    write_page(found, other.bank, tmp_path / "x.html", {})
    page = (tmp_path / "x.html").read_text()
    assert "<script" not in page
    assert not any(char in page for char in "\u202e\x1b")


@pytest.mark.slow
def test_the_command_writes_a_page_and_resumes(
    pocket: AIMPipeline, call_cli: CalledCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    lines = []
    for n, one in enumerate(examples(12)):
        assert isinstance(one.image, Image.Image)
        one.image.save(tmp_path / f"{n}.png")
        lines.append({"image": f"{n}.png", "text": one.text, "answer": one.answer})
    Path("d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call_cli("bank", "add", "bank", "d.jsonl").returncode == 0
    assert "not assessed" in call_cli("bank", "stats", "bank").stdout
    done = call_cli("bank", "assess", "bank", "--shots", "1", "--mode", "aim")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Use .*, k=\d", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines()[:4])) <= 80
    page = (tmp_path / "bank-assessment" / "assessment.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    numbers = json.loads((tmp_path / "bank-assessment" / "assessment.json").read_text())
    assert numbers["verdict"]["helps"]
    assert numbers["verdict"]["n"] == 12
    again = call_cli("bank", "assess", "bank", "--shots", "1", "--mode", "aim", "--json")
    assert json.loads(again.stdout)["rows"] == numbers["rows"]
    assert "Use " in " ".join(call_cli("bank", "stats", "bank").stdout.split())
    assert json.loads(call_cli("bank", "stats", "bank", "--json").stdout)["verdict"]["stale"] is False
    best = numbers["verdict"]["run"]
    Path("q.jsonl").write_text(json.dumps({"image": "0.png", "text": "What is it?"}) + "\n")
    auto = call_cli("answer", "--bank", "bank", "--queries", "q.jsonl", "--out", "auto.jsonl", "--mode", "auto")
    assert auto.returncode == 0
    assert f"auto: {numbers['verdict']['sentence']}" in " ".join(auto.stderr.split())
    settings = json.loads(Path("auto.jsonl.settings.json").read_text())
    assert (settings["mode"], settings["shots"], settings["selector"]) == (best["mode"], best["shots"], "reading")
    both = ("--mode", "auto", "--selector", "random")
    named = call_cli("answer", "--bank", "bank", "--queries", "q.jsonl", "--out", "o.jsonl", *both)
    assert (named.returncode, "Next: leave" in named.stderr) == (1, True)
    refused = call_cli("answer", "--demos", "d.jsonl", "--queries", "q.jsonl", "--out", "o.jsonl", "--mode", "auto")
    assert (refused.returncode, "pass --bank" in refused.stderr) == (1, True)
    assert call_cli("bank", "remove", "bank", next(iter(_keys(call_cli)))).returncode == 0
    assert "stale" in call_cli("bank", "stats", "bank").stdout
    Path("bank", FILE).write_text("{")
    damaged = call_cli("bank", "stats", "bank")
    assert (damaged.returncode, "damaged, or not a bank's verdict" in " ".join(damaged.stdout.split())) == (0, True)
    Path("v.jsonl").write_text(Path("d.jsonl").read_text() + "not JSON\n")
    partly = call_cli("bank", "assess", "bank", "--validation", "v.jsonl", "--shots", "1", "--mode", "nearest")
    assert (partly.returncode, "v.jsonl:13: not JSON" in partly.stderr) == (3, True)
    wrong = call_cli("bank", "assess", "bank", "--shots", "1;2")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "expected whole numbers with commas" in wrong.stderr


def _keys(call_cli: CalledCli) -> list[str]:
    return [json.loads(line)["key"] for line in call_cli("bank", "list", "bank", "--json").stdout.splitlines()]


def test_a_setting_is_written_in_words() -> None:
    assert str(Candidate("aim", 8, "reading")) == "AIM, k=8, selector reading"
    assert str(Candidate("nearest", 2, "reading")) == "nearest neighbours, k=2"
