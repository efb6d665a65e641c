"""``aim-icl bank assess``: do these examples help?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import options
from aim_sdk.cli.bank_reading import Bank

if TYPE_CHECKING:
    from aim_sdk.assessment.assessment import Assessment
    from aim_sdk.config import Binding
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.types import Demonstration

PAGE, NUMBERS = "assessment.html", "assessment.json"
_SHOWN = 8
"""Settings and demonstrations that the terminal shows; the files hold all."""


def assess(
    bank: Bank,
    validation: Annotated[
        Path | None,
        typer.Option(help="Ask these (JSON lines or CSV of demonstrations), not each of the bank's own in turn."),
    ] = None,
    shots: Annotated[str, typer.Option(help="Numbers of demonstrations to try.", metavar="K,K,...")] = "1,2,4,8",
    mode: Annotated[
        list[str] | None, typer.Option(help="A mode to try, repeated for more; default: all that the backend can.")
    ] = None,
    selector: Annotated[
        list[str] | None, typer.Option(help="Who chooses demonstrations, repeated for more; default: reading.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option(help="The possible answers, with commas; default: the bank's, if they are a few.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask at most so many, in each answer's share; default: all.", min=8)
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that image files were moved to.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report and all outcomes; default: BANK-assessment.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Default: the one that the bank was made with.")] = None,
    model: options.Model = None,
    projector: options.Projector = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
    batch_size: Annotated[int, typer.Option(help="Prompts per forward.", min=1)] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="Of a free answer.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Of the folds, and of the part that --limit asks.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Do these examples help? Asks each demonstration in turn after the others, and says what to run.

    Zero-shot, texts alone, AIM (and its control without images), interleaved images and nearest neighbours are compared
    at several numbers of demonstrations. The verdict is kept with the bank: `--mode auto` of other commands takes it.
    The report, with pictures, is one HTML file. An interrupted command resumes.
    """
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.support.terminal import say

    numbers, named = _numbers(shots), _listed(choices)
    _check_names(mode, selector)
    own = options.of_backend(option, trust_remote_code)
    asked, bad = (None, 0) if validation is None else _validation(validation)
    with DemonstrationBank.open(bank) as opened:
        binding = opened.binding
    folder = out or bank.with_name(f"{bank.resolve().name}-assessment")
    pipe = _pipeline(bank, binding, backend, model, projector, device, dtype, images, own)
    try:
        questions = _questions(pipe, asked)
        _foresee(pipe, max(numbers), mode, questions.values(), batch_size)
        found = pipe.assess(
            asked,
            shots=numbers,
            modes=mode,  # type: ignore[arg-type]  # checked there
            selectors=selector,
            choices=named,
            limit=limit,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
            folder=folder,
            progress=True,
        )
        _write(found, pipe, folder, questions)
        if as_json:
            typer.echo(found.model_dump_json(indent=1))
        else:
            _show(found, pipe, folder)
        if bad or found.left_out:
            raise typer.Exit(3)
    except KeyboardInterrupt:
        say("interrupted: what was answered is kept; run the same command again to resume.", err=True)
        raise typer.Exit(130) from None
    finally:
        pipe.bank.close()


def _questions(pipe: AIMPipeline, asked: list[Demonstration] | None) -> dict[str, Demonstration]:
    """What is asked, by the names that items have."""
    if asked is None:
        return {entry.key: entry.demonstration for entry in pipe.bank.values()}
    return {f"#{place}": one for place, one in enumerate(asked)}


def _foresee(
    pipe: AIMPipeline, shots: int, modes: list[str] | None, asked: Iterable[Demonstration], batch_size: int
) -> None:
    """Say what the longest prompts will take."""
    from aim_sdk.answering.cost_line import cost_line
    from aim_sdk.backend.capabilities import Interleaves, why_not
    from aim_sdk.support.terminal import say
    from aim_sdk.types import Query

    queries = [Query(one.image, one.text) for one in asked]
    for mode in ("aim", "interleaved"):
        wanted = mode in modes if modes else mode == "aim" or why_not(pipe.backend, Interleaves) is None
        if wanted:
            say(cost_line(pipe, shots, mode=mode, queries=queries, batch_size=batch_size), err=True)


def _pipeline(
    bank: Path,
    binding: Binding,
    backend: str | None,
    model: str | None,
    projector: str | None,
    device: str | None,
    dtype: str | None,
    images: Path | None,
    own: Mapping[str, Any],
) -> AIMPipeline:
    """The pipeline that the bank was made with, as far as the bank names it."""
    from aim_sdk.pipeline import AIMPipeline

    made = binding.fingerprint
    chosen: str = backend or made.backend or "pocket"
    return AIMPipeline.from_pretrained(
        chosen,
        model=model or (made.model if backend is None and chosen != "pocket" else None),
        projector=projector,
        prompt_format=binding.prompt_format,
        bank=bank,
        images=images,
        device=device,
        dtype=dtype,
        **own,
    )


def _check_names(modes: list[str] | None, selectors: list[str] | None) -> None:
    """Refuse a misspelt name before the model is loaded."""
    from aim_sdk.injection.given import check_mode
    from aim_sdk.selection.registry import SELECTORS

    for mode in modes or ():
        check_mode(mode)
    for selector in selectors or ():
        SELECTORS.require(selector)


def _validation(file: Path) -> tuple[list[Demonstration], int]:
    """The demonstrations of a file, and how many lines could not be used."""
    from aim_sdk.errors import InputError
    from aim_sdk.files.demonstrations import stream_demonstrations
    from aim_sdk.support.terminal import Problems, warn_all

    problems = Problems()
    found = list(stream_demonstrations(file, on_problem=problems.add))
    warn_all(problems)
    if not found:
        raise InputError(f"{file}: no usable line.")
    return found, len(problems)


def _numbers(shots: str) -> list[int]:
    from aim_sdk.errors import InputError

    try:
        return [int(one) for one in shots.split(",")]
    except ValueError:
        raise InputError(f"--shots {shots!r}: expected whole numbers with commas, as in 1,2,4,8.") from None


def _listed(choices: str | None) -> list[str] | None:
    import csv

    if choices is None:
        return None
    return [one.strip() for row in csv.reader([choices], skipinitialspace=True) for one in row]


def _write(found: Assessment, pipe: AIMPipeline, folder: Path, asked: dict[str, Demonstration]) -> None:
    from aim_sdk.assessment.report import write_page

    found.save(folder / NUMBERS)
    write_page(found, pipe.bank, folder / PAGE, {name: one.image for name, one in asked.items()})


def _show(found: Assessment, pipe: AIMPipeline, folder: Path) -> None:
    from aim_sdk.assessment.report import doubts, grids, head, sentences
    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import console, say

    settings, *others = grids(found.model_copy(update={"rows": tuple(head(found.rows, _SHOWN))}))
    for grid in (settings, *(one for one in others if len(one.head) <= _SHOWN)):
        console().print(FittedTable(grid.head, grid.rows, title=grid.title, parts=True))
    if len(found.rows) > _SHOWN + 1:
        say(f"... {len(found.rows) - _SHOWN - 1} more settings in the report.")
    if listed := doubts(found, pipe.bank)[:_SHOWN]:
        cut = f" (the {_SHOWN} clearest)" if len(found.doubtful) > _SHOWN else ""
        title = f"{len(found.doubtful)} demonstrations have an answer that the others contradict{cut}"
        head_row = ("key", "image", "its answer", "others say", "probability")
        console().print(FittedTable(head_row, listed, title=title, keys=2))
    for worst in [one for one in found.influence if one.harms][:1]:
        say(f"Most harmful: {worst.key[:12]} ({worst.effect:+.0f} to the {worst.shown} queries that see it).")
    for sentence in sentences(found):
        say(sentence)
    say(f"Report: {folder / PAGE}")
    say("")
    say(found.verdict.sentence)
