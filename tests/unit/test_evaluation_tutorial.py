"""The tutorial's table for LaTeX, of runs as people have them: modes left out, refused queries, names with signs."""

import ast
import builtins
import math
import re
from pathlib import Path

import pytest

from tests.evaluation_runs import cells, run

IMPORTS = (ast.Import, ast.ImportFrom)
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
    exec(compile(script(), "table", "exec"), {})  # the page's own code, saved alone
    return (folder / "table.tex").read_text().splitlines()


def test_a_mode_that_a_task_does_not_have_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run([*cells("zero-shot", 0, {0: [0, 100]}), *cells("nearest", 4, {0: [100, 100]}, task="my_words")])
    made.save(tmp_path / "runs" / "pocket")
    head, zero, near = table(tmp_path, monkeypatch)[1:-1]
    assert head == r"$k=4$ & colours ($n=2$) & my\_words ($n=2$) \\ \hline"
    assert zero == r"zero-shot & $50.0 \pm 3.0$ & -- \\"
    assert near == r"nearest & -- & $100.0 \pm 3.0$ \\"


def test_the_shots_are_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run([*cells("zero-shot", 0, {0: [0, 100]}), *cells("aim", 2, {0: [0, 0]}), *cells("aim", 8, {0: [100, 0]})]).save(
        tmp_path / "runs" / "pocket"
    )
    head, *rows = table(tmp_path, monkeypatch)[1:-1]
    assert head.startswith("$k=8$")
    assert rows == [r"zero-shot & $50.0 \pm 3.0$ \\", r"aim & $50.0 \pm 3.0$ \\"]


def missing_names(block: str) -> set[str]:
    """What a block uses and does not define."""
    nodes = list(ast.walk(ast.parse(block)))
    named = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in named if not isinstance(node.ctx, ast.Load)}
    made |= {alias.asname or alias.name.split(".")[0] for n in nodes if isinstance(n, IMPORTS) for alias in n.names}
    made |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    return {node.id for node in named if isinstance(node.ctx, ast.Load)} - made - set(dir(builtins))


@pytest.mark.parametrize("page", sorted(PAGE.parent.glob("*.md")), ids=lambda page: page.stem)
def test_a_block_of_a_tutorial_runs_alone_or_says_that_it_continues_another(page: Path) -> None:
    assert missing_names("import json\nPath(json.x, [y for y in print])") == {"Path"}
    for text, block in re.findall(r"(?s)(.*?)```python\n(.*?)```", page.read_text(encoding="utf-8")):
        said = [part for part in text.split("\n\n") if part.strip()][-1]
        assert not missing_names(block) or "continue" in said, f"{said}\n{block}\nlacks {missing_names(block)}"


def test_a_cell_without_a_number_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(cells("aim", 4, {0: [0, None]}), value=math.nan, standard_error=math.nan, refused=1)
    made.save(tmp_path / "runs" / "pocket")
    lines = table(tmp_path, monkeypatch)
    assert lines[2] == r"aim & n/a \\"
    assert not any("nan" in line for line in lines)
