"""Folders of photos as they are: odd names, files that are skipped, what changes under its old name."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim_sdk.answering.jobs import AnswerJob
from aim_sdk.answering.queries import identity_of, read_demonstrations, read_queries
from aim_sdk.errors import InputError
from aim_sdk.files.demonstrations import stream_demonstrations
from aim_sdk.files.photo_folders import FolderWarning
from aim_sdk.injection.choices import checked_choices
from tests.answering import SETTINGS, Pipe


def picture(path: Path, shade: int = 0, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(path, kind)
    return path


def run(photos: Path, out: Path, **settings: Any) -> tuple[AnswerJob, list[str]]:
    asked, problems = read_queries(photos)
    with AnswerJob.claimed(out, asked, SETTINGS | settings) as job:
        if job.left:
            job.run(Pipe(), None, mode="aim", shots=None, max_new_tokens=4, batch_size=8)  # type: ignore[arg-type]
    return job, list(problems)


def test_a_photo_whose_name_is_not_utf8_loses_only_itself(tmp_path: Path) -> None:
    good = picture(tmp_path / "photos" / "a.png")
    os.link(os.fsencode(good), os.fsencode(good.parent) + b"/stra\xdfe.png")
    os.link(os.fsencode(good), os.fsencode(good.parent) + b"/\xff.png")
    job, problems = run(good.parent, tmp_path / "out.jsonl")
    assert [line["image"] for line in job.lines()] == ["a.png"]
    assert len(problems) == 2
    assert all("the name is not UTF-8; rename the file" in problem for problem in problems)


def test_a_class_whose_name_is_not_utf8_is_reported(tmp_path: Path) -> None:
    good = picture(tmp_path / "photos" / "a.png")
    odd = os.fsencode(good.parent) + b"/stra\xdfe"
    os.mkdir(odd)
    os.link(os.fsencode(good), odd + b"/b.png")
    asked, problems = read_queries(good.parent, classes=[os.fsdecode(b"stra\xdfe")])
    assert (len(asked), len(problems)) == (1, 1)


def skipped_of(folder: Path) -> tuple[list[str], str, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asked, problems = read_queries(folder)
    said = " ".join(str(one.message) for one in caught if issubclass(one.category, FolderWarning))
    return [item.line.image for item in asked], said, list(problems)


def test_files_that_are_skipped_are_counted_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("b.HEIC", "c.heic", "d.CR2", "e.svg"):
        (tmp_path / name).write_bytes(b"x")
    picture(tmp_path / "below" / "scan")  # no suffix, an image
    picture(tmp_path / "f.jpg.bak", kind="JPEG")
    (tmp_path / "README").write_text("no image")
    for name in ("n.txt", "m.txt", "Thumbs.db", ".DS_Store", "._a.png", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    images, said, problems = skipped_of(tmp_path)
    assert images == ["a.png"]
    (problem,) = problems
    assert problem == (
        f"{tmp_path}: skipped 2 .heic, 1 .cr2, 1 .svg: convert them to JPEG or PNG; "
        "skipped 1 .bak, 1 without a suffix, which hold images: rename them to .jpg or .png."
    )
    assert said == f"{tmp_path}: skipped 2 .txt, 1 without a suffix, 1 .db: not images."


def test_a_folder_of_images_alone_says_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert skipped_of(tmp_path) == (["a.png"], "", [])


def test_examples_are_read_by_the_same_rules(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    (tmp_path / "dog" / "b.txt").write_text("a dog")  # its answer, not skipped
    (tmp_path / "cat" / "c.heic").write_bytes(b"x")
    (tmp_path / "cat" / "._a.png").write_bytes(b"x")
    (tmp_path / "ox").mkdir()
    with pytest.warns(FolderWarning) as caught:
        found, problems = read_demonstrations(tmp_path)
    assert sorted(item.answer for item in found) == ["a dog", "cat"]
    said = [str(one.message) for one in caught]
    assert f"{tmp_path}: no image in the class folder 'ox': such a label is never shown." in said
    assert not any(".txt" in one for one in said)
    assert any("1 .heic" in one for one in [*said, *problems])
    with pytest.warns(FolderWarning):
        assert len(list(stream_demonstrations(tmp_path, on_problem=lambda _: None))) == 2


def test_an_overwritten_photo_is_answered_again(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out.jsonl"
    picture(photos / "a.png", 1)
    picture(photos / "b.png", 2)
    (tmp_path / "q.jsonl").write_text('{"image": "photos/a.png"}\n{"image": "photos/none.png"}\n')
    for queries, place in ((photos, out), (tmp_path / "q.jsonl", tmp_path / "lines.jsonl")):
        picture(photos / "a.png", 1)
        run(queries, place)
        picture(photos / "a.png", 3)
        job, _ = run(queries, place)
        assert job.resumed == 1
        assert len(job.lines()) == 2
        (moved,) = job.aside.read_text().splitlines()
        assert json.loads(moved)["image"].endswith("a.png")
        os.utime(photos / "a.png", (1, 1))  # the same bytes
        assert len(run(queries, place)[0].left) == 0


def test_demonstrations_are_known_by_content_not_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = tmp_path / "examples"
    picture(examples / "cat" / "a.png", 1)
    picture(examples / "dog" / "b.png", 2)
    here = identity_of(read_demonstrations(examples)[0])
    monkeypatch.chdir(tmp_path)
    assert identity_of(read_demonstrations(Path("examples"))[0]) == here
    shutil.copytree(examples, tmp_path / "moved")
    assert identity_of(read_demonstrations(Path("moved"))[0]) == here
    picture(examples / "cat" / "a.png", 9)
    assert identity_of(read_demonstrations(examples)[0]) != here


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: picture(folder / "cat" / "a.png", 9), "demonstrations: other images (2, as before)"),
        (lambda folder: picture(folder / "cat" / "c.png", 9), "demonstrations: 2 there, 3 now"),
        (lambda folder: (folder / "cat").rename(folder / "car"), "demonstrations: other answers (2, as before)"),
    ],
)
def test_other_demonstrations_are_refused_in_words(tmp_path: Path, change: Any, said: str) -> None:
    photos, examples, out = tmp_path / "photos", tmp_path / "examples", tmp_path / "out.jsonl"
    picture(photos / "a.png", 1)
    picture(examples / "cat" / "a.png", 1)
    picture(examples / "dog" / "b.png", 2)
    run(photos, out, demonstrations=identity_of(read_demonstrations(examples)[0]))
    change(examples)
    with pytest.raises(InputError, match="made with other settings") as raised:
        run(photos, out, demonstrations=identity_of(read_demonstrations(examples)[0]))
    assert f"  {said}\n" in str(raised.value)


def test_a_folder_whose_own_name_is_not_utf8_stops_no_job(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/stra\xdfe"))
    picture(folder / "a.png")
    (folder / "d.jsonl").write_text('{"image": "a.png", "text": "?", "answer": "cat"}\n')
    asked, _ = read_queries(folder)
    found, _ = read_demonstrations(folder / "d.jsonl")
    with AnswerJob.claimed(folder / "out.jsonl", asked, SETTINGS) as job:
        job.run(Pipe(), found, mode="text-only", shots=None, max_new_tokens=4, batch_size=8)  # type: ignore[arg-type]
    assert [line["image"] for line in job.lines()] == ["a.png"]
    (shown,) = (folder / "out.jsonl.demonstrations.jsonl").read_text().splitlines()
    assert json.loads(shown)["answer"] == "cat"


def test_a_choice_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"choices: 'caf.udce9' is not text"):
        checked_choices(["caf\udce9", "b"])


def test_what_is_looked_for_in_other_names_is_only_read(tmp_path: Path) -> None:
    """A pipe without a suffix is not waited for, nor a broken link."""
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    images, said, problems = skipped_of(tmp_path)
    assert (images, problems) == (["a.png"], [])
    assert said.endswith("skipped 2 without a suffix: not images.")


def test_many_kinds_of_files_are_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for n in range(40):
        (tmp_path / f"IMG.{n}").write_bytes(b"x")
    assert skipped_of(tmp_path)[1].endswith(", 30 others: not images.")
