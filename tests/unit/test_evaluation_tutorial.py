"""The tutorial's table for LaTeX, of runs as people have them: modes left out, refused queries, names with signs."""

import math
import re
from pathlib import Path

import pytest

from tests.evaluation_runs import cells, run

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "table-for-my-paper.md"


def script() -> str:
    (found,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        if "Run.load" in block
    ]
    return str(found)


def table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    exec(compile(script(), "table", "exec"), {"Path": Path})  # the page's own code
    return (folder / "table.tex").read_text().splitlines()


def test_a_mode_that_a_task_does_not_have_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run([*cells("zero-shot", 0, {0: [0, 100]}), *cells("nearest", 4, {0: [100, 100]}, task="my_words")])
    made.save(tmp_path / "runs" / "pocket")
    head, zero, near = table(tmp_path, monkeypatch)[1:-1]
    assert head == r"$k=4$ & colours ($n=2$) & my\_words ($n=2$) \\ \hline"
    assert zero == r"zero-shot & $50.0 \pm 3.0$ & -- \\"
    assert near == r"nearest & -- & $100.0 \pm 3.0$ \\"


def test_a_cell_without_a_number_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(cells("aim", 4, {0: [0, None]}), value=math.nan, standard_error=math.nan, refused=1)
    made.save(tmp_path / "runs" / "pocket")
    lines = table(tmp_path, monkeypatch)
    assert lines[2] == r"aim & n/a \\"
    assert not any("nan" in line for line in lines)
