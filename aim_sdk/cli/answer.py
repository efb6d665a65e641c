"""``aim-icl answer``: queries from a file, answers to a file."""

from pathlib import Path
from typing import Annotated

import typer

from aim_sdk.cli import options


def answer(
    queries: Annotated[Path, typer.Option(help='JSON lines: {"image": path, "text": ...}; more fields are kept.')],
    out: Annotated[Path, typer.Option(help="JSON lines, one a query; an existing file is continued.")],
    demos: Annotated[Path | None, typer.Option(help='JSON lines: {"image": path, "text": ..., "answer": ...}.')] = None,
    bank: Annotated[Path | None, typer.Option(help="A bank's folder, in place of --demos.")] = None,
    selector: Annotated[
        str, typer.Option(help="With --bank: first | random | reading | rices | text | mmices.")
    ] = "first",
    backend: options.Backend = "pocket",
    model: options.Model = None,
    projector: options.Projector = None,
    mode: Annotated[str, typer.Option(help="aim | text-only | interleaved | zero-shot | no-image.")] = "aim",
    shots: Annotated[int | None, typer.Option(help="Demonstrations to use, from the top; default: all.", min=0)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 32,
    batch_size: Annotated[int, typer.Option(help="Queries a forward.", min=1)] = 8,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Answer the queries of a file behind the demonstrations of another, or of a bank.

    Image paths are relative to the file that names them. Every finished batch is on disk: run the same command again
    after an interruption and it goes on. A bad line is reported with its number and does not lose the others; the exit
    code is then 3.
    """
    from aim_sdk.answer_files import AnswerJob, read_demonstrations, read_queries
    from aim_sdk.bank.disk import INDEX
    from aim_sdk.config import PromptFormat
    from aim_sdk.errors import ArtifactNotFoundError, InputError
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.selection import get_selector

    if (demos is None) == (bank is None):
        raise InputError("answer: pass --demos FILE or --bank FOLDER.")
    if bank is not None and not (bank / INDEX).exists():
        raise ArtifactNotFoundError(f"{bank}: no bank is there. `aim-icl bank add {bank} demos.jsonl` makes one.")
    get_selector(selector)
    shown, bad_demos = (None, []) if demos is None else read_demonstrations(demos)
    asked, bad_queries = read_queries(queries)
    for problem in [*bad_demos, *bad_queries]:
        typer.secho(problem, fg=typer.colors.YELLOW, err=True)
    job = AnswerJob(out, asked)
    if job.resumed:
        typer.echo(f"{out}: {job.resumed} answers are there; going on.", err=True)
    unread: list[str] = []
    try:
        if job.left:
            pipe = AIMPipeline.from_pretrained(
                backend,
                model=model,
                projector=projector,
                device=device,
                dtype=dtype,
                bank=bank,
                selector=selector,
                prompt_format=None if template is None else PromptFormat.plain(template),
            )
            unread = job.run(pipe, shown, mode=mode, shots=shots, max_new_tokens=max_new_tokens, batch_size=batch_size)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {job.answered} answers are kept; run the same command again to go on.", err=True)
        raise typer.Exit(130) from None
    for problem in unread:
        typer.secho(problem, fg=typer.colors.YELLOW, err=True)
    typer.echo(f"{out}: {job.answered} answers of {len(asked)} queries.", err=True)
    if bad_demos or bad_queries or unread:
        raise typer.Exit(3)
