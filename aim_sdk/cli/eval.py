"""``aim-icl eval``: the benchmark suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from aim_sdk.evaluation import EvalSettings

app = typer.Typer(
    help="Measure few-shot answers: `aim-icl eval --backend NAME --tasks NAME,...`",
    invoke_without_command=True,
    subcommand_metavar="[run | tasks | protocols | report | compare]",
)

Data = Annotated[Path, typer.Option(help="Folder of the tasks' folders.", envvar="AIM_DATA")]


@app.callback()
def evaluate(
    context: typer.Context,
    backend: Annotated[str | None, typer.Option(help="`aim-icl backends list` shows the names.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Names or paths of YAML files, separated by commas; default: the protocol's.")
    ] = None,
    model: options.Model = None,
    projector: options.Projector = None,
    protocol: Annotated[str, typer.Option(help="`aim-icl eval protocols` shows them; or a YAML file.")] = "aim",
    shots: Annotated[str | None, typer.Option(help="`0,4,8,16`; default: the protocol's.")] = None,
    modes: Annotated[
        str,
        typer.Option(help="zero-shot, text-only, interleaved, aim, nearest, no-image (the control)."),
    ] = "zero-shot,text-only,interleaved,aim,nearest",
    selector: Annotated[str, typer.Option(help="random, or one that looks for similar demonstrations.")] = "random",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; default: the protocol's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Queries per task, drawn at random; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per forward.")] = 8,
    data: Data = Path("data"),
    bank: Annotated[
        Path | None, typer.Option(help="An existing bank: show its demonstrations, not the tasks' own.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Keep fused tokens there between runs.")] = None,
    output: Annotated[Path, typer.Option(help="The run's folder; the same command resumes it.")] = Path("aim-eval"),
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
) -> None:
    """Measure few-shot answers, or resume an interrupted run.

    Every answer is saved as soon as it is made: after Ctrl-C or a crash the same command resumes. If queries were
    refused (a damaged image, say), all others are answered, and the exit code is 3. On several GPUs:
    `torchrun --nproc_per_node 4 -m aim_sdk.cli eval ...`. Needs the extra `eval`.
    """
    if context.invoked_subcommand is not None:
        _options_of_no_command(context)
        return
    if backend is None and tasks is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    from pydantic import ValidationError

    from aim_sdk.errors import InputError
    from aim_sdk.evaluation import EvalSettings
    from aim_sdk.files.yaml_files import described

    if backend is None:
        raise InputError("aim-icl eval: --backend is missing. `aim-icl backends list` shows the names.")
    listed = {
        "tasks": None if tasks is None else _names(tasks),
        "modes": _names(modes),
        "shots": None if shots is None else _names(shots),
        "backend_options": options.of_backend(option, trust_remote_code=False),
    }
    try:
        given = {name: value for name, value in context.params.items() if name != "option"}
        settings = EvalSettings.model_validate(given | listed)
    except ValidationError as error:
        raise InputError(f"aim-icl eval:{described(EvalSettings, error)}") from error
    _run(settings)


@app.command("run", context_settings={"ignore_unknown_options": True})
def run_file(
    config: Annotated[Path, typer.Argument(help="A YAML file of settings, named as the options of `aim-icl eval`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's: `projector=runs/mine/projector shots=[0,4]`."),
    ] = None,
) -> None:
    """Measure few-shot answers as a file says, or resume an interrupted run; `aim-icl eval` explains the settings.

    If queries were refused, the exit code is 3.
    """
    from aim_sdk.evaluation import EvalSettings
    from aim_sdk.files.yaml_files import read_yaml

    _run(read_yaml(config, EvalSettings, overrides or []))


@app.command("tasks")
def list_tasks(data: Data = Path("data")) -> None:
    """List the tasks: which can run, what is missing on disk and where it belongs."""
    from aim_sdk.evaluation.tasks import status
    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import cell, console

    rows = [
        [row.name, cell("ready", "green") if row.ready else cell("missing", "yellow"), row.metric, row.missing]
        for row in status(data)
    ]
    console().print(FittedTable(("task", "", "metric", "missing"), rows, keys=3))


@app.command("protocols")
def list_protocols() -> None:
    """List the protocols, and what differs in them from the original code."""
    from aim_sdk.evaluation import protocol
    from aim_sdk.support.terminal import cell, console

    out = console()
    for found in protocol.list_protocols():
        out.print(cell(found.name, "bold") + cell(f"  {found.description}"))
        out.print(cell(f"  source: {found.source}"))
        shots = ", ".join(map(str, found.shots))
        out.print(cell(f"  shots {shots}; seeds {found.seeds}; for: {', '.join(found.prompts)}"))
        for deviation in found.deviations:
            out.print(cell(f"  differs: {deviation}"))


@app.command("report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders or result files of runs.")],
    output: Annotated[Path, typer.Option(help="Folder for report.md, report.html and the plots.")] = Path("aim-report"),
) -> None:
    """Write a table and plots of one or more runs, as Markdown and HTML."""
    _write_report(runs, output)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder or result file.")],
    second: Annotated[Path, typer.Argument(help="Another run, or the same one with --modes.")],
    modes: Annotated[
        str | None, typer.Option(help="Two modes, `text-only,aim`: the first run's against the second's.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these, separated by commas; default: all of both.")] = None,
    shots: Annotated[str | None, typer.Option(help="Only these, `4,8`; default: all of both.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """Compare two runs query by query: differences, their errors and intervals, p values.

    p (Holm) is corrected for all rows: use --tasks and --shots to leave out rows that you do not ask about.
    """
    from aim_sdk.errors import InputError
    from aim_sdk.evaluation import compare as comparison
    from aim_sdk.evaluation.paired import unchecked
    from aim_sdk.evaluation.results import Run
    from aim_sdk.support.fitted import apart
    from aim_sdk.support.terminal import console, say, warn

    pair = None if modes is None else comparison.modes_of(_names(modes))
    one, other = Run.load(first), Run.load(second)
    same = (one.date, one.answers) == (other.date, other.answers)
    if same and (pair is None or pair[0] == pair[1]):
        raise InputError(
            "both are the same run, which does not differ from itself. Next: name two modes of it, as in "
            "`--modes text-only,aim`, or another run."
        )
    numbers = _numbers(shots)
    found = comparison.compare(one, other, modes=pair, tasks=_names(tasks or ""), shots=numbers)
    _, (left, right) = apart([str(first), str(second)])
    if not same and (tasks_of_before := unchecked(one, other)):
        warn(
            f"{', '.join(tasks_of_before)}: a result of an earlier version does not say what was asked: queries are "
            "matched by their ids alone."
        )
    if markdown:
        say(comparison.markdown(found, (left, right)).removesuffix("\n"))
    else:
        console().print(comparison.table(found, (left, right)))


def _options_of_no_command(context: typer.Context) -> None:
    """Refuse options before a subcommand, which has its own.

    Raises:
        InputError: it names them.
    """
    from aim_sdk.errors import InputError

    sources = {name: context.get_parameter_source(name) for name in context.params}
    if given := [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]:
        command, name = context.invoked_subcommand, given[0]
        told = f"--{name.replace('_', '-')}"
        after = f"{name}={context.params[name]}" if command == "run" else "the command's own options"
        raise InputError(
            f"aim-icl eval {told} ... {command}: {command!r} does not take the options before it. "
            f"Next: write {after} after {command!r}."
        )


def _run(settings: EvalSettings) -> None:
    import shlex
    import sys

    from aim_sdk.evaluation.names import check_names
    from aim_sdk.support.terminal import say, warn

    check_names(settings)
    from functools import partial

    from aim_sdk.evaluation import evaluate as run  # imports torch

    first = os.environ.get("RANK", "0") == "0"  # torchrun's: one process speaks
    result = run(
        settings, note=warn, foresee=partial(say, err=True), command=shlex.join(options.without_keys(sys.argv[1:]))
    )
    if not first:
        raise typer.Exit
    if result is None:
        say("interrupted; the same command resumes from there.", err=True)
        raise typer.Exit(130)
    _write_report([settings.output], settings.output)
    if any(score.refused for score in result.scores):
        raise typer.Exit(3)


def _write_report(paths: list[Path], output: Path) -> None:
    from aim_sdk.evaluation import report
    from aim_sdk.evaluation.honest import beaten, refusals
    from aim_sdk.evaluation.results import Run
    from aim_sdk.support.fitted import apart
    from aim_sdk.support.terminal import console, say

    shared, names = apart([str(path) for path in paths])
    runs = {name: Run.load(path) for name, path in zip(names, paths, strict=True)}
    if shared and len(runs) > 1:
        say(f"Runs are named by the part of their paths that differs: all are in {shared}", err=True)
    for table in report.tables(runs):
        console().print(table, "")
    for sentence in [*beaten(runs), *refusals(runs)]:
        say(sentence)
    for path in report.write(runs, output):
        say(path, err=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str | None) -> list[int]:
    from aim_sdk.errors import InputError

    names = _names(text or "")
    if wrong := [name for name in names if not name.isdecimal()]:
        raise InputError(f"--shots {wrong[0]!r}: expected whole numbers, as in 4,8.")
    return [int(name) for name in names]
