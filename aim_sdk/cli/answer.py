"""``aim-icl answer``: queries from a file or a folder, answers or labels to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from aim_sdk.answering.jobs import AnswerJob
    from aim_sdk.answering.queries import NumberedQuery
    from aim_sdk.types import Demonstration, Mode


def answer(
    context: typer.Context,
    queries: Annotated[
        Path,
        typer.Option(help='JSON lines {"image": path, "text": ...}, CSV with such columns, or a folder of images.'),
    ],
    out: Annotated[Path, typer.Option(help="x.jsonl or x.csv; an existing file is continued.")],
    demos: Annotated[
        Path | None, typer.Option(help="As --queries, with an answer; in a folder, a subfolder per answer.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="A bank's folder, instead of --demos.")] = None,
    selector: Annotated[
        str,
        typer.Option(
            help="Chooses demonstrations: reading (similar) | agreed | first | random | rices | text | mmices."
        ),
    ] = "reading",
    images: Annotated[
        Path | None,
        typer.Option(help="The folder that image paths in files are relative to; default: each file's own."),
    ] = None,
    choices: Annotated[str | None, typer.Option(help='Label each image with one of these: "cat,dog".')] = None,
    choices_file: Annotated[Path | None, typer.Option(help="The choices in a file, one per line.")] = None,
    choices_from_bank: Annotated[
        bool, typer.Option("--choices-from-bank", help="The choices are the answers in --bank or --demos.")
    ] = False,
    normalize: Annotated[
        str, typer.Option(help="A choice's log-probability: per tokens | characters | none (the sum).")
    ] = "tokens",
    schema: Annotated[
        Path | None,
        typer.Option(help="A file with a JSON schema: each answer is JSON of it. Extra: constrained."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="The text for images without one; default with choices: the demonstrations' own."),
    ] = None,
    backend: options.Backend = "pocket",
    model: options.Model = None,
    projector: options.Projector = None,
    mode: Annotated[
        str,
        typer.Option(
            help="aim | text-only | interleaved | zero-shot | no-image | nearest; auto: what `bank assess` found best."
        ),
    ] = "aim",
    shots: Annotated[
        int | None, typer.Option(help="Demonstrations per query, chosen by --selector; default: up to 8.", min=0)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 32,
    batch_size: Annotated[int, typer.Option(help="Queries per forward.", min=1)] = 8,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
) -> None:
    """Answer queries after demonstrations of a file, a folder or a bank; with --choices, label them.

    Image paths are relative to the file that names them, or to --images. Every finished batch is on disk: run the same
    command again after an interruption and it resumes. A bad line is reported with its number and does not lose the
    others; the exit code is then 3. Labels come with probabilities, and, if the queries bring their right ones (a
    column or field `answer` or `reference`, or a subfolder of that name) with accuracy and a confusion table.
    """
    from aim_sdk.answering.jobs import AnswerJob
    from aim_sdk.answering.queries import identity_of, read_demonstrations, read_queries
    from aim_sdk.answering.tables import kept_as
    from aim_sdk.backend.registry import BACKENDS
    from aim_sdk.config import PromptFormat
    from aim_sdk.errors import InputError, ShotsError, unknown
    from aim_sdk.files.demonstrations import check_images
    from aim_sdk.files.jobs import deciding
    from aim_sdk.injection.choices import check_normalize
    from aim_sdk.selection.registry import SELECTORS, get_selector
    from aim_sdk.support.terminal import Problems, say, warn_all
    from aim_sdk.types import MODES

    if (demos is None) == (bank is None):
        raise InputError("answer: pass --demos FILE or --bank FOLDER" + (", not both." if demos else "."))
    if mode == "auto":
        given = context.get_parameter_source("selector")
        mode, shots, selector = _best_of(bank, shots, selector, named=given is not None and given.name != "DEFAULT")
    if mode not in MODES:
        raise InputError(f"--mode: {unknown('mode', mode, (*MODES, 'auto'))}")
    BACKENDS.require(backend)
    SELECTORS.require(selector)
    own = options.of_backend(option, trust_remote_code)
    if mode == "nearest" and selector not in ("first", "reading"):
        raise InputError(
            f"--selector {selector}: mode nearest uses no selector: it compares readings.\n"
            "Next: leave --selector out, or choose another --mode."
        )
    check_normalize(normalize)
    kept = kept_as(out)
    check_images(images, demos, queries)
    shown: list[Demonstration] | None = None
    bad_demos = Problems()
    if demos is not None:
        held, bad_demos = read_demonstrations(demos, text=text or "", images=images)
        shown, available = held, len(held)
    else:  # there must be one; check before the model is loaded
        from aim_sdk.bank import DemonstrationBank  # imports torch

        with DemonstrationBank.open(bank or Path()) as opened:
            needed = choices_from_bank or (text is None and bool(choices or choices_file))
            held, available = [entry.demonstration for entry in opened.values()] if needed else [], len(opened)
    if mode != "zero-shot" and shots is not None and shots > available:
        raise ShotsError(
            f"{shots} shots asked for, but {demos or bank} has {available} demonstrations. Next: a smaller --shots."
        )
    classes = _choices(choices, choices_file, held if choices_from_bank else None)
    form = None if schema is None else _schema(schema, labels=classes is not None, mode=mode)
    lost: list[dict[str, Any]] = []
    asked, bad_queries = read_queries(queries, classes=classes or (), images=images, refused=lost)
    text = _ask(asked, held, text, labels=classes is not None)
    unusable = bad_demos + bad_queries
    warn_all(unusable)
    settings: dict[str, Any] = {
        "backend": backend,
        "model": _whole(model),
        "projector": _whole(projector),
        "template": template,
        "dtype": dtype,
        "mode": mode,
        "shots": shots,
        "max_new_tokens": max_new_tokens if classes is None else None,
        "demonstrations": None if shown is None else identity_of(shown),
        "selector": selector if bank is not None or selector != "first" else None,
        "text": text or None,
        "choices": classes,
        "schema": form,
        **({"options": chosen} if (chosen := deciding(own)) else {}),
        "normalize": None if classes is None else normalize,
    }
    refused = Problems()
    with AnswerJob.claimed(kept, asked, settings) as job:
        if job.resumed:
            say(f"{kept}: {_so_many(job.resumed, 'answer exists', 'answers exist')}; resuming.", err=True)
        if job.stale:
            say(
                f"{kept}: {_so_many(job.stale, 'answer belongs', 'answers belong')} to queries that changed or are not "
                f"in {queries}; from now on in {job.aside.name}.",
                err=True,
            )
        try:
            if job.left:
                from aim_sdk.answering.cost_line import cost_line
                from aim_sdk.pipeline import AIMPipeline

                get_selector(selector)  # one that needs a missing package is refused before the model is loaded
                pipe = AIMPipeline.from_pretrained(
                    backend,
                    model=model,
                    projector=projector,
                    device=device,
                    dtype=dtype,
                    bank=bank,
                    selector=selector,
                    prompt_format=None if template is None else PromptFormat.plain(template),
                    **own,
                )
                foreseen = cost_line(
                    pipe,
                    shots,
                    mode=mode,
                    demonstrations=shown,
                    queries=[item.query for item in job.left],
                    batch_size=batch_size,
                    max_new_tokens=max_new_tokens,
                )
                say(foreseen, err=True)
                refused = job.run(
                    pipe,
                    shown,
                    mode=mode,
                    shots=shots,
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                    choices=classes,
                    schema=form,
                    normalize=normalize,  # type: ignore[arg-type]  # checked above
                )
            else:
                job.settle()
            _finish(job, out, classes, lost)
        except KeyboardInterrupt:
            kept_so_far = f"interrupted: {job.answered} answers are kept; run the same command again to resume."
            say(kept_so_far, err=True)
            raise typer.Exit(130) from None
    warn_all(refused)
    counted = _so_many(len(asked) + len(lost), "query", "queries")
    say(f"{out}: {_so_many(job.answered, 'answer', 'answers')} of {counted}.", err=True)
    if unusable or refused:
        raise typer.Exit(3)


def _best_of(bank: Path | None, shots: int | None, selector: str, *, named: bool) -> tuple[Mode, int | None, str]:
    """The mode, shots and selector of a bank's verdict.

    Raises:
        InputError: there is no bank or no verdict, or shots or a selector are named, too.
    """
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.errors import InputError
    from aim_sdk.injection.shots import shots_value
    from aim_sdk.support.terminal import say

    if bank is None:
        raise InputError("--mode auto: a bank's verdict says what is best. Next: pass --bank, or name a --mode.")
    with DemonstrationBank.open(bank) as opened:
        found, kept = shots_value(opened, shots, "auto", selector if named else None), opened.verdict
    say(f"auto: {kept.sentence if kept else ''}", err=True)
    return found.mode, found.count or None, found.selector.name if found.selector else selector


def _whole(name: str | None) -> str | None:
    """A folder's absolute path, which is the same from everywhere; any other name unchanged."""
    return name if name is None or not os.path.isdir(name) else os.path.realpath(name)


def _so_many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _choices(named: str | None, file: Path | None, held: list[Demonstration] | None) -> list[str] | None:
    """The choices; None if the model answers freely."""
    import csv

    from aim_sdk.errors import InputError
    from aim_sdk.injection.choices import checked_choices, choices_of

    if sum(given is not None for given in (named, file, held)) > 1:
        raise InputError("answer: pass one of --choices, --choices-file and --choices-from-bank.")
    if held is not None:
        return choices_of(held)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
        return checked_choices([line.strip() for line in lines if line.strip()])
    if named is not None:
        listed = [one.strip() for row in csv.reader([named], skipinitialspace=True) for one in row]
        return checked_choices(listed)
    return None


def _schema(file: Path, *, labels: bool, mode: str) -> dict[str, Any]:
    """A JSON schema out of a file."""
    from aim_sdk.errors import InputError
    from aim_sdk.files.json_lines import parse_object

    if labels:
        raise InputError("--schema: an answer is one of some choices, or JSON of a schema; pass one of them.")
    if mode == "nearest":
        raise InputError("--schema: mode nearest generates nothing. Next: choose another --mode.")
    try:
        return parse_object(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}).") from error
    except InputError as error:
        raise InputError(f"{file}: not a JSON schema: {error}") from error


def _ask(asked: list[NumberedQuery], held: list[Demonstration], text: str | None, *, labels: bool) -> str | None:
    """Put a text next to images without one, and return it: what was given or, for labels, the demonstrations' own."""
    from aim_sdk.injection.choices import text_of

    if text is None and labels and any(not item.query.text.strip() for item in asked):
        text = text_of(held)
    for item in asked:
        item.ask(text or "")
    return text


def _finish(job: AnswerJob, out: Path, classes: list[str] | None, lost: list[dict[str, Any]]) -> None:
    """Write what failed, with the lines that are `lost`, the table and the report, and print what it says."""
    from aim_sdk.answering import label_report
    from aim_sdk.answering.tables import write_answers, write_failed
    from aim_sdk.support.terminal import say

    failed = sorted([*lost, *job.failed], key=lambda line: int(line["line"]))
    if listed := write_failed(out, failed):
        say(f"{_so_many(len(failed), 'query has', 'queries have')} no answer: {listed.name} lists them.", err=True)
    if out == job.path and classes is None:
        return
    answers = job.lines()
    if out != job.path and (guarded := write_answers(out, answers)):
        plain = f"{job.path.name} has them unchanged."
        count = _so_many(guarded, "cell begins like a formula and has", "cells begin like formulas and have")
        say(f"{out}: {count} a ' put before it (before an image path ./); {plain}", err=True)
    unanswered = sum("reference" in line for line in failed)
    report = None if classes is None else label_report.report_of(answers, classes, unanswered=unanswered)
    if report is not None:
        written = label_report.write_report(report, out)
        for line in label_report.lines(report):
            say(line)
        say(f"Report: {written[1]}")
