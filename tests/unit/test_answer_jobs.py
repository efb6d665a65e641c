"""An answers file: only ours is continued, with the same settings, by one job at a time, and no answer is lost."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aim_sdk.errors import ArtifactWriteError, InputError
from aim_sdk.types import Demonstration
from tests.answering import Pipe, answer


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    lines = [json.dumps({"image": "a.png", "text": f"query {n}", "id": n, "answer": "gold"}) for n in range(20)]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(lines))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def start(queries: Path, out: Path, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.answering", str(queries), str(out), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "content",
    [b'{"a": 1}', b'{"key": "a"}\n{"key', b'{"key": "a", "line": 1, "answer": "b"}\n', b"notes\n", b"\0" * 100, b"\n"],
)
def test_a_file_that_is_not_ours_is_not_touched(tmp_path: Path, queries: Path, content: bytes) -> None:
    out = tmp_path / "out"
    out.write_bytes(content)
    before = out.stat()
    with pytest.raises(InputError, match="is not a file of answers"):
        answer(queries, out)
    assert out.read_bytes() == content
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    answer(queries, tmp_path / "ours")
    (tmp_path / "out.settings.json").write_bytes((tmp_path / "ours.settings.json").read_bytes())
    if content != b'{"key": "a", "line": 1, "answer": "b"}\n' and content.endswith(b"\n"):
        with pytest.raises(InputError, match=r"not a file of answers \(line 1: .*nothing was changed"):
            answer(queries, out)
        assert out.read_bytes() == content


def test_nothing_is_written_before_there_is_a_model(tmp_path: Path, queries: Path) -> None:
    from aim_sdk.answering.jobs import AnswerJob
    from aim_sdk.answering.queries import read_queries

    asked, _ = read_queries(queries)
    with AnswerJob.claimed(tmp_path / "out", asked, {}) as job:
        assert len(job.left) == 20
    assert {path.name for path in tmp_path.iterdir()} == {"queries.jsonl", ".out.lock"}
    (tmp_path / "out").touch()  # mktemp's
    answer(queries, tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 20


@pytest.mark.parametrize("place", [*range(1, 60, 7), -1])
def test_a_cut_end_is_answered_again(tmp_path: Path, queries: Path, place: int) -> None:
    out = tmp_path / "out"
    answer(queries, out)
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]) + whole.splitlines(keepends=True)[5][:place])
    job, _ = answer(queries, out)
    assert job.resumed == (6 if place == -1 else 5)  # an editor may take the last line feed; the answer is whole
    assert out.read_bytes() == whole


def test_other_settings_or_another_model_are_refused_and_named(tmp_path: Path, queries: Path) -> None:
    out = tmp_path / "out"
    answer(queries, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match='mode: "aim" there, "text-only" now'):
        answer(queries, out, mode="text-only")
    out.write_bytes(before[: before.index(b"\n") + 1])
    with pytest.raises(InputError, match="fingerprint: "):
        answer(queries, out, Pipe(scope="another projector"))
    assert out.read_bytes() == before[: before.index(b"\n") + 1]
    out.unlink()
    answer(queries, out, mode="text-only")  # the answers are gone, so the settings beside them bind no one
    assert len(lines(out)) == 20


def test_a_refused_query_or_demonstration_loses_only_itself(tmp_path: Path, queries: Path) -> None:
    with queries.open("a") as file:
        for text in ("an <image>", "x" * 101, "last"):
            file.write("\n" + json.dumps({"image": "a.png", "text": text}))
    texts = ["fine", "the <image>", "y" * 101, "fine", "good"]
    demonstrations = [Demonstration(f"{n}.png", text, f"{n}") for n, text in enumerate(texts)]
    _, problems = answer(queries, tmp_path / "out", demonstrations=demonstrations)
    found = lines(tmp_path / "out")
    assert [line["line"] for line in found] == [*range(1, 21), 23]
    assert found[0] == {
        **{"image": "a.png", "text": "query 0", "id": 0, "reference": "gold", "prompt_tokens": 7, "line": 1},
        **{"answer": "034: 0 yreuq", "demonstrations": [], "key": found[0]["key"]},
    }
    said = list(problems)
    assert [one.split(":")[0] for one in said] == [
        "demonstration 1.png",
        "demonstration 2.png",
        "query of line 21",
        "query of line 22",
    ]
    again, problems = answer(queries, tmp_path / "out", demonstrations=demonstrations)
    assert len(again.left) == len(problems) - 2 == 2
    assert lines(tmp_path / "out") == found
    with pytest.raises(InputError, match=r"no demonstration can be used:\n  demonstration 1\.png"):
        answer(queries, tmp_path / "other", demonstrations=demonstrations[1:3])


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_keeps_whole_batches(tmp_path: Path, queries: Path, failing: str) -> None:
    answer(queries, tmp_path / "whole")
    out, whole = tmp_path / "out", (tmp_path / "whole").read_bytes()
    script = f"""
import os, resource, signal
from pathlib import Path
from aim_sdk.errors import ArtifactWriteError
from tests.answering import Pipe, answer
class Filling(Pipe):
    def generate(self, *args, **kwargs):
        if {failing!r} == "write" and len(self.asked) == 9:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            size = os.path.getsize({str(out)!r}) + 40
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        elif len(self.asked) == 9:
            def full(_): raise OSError(28, "No space left on device")
            os.fsync = full
        return super().generate(*args, **kwargs)
try:
    answer(Path({str(queries)!r}), Path({str(out)!r}), Filling())
except ArtifactWriteError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    reason = "File too large" if failing == "write" else "No space left on device"
    assert run.stdout.startswith(f"{out}: cannot be written ({reason}). The batches before are kept.")
    assert out.read_bytes() == b"".join(whole.splitlines(keepends=True)[:9])
    answer(queries, out)
    assert out.read_bytes() == whole


@pytest.mark.slow
def test_two_jobs_on_one_file(tmp_path: Path, queries: Path) -> None:
    out = tmp_path / "out"
    first = start(queries, out, 60)
    while not out.exists():
        assert first.poll() is None
        time.sleep(0.01)
    others = [start(queries, out, 0) for _ in range(3)]
    for other in others:
        _, said = other.communicate(timeout=60)
        assert other.returncode == 1
        assert said.startswith("ArtifactWriteError: ")
        assert "another job is writing" in said
    first.kill()
    first.communicate(timeout=60)
    answer(queries, out)  # the lock ended with its process
    assert [line["line"] for line in lines(out)] == list(range(1, 21))


@pytest.mark.slow
def test_kills_lose_no_finished_batch_and_the_answers_are_the_same(tmp_path: Path, queries: Path) -> None:
    answer(queries, tmp_path / "whole")
    whole, out, dice = (tmp_path / "whole").read_bytes(), tmp_path / "out", random.Random(5)
    kept = b""
    for _ in range(4):
        process = start(queries, out, 0.02)
        grown = len(kept) + dice.randint(1, 400)
        while process.poll() is None and (not out.exists() or out.stat().st_size < grown):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        kept = out.read_bytes()
        assert whole.startswith(kept)
    answer(queries, out)
    assert out.read_bytes() == whole


def test_another_place_than_a_file(tmp_path: Path, queries: Path) -> None:
    for out in (tmp_path, Path("/dev/null"), Path("/dev/stdout")):
        with pytest.raises(InputError, match="not a regular file"):
            answer(queries, out)
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactWriteError, match="cannot be written"):
        answer(queries, tmp_path / "file" / "out")


def test_fields_that_clash_are_kept_under_another_name(tmp_path: Path) -> None:
    fields = {"key": "own", "query_key": "too", "line": 7, "prompt_tokens": 1, "demonstrations": "x", "note": "n"}
    asked = {"image": "a.png", "text": "t", "reference": "r", "answer": "gold", **fields}
    (tmp_path / "q").write_text(json.dumps(asked))
    answer(tmp_path / "q", tmp_path / "out")
    (found,) = lines(tmp_path / "out")
    assert found["reference"] == "gold"
    assert found["query_reference"] == "r"
    assert {name: found[name] for name in ("query_query_key", "query_key", "query_line", "note")} == {
        **{"query_query_key": "own", "query_key": "too", "query_line": 7, "note": "n"}
    }
    assert (found["query_prompt_tokens"], found["query_demonstrations"]) == (1, "x")
    assert (found["line"], found["prompt_tokens"], found["demonstrations"]) == (1, 7, [])


def test_answers_of_changed_queries_move_aside(tmp_path: Path, queries: Path) -> None:
    out = tmp_path / "out"
    answer(queries, out)
    whole = lines(out)
    changed = queries.read_text().splitlines()
    changed[3] = changed[3].replace("query 3", "another")
    queries.write_text("\n".join(changed[:19]))  # and the last one is gone
    job, _ = answer(queries, out)
    assert (job.resumed, job.answered) == (18, 19)
    assert [line["text"] for line in lines(out)] == [
        *(f"query {n}" for n in range(19) if n != 3),
        "another",
    ]
    assert [line["text"] for line in job.lines()] == [line["text"] for line in map(json.loads, changed[:19])]
    aside = tmp_path / "out.stale.jsonl"
    assert lines(aside) == [whole[3], whole[19]]
    again, _ = answer(queries, out)
    assert (again.stale, len(again.left)) == (0, 0)
    out.write_text("".join(json.dumps(line) + "\n" for line in whole))  # as if killed between the two writes
    answer(queries, out)
    assert [line["text"] for line in lines(aside)].count("query 3") == 1


def test_where_a_query_stands_does_not_matter(tmp_path: Path, queries: Path) -> None:
    out = tmp_path / "out"
    answer(queries, out)
    whole, before = lines(out), queries.read_text().splitlines()
    queries.write_text("\n".join([before[0].replace("query 0", "new"), *reversed(before)]))
    pipe = Pipe()
    job, _ = answer(queries, out, pipe)
    assert (job.resumed, pipe.asked) == (20, ["new"])
    assert not (tmp_path / "out.stale.jsonl").exists()
    found = {line["text"]: line for line in lines(out)}
    assert [found[f"query {n}"]["line"] for n in range(20)] == [*range(21, 1, -1)]
    assert [line["text"] for line in job.lines()] == ["new", *(f"query {n}" for n in reversed(range(20)))]
    assert [found[line["text"]] | {"line": 0} for line in whole] == [line | {"line": 0} for line in whole]


def test_equal_queries_are_told_apart_by_their_order(tmp_path: Path, queries: Path) -> None:
    out, (first, second, *_) = tmp_path / "out", queries.read_text().splitlines()
    queries.write_text("\n".join([first, second, first, first]))
    job, _ = answer(queries, out)
    assert len({line["key"] for line in lines(out)}) == 4
    queries.write_text("\n".join([second, first, first]))
    job, _ = answer(queries, out)
    job.settle()
    assert (job.resumed, len(job.left)) == (3, 0)
    assert [(line["line"], line["text"]) for line in job.lines()] == [(1, "query 1"), (2, "query 0"), (3, "query 0")]


def test_answers_of_a_development_version_are_refused(tmp_path: Path, queries: Path) -> None:
    out, settings = tmp_path / "out", tmp_path / "out.settings.json"
    answer(queries, out)
    kept, before = json.loads(settings.read_text()), out.read_bytes()
    settings.write_text(json.dumps({name: value for name, value in kept.items() if name != "keys"}))
    with pytest.raises(InputError, match="a development version made them, which found a query's answer by its line's"):
        answer(queries, out)
    assert out.read_bytes() == before
