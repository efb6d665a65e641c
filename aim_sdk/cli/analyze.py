"""``aim-icl analyze``: what a backbone does with its demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from aim_sdk.analysis.attention import InterleavedPrompt
    from aim_sdk.support.terminal import Problems

QUICK = 6

app = typer.Typer(help="What a backbone does with its demonstrations.", no_args_is_help=True)


@app.command("attention")
def attention(
    backend: options.Backend = "pocket",
    model: options.Model = None,
    demonstrations: Annotated[
        Path | None,
        typer.Option("--demonstrations", "--demos", help='JSON lines: {"image": path, "text": ..., "answer": ...}.'),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help='JSON lines: {"image": path, "text": ..., "answer": ...}; no answer: the model\'s own.'),
    ] = None,
    shots: Annotated[int, typer.Option(help="Demonstrations before each query.", min=1)] = 4,
    limit: Annotated[int, typer.Option(help="Queries to measure, from the top.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Draws each query's demonstrations.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for attention.json and attention.png.")] = Path("aim-attention"),
    quick: Annotated[bool, typer.Option("--quick", help=f"At most {QUICK} queries: a first look.")] = False,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
) -> None:
    """Measure how the answer's attention splits between the images and the texts of interleaved demonstrations.

    For each layer: the share of each kind of token (the first token, an attention sink, on its own), the text's part of
    the demonstrations' attention, and the attention per token. Without files the demo's tasks are used, with any
    backend. A query that cannot be used is reported; the exit code is then 3.
    """
    from aim_sdk.analysis import report
    from aim_sdk.analysis.attention import measure, summarize
    from aim_sdk.backend.registry import get_backend
    from aim_sdk.config import PromptFormat
    from aim_sdk.errors import ContextLengthError, InputError
    from aim_sdk.support.progress import advancing
    from aim_sdk.support.terminal import console, say, warn_all

    if (demonstrations is None) != (queries is None):
        raise InputError("analyze attention: pass --demonstrations and --queries, or neither (the demo's tasks).")
    _make_folder(out)
    limit = min(limit, QUICK) if quick else limit
    with console(err=True).status(f"loading {backend}"):
        loaded = get_backend(backend).from_pretrained(
            model, device=device, dtype=dtype, **options.of_backend(option, trust_remote_code)
        )
    prompts, problems = _prompts(demonstrations, queries, shots=shots, limit=limit, seed=seed)
    form = loaded.default_format if template is None else PromptFormat.plain(template)
    measurements = []
    with advancing("measuring", len(prompts)) as advance:
        for prompt in prompts:
            try:
                measurements.append(measure(loaded, prompt, form))
            except ContextLengthError:  # the next query would not fit either
                raise
            except InputError as error:
                problems.add(f"query {prompt.group}: {error}")
            advance(1)
    warn_all(problems)
    if not measurements:
        raise InputError("analyze attention: no query could be measured.")
    rows = summarize(measurements)
    settings = {"shots": shots, "limit": limit, "seed": seed, "queries": len(measurements)}
    report.write_result(out / "attention.json", loaded, form, rows, measurements, settings)
    report.plot(rows, measurements, out / "attention.png")
    console().print(report.table(rows, measurements))
    say(f"Plot: {out / 'attention.png'}\nResult: {out / 'attention.json'}", err=True)
    if problems:
        raise typer.Exit(3)


def _prompts(
    demonstrations: Path | None, queries: Path | None, *, shots: int, limit: int, seed: int
) -> tuple[list[InterleavedPrompt], Problems]:
    """Return the prompts to measure and a message for each bad line."""
    from aim_sdk.analysis.prompts import from_files, from_tasks
    from aim_sdk.answering.queries import read_demonstrations, read_queries
    from aim_sdk.evaluation.plan import draws
    from aim_sdk.evaluation.protocol import get_protocol
    from aim_sdk.support.terminal import Problems

    if demonstrations is not None and queries is not None:
        shown, bad_demonstrations = read_demonstrations(demonstrations)
        asked, bad_queries = read_queries(queries)
        return from_files(shown, asked[:limit], shots=shots, seed=seed), bad_demonstrations + bad_queries
    demo = get_protocol("demo")
    drawn = {task: draws(task, demo, shots=shots, limit=-(-limit // len(demo.tasks)), seed=seed) for task in demo.tasks}
    return from_tasks(drawn)[:limit], Problems()


def _make_folder(path: Path) -> None:
    from aim_sdk.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be created ({error.strerror}).") from error
