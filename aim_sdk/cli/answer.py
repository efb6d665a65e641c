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
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Answer the queries of a file behind the demonstrations of another, or of a bank.

    Image paths are relative to the file that names them. Every finished batch is on disk: run the same command again
    after an interruption and it goes on. A bad line is reported with its number and does not lose the others; the exit
    code is then 3.
    """
    from aim_sdk.answer_files import digest_of, read_demonstrations, read_queries
    from aim_sdk.answer_jobs import AnswerJob
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.config import PromptFormat
    from aim_sdk.contexts import MODES
    from aim_sdk.errors import InputError, did_you_mean
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.selection import get_selector
    from aim_sdk.terminal import Problems, say, warn_all

    if (demos is None) == (bank is None):
        raise InputError("answer: pass --demos FILE or --bank FOLDER.")
    if bank is not None:
        DemonstrationBank.open(bank).close()  # there must be one, which is known before the model is loaded
    if mode not in MODES:
        raise InputError(f"--mode {mode!r}.{did_you_mean(mode, MODES)} Expected one of: {', '.join(MODES)}.")
    get_selector(selector)
    shown, bad_demos = (None, Problems()) if demos is None else read_demonstrations(demos)
    asked, bad_queries = read_queries(queries)
    unusable = bad_demos + bad_queries
    warn_all(unusable)
    settings = {
        "backend": backend,
        "model": model,
        "projector": projector,
        "template": template,
        "dtype": dtype,
        "mode": mode,
        "shots": shots,
        "max_new_tokens": max_new_tokens,
        "demonstrations": None if shown is None else digest_of(shown),
        "selector": None if bank is None else selector,
    }
    refused = Problems()
    with AnswerJob.claimed(out, asked, settings) as job:
        if job.resumed:
            say(f"{out}: {job.resumed} answers are there; going on.", err=True)
        if job.stale:
            say(f"{out}: {job.stale} answers there are of queries that changed or are not in {queries}.", err=True)
        try:
            if job.left:
                pipe = AIMPipeline.from_pretrained(
                    backend,
                    model=model,
                    projector=projector,
                    device=device,
                    dtype=dtype,
                    trust_remote_code=trust_remote_code,
                    bank=bank,
                    selector=selector,
                    prompt_format=None if template is None else PromptFormat.plain(template),
                )
                refused = job.run(
                    pipe, shown, mode=mode, shots=shots, max_new_tokens=max_new_tokens, batch_size=batch_size
                )
        except KeyboardInterrupt:
            kept = f"interrupted: {job.answered} answers are kept; run the same command again to go on."
            say(kept, err=True)
            raise typer.Exit(130) from None
    warn_all(refused)
    say(f"{out}: {job.answered} answers of {len(asked)} queries.", err=True)
    if unusable or refused:
        raise typer.Exit(3)
