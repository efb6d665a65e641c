"""What labelling says once of what would mislead: one-sided examples, votes for no choice, photos that are examples."""

import csv
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration
from aim_sdk.errors import InputError
from aim_sdk.injection.label_notes import LabelWarning
from tests.conftest import CalledCli

Label = Callable[..., str]


@pytest.fixture(scope="module")
def llava(tiny: Callable[[str], Path]) -> AIMPipeline:
    return AIMPipeline.from_pretrained("llava", model=str(tiny("llava-1.5")), projector="residual", device="cpu")


@pytest.fixture
def pipe(llava: AIMPipeline, pictures: list[Image.Image]) -> AIMPipeline:
    made = AIMPipeline(llava.backend, llava.projector, selector="first")
    made.bank.add([Demonstration(pictures[n], "What?", "cat" if n < 2 else "dog") for n in range(4)])
    return made


@pytest.fixture
def desk(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    for n, picture in enumerate(pictures):
        folder = tmp_path / "examples" / ("cat" if n < 2 else "dog") if n < 4 else tmp_path / "photos"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{n}.png")
    return tmp_path


@pytest.fixture
def label(desk: Path, tiny: Callable[[str], Path], call_cli: CalledCli) -> Label:
    """Runs ``answer``; returns what it says, with its exit code."""

    def call(queries: str, out: str, *more: str, demos: str = "examples") -> str:
        run = call_cli(
            *("answer", "--backend", "llava", "--model", str(tiny("llava-1.5")), "--projector", "residual"),
            *("--demos", str(desk / demos), "--queries", str(desk / queries), "--out", str(desk / out)),
            *("--device", "cpu", *more),
        )
        return f"{run.returncode} {run.stdout}{run.stderr}"

    return call


def noted(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if issubclass(one.category, LabelWarning)]


def test_demonstrations_of_one_answer_are_noted_once(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    said = noted(lambda: pipe.classify(pictures[4:8], text="What?", shots=2, batch_size=1))
    assert said == [
        "all 2 shown demonstrations say 'cat', though there are others; selector='reading' (--selector reading) shows "
        "each query the most similar ones, or pass more shots."
    ]
    assert noted(lambda: pipe.classify(pictures[4:8], text="What?", shots=1))[0].startswith("the shown demonstration ")
    assert noted(lambda: pipe.generate(pictures[4:6], shots=2, max_new_tokens=1)) == said
    own = [entry.demonstration for entry in pipe.bank.values()]
    assert noted(lambda: pipe.classify(pictures[4:8], text="What?", shots=2, demonstrations=own)) == [
        "all 2 shown demonstrations say 'cat', though there are others; pass more shots, or add them to the bank, "
        "where selector='reading' (--selector reading) shows each query the most similar ones."
    ]
    for quiet in ({"shots": 3}, {"shots": None}, {"shots": 2, "selector": "reading"}, {"mode": "zero-shot"}):
        assert noted(lambda quiet=quiet: pipe.classify(pictures[4:6], text="?", **quiet)) == []  # type: ignore[misc]
    assert noted(lambda: pipe.generate(pictures[4:6], shots=1, max_new_tokens=1)) == []


def test_the_command_notes_demonstrations_of_one_answer(label: Label, desk: Path) -> None:
    asked = ("--choices-from-bank", "--text", "What?", "--shots", "2", "--batch-size", "1")
    first = ("--selector", "first")
    said = label("photos", "a.jsonl", *asked, *first)
    assert said.count("all 2 shown demonstrations say 'cat'") == 1
    assert "all 2 shown" not in label("photos", "b.jsonl", *asked)
    assert label("photos", "c.jsonl", "--shots", "2", "--text", "What?", *first).count("all 2 shown") == 1


def test_votes_for_no_choice_are_noted_once(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    def classify() -> None:
        pipe.classify(pictures[4:8], ["cat", "dogs", "ox"], text="What?", mode="nearest", batch_size=1)

    missing, lost = noted(classify)
    assert missing == (
        "mode 'nearest': no demonstration says 'dogs' or 'ox', so no image can get that label. Did you mean 'dog'?"
    )
    assert lost.startswith("mode 'nearest': ")
    assert "% of the votes on 4 labelled images went to answers that are not choices ('dog'); they are left" in lost
    assert noted(lambda: pipe.classify(pictures[4:8], ["cat", "dog"], text="What?", mode="nearest")) == []
    assert noted(lambda: pipe.classify(pictures[4:6], ["cat", "ox"], text="What?", mode="zero-shot")) == []


def test_the_command_notes_votes_for_no_choice(label: Label) -> None:
    said = label(
        "photos", "a.jsonl", "--choices", "cat,ox", "--mode", "nearest", "--batch-size", "1", "--text", "What?"
    )
    assert said.count("of the votes on 4 labelled images went to answers that are not choices ('dog')") == 1
    assert said.count("no demonstration says 'ox'") == 1


@pytest.mark.parametrize("mode", ["aim", "text-only", "interleaved", "no-image"])
def test_a_choice_that_no_demonstration_says_is_noted_once(
    pipe: AIMPipeline, pictures: list[Image.Image], mode: str
) -> None:
    def said(choices: list[str] | None, **asked: Any) -> list[str]:
        return noted(
            lambda: pipe.classify(pictures[4:6], choices, text="What?", mode=mode, batch_size=1, **asked)  # type: ignore[arg-type]
        )

    expected = ["no demonstration says 'dgo', so no prompt has an example of it. Did you mean 'dog'?"]
    assert said(["cat", "dgo"]) == expected
    own = [entry.demonstration for entry in pipe.bank.values()]
    assert said(["cat", "dgo"], demonstrations=own) == expected
    assert said(["a cat", "a dog"]) == [
        "no demonstration says any of the choices ('a cat', 'a dog'), so no prompt has an example of one; the "
        "demonstrations say 'cat', 'dog'. Did you mean 'cat'? Did you mean 'dog'?"
    ]
    assert said(["cat", "dgo"], shots=0) == said(["cat", "dog"]) == said(None) == []
    pipe.bank.add([Demonstration(pictures[7], "What?", "Dog")])
    assert said(None) == ["only case or blanks tell apart 'Dog' and 'dog'; they count as different labels."]


def test_the_command_notes_choices_without_examples_and_answers_that_are_alike(label: Label, desk: Path) -> None:
    asked = ("--mode", "text-only", "--text", "What?", "--batch-size", "1")
    assert label("photos", "a.jsonl", "--choices", "cat,dgo", *asked).count("no demonstration says 'dgo'") == 1
    (desk / "examples" / "cat" / "0.txt").write_text("Cat")
    assert label("photos", "b.jsonl", "--choices-from-bank", *asked).count("tell apart 'Cat' and 'cat'") == 1


def test_photos_that_are_examples_are_noted_once(pipe: AIMPipeline, label: Label, desk: Path, pictures: Any) -> None:
    said = noted(lambda: pipe.classify(pictures[2:6], text="What?", shots=2, selector="reading", batch_size=1))
    assert said == ["2 queries are demonstrations, too; a query's own is never shown to it."]
    shutil.copy(desk / "examples" / "cat" / "0.png", desk / "photos")
    asked = ("--choices-from-bank", "--text", "What?", "--batch-size", "2")
    near = label("photos", "a.jsonl", *asked, "--mode", "nearest", "--shots", "2")
    assert near.count("1 query is a demonstration, too; a query's own is never shown to it.") == 1
    assert "1 query is a demonstration, too, and its answer is shown to it; selector='reading'" in label(
        "photos", "b.jsonl", *asked, "--selector", "first"
    )
    assert "a query's own is never shown to it" in label("photos", "c.jsonl", *asked)


def test_blanks_round_labels_make_no_other_label(
    pipe: AIMPipeline, label: Label, desk: Path, pictures: list[Image.Image]
) -> None:
    shown = [Demonstration(pictures[n], "What?", ["cat", "cat ", " dog"][n]) for n in range(3)]
    for mode in ("aim", "nearest"):
        (found,) = pipe.classify(pictures[4], text="What?", demonstrations=shown, mode=mode)
        assert list(found.probabilities) == ["cat", "dog"]
        assert sum(found.probabilities.values()) == pytest.approx(1)
    with (desk / "check.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "answer"], ["photos/4.png", "cat "], ["photos/5.png", "cta"]])
    said = label("check.csv", "x.csv", "--choices-from-bank", "--text", "What?")
    with (desk / "x.csv").open(newline="") as file:
        assert [row["reference"] for row in csv.DictReader(file)] == ["cat", "cta"]
    assert "the right label of 1 query is no choice, which counts as wrong: 'cta' (did you mean 'cat'?)" in said


def test_an_iterator_that_gives_nothing_is_refused(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    with pytest.raises(InputError, match=r"images: the list_iterator gave nothing; was it consumed before\?"):
        pipe.classify(iter(list[str]()), text="What?")
    assert pipe.classify([], text="What?") == []
    with pytest.raises(InputError, match=r"bank\.add: the list_iterator gave nothing; was it consumed before\?"):
        pipe.bank.add(iter(list[Demonstration]()))
    assert pipe.bank.add([]) == []
    for wrong in ("skip", 3):
        with pytest.raises(InputError, match=r"on_error: (str|int); expected a function .* or None"):
            pipe.classify(pictures[4], text="What?", on_error=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"on_error: (str|int); expected a function .* or None"):
            pipe.bank.add([Demonstration(pictures[5], "What?", "x")], on_error=wrong)  # type: ignore[arg-type]


def test_a_label_knows_its_image(pipe: AIMPipeline, pictures: list[Image.Image], desk: Path) -> None:
    found = pipe.classify(desk / "photos", text="What?")
    assert [Path(str(one.image)).name for one in found] == [f"{n}.png" for n in range(4, len(pictures))]
    (desk / "photos" / "3.png").write_bytes(b"no image")
    broken = pipe.classify(desk / "photos", text="What?", on_error=lambda place, error: None)[0]
    assert (broken.label, broken.image) == (None, str(desk / "photos" / "3.png"))
    (one,) = pipe.classify(pictures[4], text="What?")
    assert one.image is pictures[4]


def test_a_selector_that_nearest_does_not_ask_is_refused(label: Label) -> None:
    asked = ("--choices-from-bank", "--text", "What?", "--mode", "nearest")
    assert "--selector random: mode nearest" in label("photos", "a.jsonl", *asked, "--selector", "random")
    assert label("photos", "b.jsonl", *asked, "--selector", "reading").startswith("0 ")
    said = label("photos", "c.jsonl", "--choices", "cat")
    assert "choices: ['cat']; expected at least two" in said


def test_texts_and_text(label: Label, desk: Path) -> None:
    """A `text` that was asked stands in the answers; a message of the command names its option."""
    label("photos", "x.jsonl", "--choices-from-bank", "--text", "What?")
    lines = [json.loads(line) for line in (desk / "x.jsonl").read_text().splitlines()]
    assert {line["text"] for line in lines} == {"What?"}
    (desk / "d.jsonl").write_text(
        "".join(
            json.dumps({"image": f"examples/{n}.png", "text": f"{n}?", "answer": n[:3]}) + "\n"
            for n in ("cat/0", "dog/2")
        )
    )
    said = label("photos", "y.jsonl", "--choices-from-bank", demos="d.jsonl")
    assert said.startswith("1 ")
    assert "Next: pass --text" in said
