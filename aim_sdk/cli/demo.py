"""``aim-icl demo``: the benchmark suite's protocol `demo` on the embedded model, with some of its answers shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aim_sdk.evaluation.examples import ExampleQuery


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for plots, a report and the result file; default: aim-demo or aim-demo-quick."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="8 queries per task: about a minute.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws the demonstrations.")] = 0,
) -> None:
    """Let the embedded model "pocket" learn three tasks from k demonstrations, on images that no training saw.

    Compares AIM with zero-shot, text-only demonstrations, interleaved images, a vote of the nearest demonstrations
    (no prompt), and AIM without images (the control). It is `aim-icl eval --backend pocket --protocol demo` in every
    mode, on some of the queries. After Ctrl-C the same command resumes; when all is answered, it shows it again.
    """
    import shlex
    import sys

    from aim_sdk.evaluation import EvalSettings, evaluate, report
    from aim_sdk.evaluation.examples import examples
    from aim_sdk.evaluation.honest import beaten
    from aim_sdk.support.modes import LABELS
    from aim_sdk.support.terminal import console, say, warn

    folder = out or Path("aim-demo-quick" if quick else "aim-demo")
    settings = EvalSettings(
        output=folder,
        backend="pocket",
        protocol="demo",
        modes=tuple(LABELS),
        seed=seed,
        limit=8 if quick else 36,
        batch_size=18,
        timed=1 if quick else 2,
    )
    say("Loading pocket; the first start converts its weights, about half a minute.", err=True)
    found = evaluate(settings, note=warn, command=shlex.join(sys.argv[1:]))
    if found is None:
        say("interrupted; the same command resumes from there.", err=True)
        raise typer.Exit(130)
    for shown in examples(found, shots=2):
        _print(shown)
    runs = {folder.name: found}
    console().print()
    for grid in [*report.score_grids(runs), *report.mean_grids(runs)]:
        console().print(report.console(grid), "")
    for sentence in beaten(runs):
        say(sentence)
    for path in report.write(runs, folder):
        say(path, err=True)


def _print(shown: ExampleQuery) -> None:
    """Print a query with its demonstrations and answers."""
    from aim_sdk.support.modes import LABELS
    from aim_sdk.support.terminal import cell, console

    out, widest = console(), max(map(len, LABELS.values()))
    out.print(cell(f"\n{shown.title}", "bold"))
    for name, text, answer in shown.demonstrations:
        out.print(cell(f"  demonstration  {name}  {text}  →  {answer}"))
    expected = " or ".join(dict.fromkeys(shown.question.references))
    out.print(cell(f"  query          {shown.question.image}  {shown.question.text}  →  expected {expected}"))
    for mode, found in shown.answers.items():
        mark = cell("right", "green") if found.score else cell("wrong", "red")
        out.print(cell(f"    {LABELS[mode]:<{widest + 1}}{found.answer!r}  ") + mark)
