"""Long work shows itself: a bar on a terminal, plain lines elsewhere; never more done than there is."""

import io
import re
import sys
import time

import pytest

from aim_sdk.support import progress
from aim_sdk.support.progress import Progress, advancing, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.05)


def counts(text: str) -> list[tuple[int, int]]:
    return [(int(done), int(total)) for done, total in re.findall(r"(\d+)/(\d+)", text)]


@pytest.mark.usefixtures("hasty")
def test_a_file_gets_plain_lines_while_one_item_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with advancing("reading", 40) as advance:
        advance(10)
        time.sleep(0.2)
        before = capsys.readouterr().err
        assert before.startswith("reading: 10/40, "), "a line comes before the next item is done"
        advance(30)
    written = before + capsys.readouterr().err
    lines = written.splitlines()
    assert lines[-1].startswith("reading: 40/40, ")
    line = r"reading: \d+/40, [\d.,]+ per second, 0:00:0\d so far(, 0:00:0\d left)?"
    assert all(re.fullmatch(line, x) for x in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", written), "no control characters in a log"


def test_short_work_writes_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with advancing("reading", 40) as advance:
        advance(40)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hasty")
def test_what_is_not_shown_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with advancing("reading", 40, shown=False):
        time.sleep(0.12)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_more_than_there_is_is_never_done(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := stream())
    with advancing("reading", 40) as advance:
        for _ in range(43):
            advance(1)
        time.sleep(0.12)
    found = counts(shown.getvalue())
    assert found
    assert all(done <= total for done, total in found)


@pytest.mark.usefixtures("hasty")
def test_lines_end_with_an_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with advancing("reading", None) as advance:
            advance(3)
            time.sleep(0.12)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    written = capsys.readouterr().err
    assert written.endswith("\n")
    assert "reading: 3, " in written


def test_work_within_work_shares_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with Progress("training, steps", 8, done=2) as outer, advancing("evaluating", 4) as advance:
        advance(4)
        outer.state("loss 1.5")
    with advancing("again", 1) as advance:
        advance(1)
    for part in ("training, steps", "2/8", "evaluating", "again"):
        assert part in shown.getvalue()


def test_a_pace_does_not_count_what_was_done_before() -> None:
    work = Progress("steps", 100, done=90)
    assert "90/100, 0:00:00 so far" in work.line()
    work.advance(5)
    assert work.line().startswith("steps: 95/100")


def test_the_time_left_does_not_count_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    work = Progress("labelling", 32)
    now[0] = 50
    work.advance(1)
    assert work.line() == "labelling: 1/32, 1.2 per minute, 0:00:50 so far"
    now[0] = 66
    work.advance(8)
    assert work.line() == "labelling: 9/32, 30.0 per minute, 0:01:06 so far, 0:00:46 left"


@pytest.mark.usefixtures("hasty")
def test_work_that_waits_for_other_work_writes_nothing_and_keeps_its_pace(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training, steps", 100) as work:
        with work.paused(), advancing("evaluating", 8):
            time.sleep(0.2)
        assert "training" not in capsys.readouterr().err
        work.advance(1)
        pace = re.search(r"([\d.,]+) per second", work.line())
        assert pace is not None
        assert float(pace[1].replace(",", "")) > 5, "one step in no time, not in .2 s"


def test_clock() -> None:
    assert [clock(0), clock(59.6), clock(3725)] == ["0:00:00", "0:01:00", "1:02:05"]
