"""``aim-icl bank add`` and ``convert``: the commands that read demonstrations with a backbone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aim_sdk.cli import options
from aim_sdk.cli.bank_ranks import own_device, put_together, ranks

if TYPE_CHECKING:
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.cli.bank_ranks import Source
    from aim_sdk.files.json_lines import OnProblem
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.support.terminal import Problems
    from aim_sdk.types import Demonstration

Bank = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's folder.")]
KeepReadings = Annotated[
    bool, typer.Option("--keep-readings", help="A new bank also keeps readings, for another projector later.")
]
KeepImages = Annotated[bool, typer.Option("--keep-images", help="A new bank also keeps the image files.")]
BatchTokens = Annotated[int, typer.Option(help="Positions of one forward, visual tokens included.", min=1)]
_LOADING = ("model", "projector", "device", "dtype", "keep_readings", "keep_images")
"""Options that `AIMPipeline.from_pretrained` takes as they are."""


def add(
    context: typer.Context,
    bank: Bank,
    source: Annotated[Path, typer.Argument(help="JSON lines or CSV of demonstrations, or a folder of images.")],
    text: Annotated[str, typer.Option(help="The text for each image that has none of its own.")] = "",
    images: Annotated[
        Path | None, typer.Option(help="The folder that image paths in SOURCE are relative to; default: its own.")
    ] = None,
    backend: options.Backend = "pocket",
    model: options.Model = None,
    projector: options.Projector = None,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
    keep_readings: KeepReadings = False,
    keep_images: KeepImages = False,
    batch_tokens: BatchTokens = 4096,
) -> None:
    """Read demonstrations into a bank, which is created if it does not exist.

    What the bank holds already is not read again, so an interrupted command resumes where it stopped. SOURCE is JSON
    lines or CSV (fields besides image, text and answer become metadata), or a folder whose images have a .txt with the
    answer next to them, or are in one subfolder per class. What cannot be used is reported; the exit code is then 3.

    Several GPUs, or processes, read a large set faster, each its share:
    `torchrun --nproc_per_node 4 -m aim_sdk.cli bank add BANK SOURCE`. The bank is then that of one process.
    """
    from aim_sdk.files.demonstrations import check_images, count_demonstrations, stream_demonstrations, where_images_are
    from aim_sdk.files.images import describe
    from aim_sdk.support.terminal import Problems, say

    check_images(images, source)
    total, problems = count_demonstrations(source), Problems()

    def found(on_problem: OnProblem) -> Iterator[Demonstration]:
        return stream_demonstrations(source, text=text, images=images, on_problem=on_problem)

    given = context.params | {"device": own_device(device)}
    with _to_fill(bank, given, lambda: found(lambda _: None), total) as opened:
        if opened is None:  # another process puts the parts together
            return
        before = len(opened)
        shown = found(problems.add)
        first = list(islice(shown, 1))  # there may be none that can be used
        opened.add(
            chain(first, shown) if first else [],
            batch_tokens=batch_tokens,
            progress=True,
            total=total,
            on_error=lambda item, error: problems.add(
                _once(describe(item.image), str(error) if source.is_dir() else where_images_are(error, item.image))
            ),
        )
        say(f"{bank}: {len(opened) - before} demonstrations added, {len(opened)} in all.", err=True)
    _report(problems)


def convert(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="BANK", help="The bank to convert; it is not changed.")],
    target: Annotated[Path, typer.Argument(metavar="NEW_BANK", help="The new bank's folder.")],
    backend: options.Backend = "pocket",
    model: options.Model = None,
    projector: options.Projector = None,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
    keep_readings: KeepReadings = False,
    keep_images: KeepImages = False,
    batch_tokens: BatchTokens = 4096,
) -> None:
    """Convert an existing bank for another projector, backbone or prompt format.

    If only the projector differs and the bank keeps its readings, they are projected and no image is read;
    otherwise every demonstration is read again. An interrupted command resumes where it stopped.
    """
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.bank.convert import convert as convert_bank
    from aim_sdk.errors import InputError
    from aim_sdk.files.images import describe
    from aim_sdk.support.progress import advancing
    from aim_sdk.support.terminal import Problems, say

    problems = Problems()
    if target.exists() and target.samefile(source):
        raise InputError(f"{target}: this is the bank to convert itself; name another folder for the new one.")
    with DemonstrationBank.open(source) as old, _filled(target, context.params) as pipe:
        before = len(pipe.bank)
        with advancing("converting", len(old)) as advance:
            projected = convert_bank(
                old,
                pipe.bank,
                batch_tokens=batch_tokens,
                on_error=lambda item, error: problems.add(_once(describe(item.image), error)),
                advance=advance,
            )
        how = "projected from kept readings" if projected else "read again"
        there = f" ({before} were there)" if before else ""
        say(f"{target}: {len(pipe.bank)} demonstrations, {how}{there}.", err=True)
    _report(problems)


@contextmanager
def _to_fill(
    bank: Path, given: Mapping[str, Any], source: Source, total: int | None
) -> Iterator[DemonstrationBank | None]:
    """The bank to add to; under torchrun, after all processes have read their shares, and None for all but one."""
    from aim_sdk.bank import NewBankWarning

    if ranks() == 1:
        with _filled(bank, given) as pipe:
            yield pipe.bank
        return
    keeps = {name: given[name] for name in ("keep_readings", "keep_images")}
    pipe = _loaded({**given, "keep_readings": False, "keep_images": False}, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)
        with put_together(bank, pipe, source, total, given["batch_tokens"], **keeps) as opened:
            yield opened


@contextmanager
def _filled(bank: Path, given: Mapping[str, Any]) -> Iterator[AIMPipeline]:
    """A pipeline with that bank, which is created if missing; reports what an interruption left."""
    from aim_sdk.bank import NewBankWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)  # these commands make banks
        pipe = _loaded(given, bank)
    try:
        yield pipe
    except KeyboardInterrupt:
        interrupted(bank)
    finally:
        pipe.bank.close()


def _loaded(given: Mapping[str, Any], bank: Path | None) -> AIMPipeline:
    from aim_sdk.config import PromptFormat
    from aim_sdk.pipeline import AIMPipeline

    template = given["template"]
    return AIMPipeline.from_pretrained(
        given["backend"],
        prompt_format=None if template is None else PromptFormat.plain(template),
        bank=bank,
        **{name: given[name] for name in _LOADING},
        **options.of_backend(given["option"], given["trust_remote_code"]),
    )


def interrupted(bank: Path) -> NoReturn:
    """Report what an interruption left, and exit."""
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.errors import ArtifactNotFoundError
    from aim_sdk.support.terminal import say

    count = 0
    with suppress(ArtifactNotFoundError), DemonstrationBank.open(bank) as left:
        count = len(left)
    say(f"interrupted: {count} demonstrations are kept; run the same command again to resume.", err=True)
    raise typer.Exit(130) from None


def _once(name: str, error: Exception | str) -> str:
    text = str(error)
    return text if text.startswith(name) else f"{name}: {text}"


def _report(problems: Problems) -> None:
    from aim_sdk.support.terminal import warn_all

    warn_all(problems)
    if problems:
        raise typer.Exit(3)
