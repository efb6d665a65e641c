"""``aim-icl bank``: demonstrations on disk, read once."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from aim_sdk.bank import BankEntry, DemonstrationBank
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.support.terminal import Problems

app = typer.Typer(help="Demonstration Banks on disk: read once, found and reused.", no_args_is_help=True)

Bank = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's folder.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="A demonstration's key, or the beginning of it.")]
Filters = Annotated[
    list[str] | None,
    typer.Option("--where", help="Only demonstrations with FIELD=VALUE in their metadata; repeatable."),
]
KeepReadings = Annotated[
    bool, typer.Option("--keep-readings", help="A new bank keeps readings, too: for another projector later.")
]
KeepImages = Annotated[bool, typer.Option("--keep-images", help="A new bank keeps the image files, too.")]
BatchTokens = Annotated[int, typer.Option(help="Positions of one forward, visual tokens included.", min=1)]


@app.command("add")
def add(
    bank: Bank,
    source: Annotated[Path, typer.Argument(help="JSON lines or CSV of demonstrations, or a folder of images.")],
    text: Annotated[str, typer.Option(help="What stands next to each image that has no text of its own.")] = "",
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
    keep_readings: KeepReadings = False,
    keep_images: KeepImages = False,
    batch_tokens: BatchTokens = 4096,
) -> None:
    """Read demonstrations into a bank, which is made where there is none.

    What is there already is not read again, so an interrupted command resumes where it stopped. SOURCE is JSON lines
    or CSV (fields besides image, text and answer become metadata), or a folder whose images have a .txt with the answer
    beside them, or stand in one subfolder per class. What cannot be used is reported; the exit code is then 3.
    """
    from aim_sdk.files.demonstrations import check_images, count_demonstrations, stream_demonstrations, where_images_are
    from aim_sdk.files.images import describe
    from aim_sdk.support.terminal import Problems, say

    check_images(images, source)
    total = count_demonstrations(source)
    with (
        _pipeline(
            bank, backend, model, projector, template, device, dtype, trust_remote_code, keep_readings, keep_images
        ) as pipe,
        _kept(pipe.bank),
    ):
        before, problems = len(pipe.bank), Problems()
        found = stream_demonstrations(source, text=text, images=images, on_problem=problems.add)
        first = list(islice(found, 1))  # there may be none that can be used
        pipe.bank.add(
            chain(first, found) if first else [],
            batch_tokens=batch_tokens,
            progress=True,
            total=total,
            on_error=lambda item, error: problems.add(
                _once(describe(item.image), str(error) if source.is_dir() else where_images_are(error, item.image))
            ),
        )
        say(f"{bank}: {len(pipe.bank) - before} demonstrations added, {len(pipe.bank)} in all.", err=True)
    _report(problems)


@app.command("list")
def list_(
    bank: Bank,
    where: Filters = None,
    limit: Annotated[int, typer.Option(help="How many to show; 0: all.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, with whole keys.")] = False,
) -> None:
    """List demonstrations in the order of their addition."""
    from aim_sdk.support.fitted import FittedTable, apart
    from aim_sdk.support.terminal import console, say, say_json

    filters = _filters(where)
    with _opened(bank) as opened:
        keys = _chosen(opened, filters)
        shown = keys[: limit or None]
        if as_json:
            for key in shown:
                say_json(_fields(opened[key]))
            return
        fields = [_fields(opened[key]) for key in shown]
        folder, names = apart([item["image"] for item in fields])
        rows = [
            [item["key"][:12], name, item["text"], item["answer"], _pairs(item["metadata"])]
            for item, name in zip(fields, names, strict=True)
        ]
        title = f"images in {folder}" if folder else ""
        console().print(FittedTable(("key", "image", "text", "answer", "metadata"), rows, title=title, keys=2))
        if len(shown) < len(keys):
            say(f"... {len(keys) - len(shown)} more; --limit 0 shows all.", err=True)


@app.command("show")
def show(bank: Bank, key: Key) -> None:
    """Show one demonstration and what is kept of it, as JSON."""
    from aim_sdk.support.terminal import say_json

    with _opened(bank) as opened:
        entry = opened[opened.find(key)]
        fused = entry.fused.embeddings
        kept = {"fused": {"shape": list(fused.shape), "dtype": str(fused.dtype).removeprefix("torch.")}}
        say_json(_fields(entry) | kept, indent=2)


@app.command("remove")
def remove(
    bank: Bank,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys, or their beginnings.")] = None,
    where: Filters = None,
) -> None:
    """Remove demonstrations by key, or all with some metadata. `compact` gives the room back."""
    from aim_sdk.errors import InputError
    from aim_sdk.support.terminal import say

    if not keys and not where:
        raise InputError("bank remove: say which: one KEY or more, or --where FIELD=VALUE.")
    filters = _filters(where)
    with _opened(bank) as opened:
        chosen = [opened.find(key) for key in keys or []]
        if filters:
            chosen += _chosen(opened, filters)
        opened.remove(*dict.fromkeys(chosen))
        say(f"{bank}: {len(set(chosen))} demonstrations removed, {len(opened)} left.", err=True)


@app.command("verify")
def verify(
    bank: Bank,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-index", help="First rebuild the index from the segments.")
    ] = False,
    images: Annotated[Path | None, typer.Option(help="Where image files are that were moved.")] = None,
) -> None:
    """Read every byte and report what is damaged, or which image files were moved or overwritten: exit code 1."""
    from aim_sdk.bank.disk.maintenance import rebuild_index
    from aim_sdk.support.terminal import say, warn

    lost = rebuild_index(bank) if rebuild else []
    with _opened(bank, images) as opened:
        problems = lost + opened.verify(progress=True)
        if not problems:
            problems = opened.check_images(progress=True)
        for problem in problems:
            warn(problem)
        say(f"{bank}: {len(opened)} demonstrations, {len(problems)} problems.", err=True)
    if problems:
        raise typer.Exit(1)


@app.command("compact")
def compact(bank: Bank) -> None:
    """Give back the room of what was removed. A crash at any moment loses nothing."""
    from aim_sdk.support.terminal import say

    with _opened(bank) as opened:
        before = opened.stats().bytes
        opened.compact(progress=True)
        say(f"{bank}: {_size(before)} before, {_size(opened.stats().bytes)} now.", err=True)


@app.command("export")
def export(bank: Bank, file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write a bank to one file, whole or not at all."""
    from aim_sdk.support.terminal import say

    with _opened(bank) as opened:
        size = opened.export(file, progress=True)
        say(f"{file}: {len(opened)} demonstrations, {_size(size)}.", err=True)


@app.command("import")
def import_(bank: Bank, file: Annotated[Path, typer.Argument(help="What `bank export` wrote.")]) -> None:
    """Add the demonstrations of an exported bank; the bank is made where there is none."""
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.support.terminal import say

    with DemonstrationBank.from_export(bank, file) as opened, _kept(opened):
        added = opened.import_from(file, progress=True)
        say(f"{bank}: {added} demonstrations added, {len(opened)} in all.", err=True)


@app.command("stats")
def stats(bank: Bank, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what a bank holds, what it takes, and what it was made with."""
    from dataclasses import asdict

    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import console, say_json

    with _opened(bank) as opened:
        found = opened.stats()
        if as_json:
            say_json(asdict(found) | {"binding": opened.binding.model_dump(mode="json")}, indent=2)
            return
        made = opened.binding
        each = found.bytes // max(1, found.demonstrations)
        rows = {
            "demonstrations": f"{found.demonstrations}",
            "fused tokens": f"{found.fused_tokens}",
            "on disk": f"{_size(found.bytes)} in {found.segments} segments; {_size(each)} a demonstration",
            "reclaimable": f"{_size(found.reclaimable)} (`aim-icl bank compact`)",
            "vectors": ", ".join(f"{name} {_size(size)}" for name, size in found.features.items()) or "none",
            "backbone": f"{made.fingerprint.model} of backend {made.fingerprint.backend}",
            "projector": f"{made.projector_kind} {made.projector_hash[:12]}",
            "prompt format": made.prompt_format.template or made.prompt_format.kind,
        }
        console().print(FittedTable(("", ""), rows.items()))


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="BANK", help="The bank to convert; it is not changed.")],
    target: Annotated[Path, typer.Argument(metavar="NEW_BANK", help="The new bank's folder.")],
    backend: options.Backend = "pocket",
    model: options.Model = None,
    projector: options.Projector = None,
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    keep_readings: KeepReadings = False,
    keep_images: KeepImages = False,
    batch_tokens: BatchTokens = 4096,
) -> None:
    """Make a bank for another projector, backbone or prompt format out of one that is there.

    Where only the projector differs and the bank keeps its readings, they are projected and no image is read;
    otherwise every demonstration is read again. An interrupted command resumes where it stopped.
    """
    from aim_sdk.bank.convert import convert as convert_bank
    from aim_sdk.files.images import describe
    from aim_sdk.support.progress import advancing
    from aim_sdk.support.terminal import Problems, say

    problems = Problems()
    with (
        _opened(source) as old,
        _pipeline(
            target, backend, model, projector, template, device, dtype, trust_remote_code, keep_readings, keep_images
        ) as pipe,
        _kept(pipe.bank),
    ):
        with advancing("converting", len(old)) as advance:
            projected = convert_bank(
                old,
                pipe.bank,
                batch_tokens=batch_tokens,
                on_error=lambda item, error: problems.add(_once(describe(item.image), error)),
                advance=advance,
            )
        how = "projected from kept readings" if projected else "read again"
        say(f"{target}: {len(pipe.bank)} demonstrations, {how}.", err=True)
    _report(problems)


@contextmanager
def _pipeline(
    bank: Path,
    backend: str,
    model: str | None,
    projector: str | None,
    template: str | None,
    device: str | None,
    dtype: str | None,
    trust_remote_code: bool,
    keep_readings: bool,
    keep_images: bool,
) -> Iterator[AIMPipeline]:
    from aim_sdk.bank.bank import NewBankWarning
    from aim_sdk.config import PromptFormat
    from aim_sdk.pipeline import AIMPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewBankWarning)  # these commands make banks
        pipe = AIMPipeline.from_pretrained(
            backend,
            model=model,
            projector=projector,
            prompt_format=None if template is None else PromptFormat.plain(template),
            bank=bank,
            keep_readings=keep_readings,
            keep_images=keep_images,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
    try:
        yield pipe
    finally:
        pipe.bank.close()


@contextmanager
def _opened(bank: Path, images: Path | None = None) -> Iterator[DemonstrationBank]:
    from aim_sdk.bank import DemonstrationBank

    with DemonstrationBank.open(bank, images=images) as opened:
        yield opened


@contextmanager
def _kept(bank: DemonstrationBank) -> Iterator[None]:
    """Say what an interruption has left."""
    from aim_sdk.support.terminal import say

    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {len(bank)} demonstrations are kept; run the same command again to resume.", err=True)
        raise typer.Exit(130) from None


def _once(name: str, error: Exception | str) -> str:
    text = str(error)
    return text if text.startswith(name) else f"{name}: {text}"


def _report(problems: Problems) -> None:
    from aim_sdk.support.terminal import warn_all

    warn_all(problems)
    if problems:
        raise typer.Exit(3)


def _fields(entry: BankEntry) -> dict[str, Any]:
    from aim_sdk.files.images import describe

    shown = entry.demonstration
    return {
        "key": entry.key,
        "image": os.fspath(shown.image) if isinstance(shown.image, str | os.PathLike) else describe(shown.image),
        "text": shown.text,
        "answer": shown.answer,
        "metadata": dict(shown.metadata),
    }


def _pairs(metadata: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in metadata.items())


def _filters(given: list[str] | None) -> dict[str, Any]:
    """``FIELD=VALUE``, the value as text or, where it looks like one, as a number."""
    from aim_sdk.errors import InputError

    where: dict[str, Any] = {}
    for item in given or []:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise InputError(f"--where {item!r}: expected FIELD=VALUE.")
        where.setdefault(name, []).append(value)
        try:
            where[name].append(json.loads(value))
        except ValueError:
            continue
    return where


def _chosen(bank: DemonstrationBank, filters: dict[str, Any]) -> list[str]:
    """The keys of the demonstrations with that metadata; a field that none has is refused."""
    from aim_sdk.errors import InputError, did_you_mean

    keys = bank.keys(filters)
    if filters and not keys and len(bank):
        known = {name for entry in bank.listed() for name in entry.metadata}
        for name in filters.keys() - known:
            has = f"Fields: {', '.join(sorted(known))}." if known else "None has metadata."
            raise InputError(f"--where: no demonstration has a field {name!r}.{did_you_mean(name, known)} {has}")
    return keys


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
