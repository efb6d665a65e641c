"""``aim-icl bank``: demonstrations on disk, read once."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import bank_assess, bank_reading
from aim_sdk.cli.bank_reading import Bank, interrupted

if TYPE_CHECKING:
    from aim_sdk.bank import BankEntry, DemonstrationBank, DiskBank

app = typer.Typer(help="Demonstration banks on disk: read once, reused by every query.", no_args_is_help=True)
app.command("add")(bank_reading.add)
app.command("convert")(bank_reading.convert)
app.command("assess")(bank_assess.assess)

Key = Annotated[str, typer.Argument(metavar="KEY", help="A demonstration's key, or the beginning of it.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="Only with FIELD=VALUE in their metadata; repeated: any of one field's values, and all fields.",
    ),
]


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
        keys = opened.matching(filters)
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
        entry = opened[_found(opened, key)]
        fused = entry.fused.embeddings
        kept = {"fused": {"shape": list(fused.shape), "dtype": str(fused.dtype).removeprefix("torch.")}}
        say_json(_fields(entry) | kept, indent=2)


@app.command("remove")
def remove(
    bank: Bank,
    keys: Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys, or their beginnings.")] = None,
    where: Filters = None,
) -> None:
    """Remove demonstrations by key, or all that match --where. `compact` reclaims their space."""
    from aim_sdk.errors import InputError
    from aim_sdk.support.terminal import say

    if keys and where:
        raise InputError("bank remove: KEYs or --where, not both; `aim-icl bank list BANK --where ...` shows the keys.")
    if not keys and not where:
        raise InputError("bank remove: pass one KEY or more, or --where FIELD=VALUE.")
    filters = _filters(where)
    with _opened(bank) as opened:
        chosen = opened.matching(filters) if filters else {_found(opened, key) for key in keys or []}
        opened.remove(*chosen)
        say(f"{bank}: {len(chosen)} demonstrations removed, {len(opened)} left.", err=True)


@app.command("verify")
def verify(
    bank: Bank,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-index", help="Rebuild the index from the segments first.")
    ] = False,
    images: Annotated[Path | None, typer.Option(help="The folder that image files were moved to.")] = None,
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
    """Reclaim the space of removed entries. A crash at any moment loses nothing."""
    from rich.filesize import decimal

    from aim_sdk.support.terminal import say

    with _opened(bank) as opened:
        before = opened.stats().bytes
        opened.compact(progress=True)
        say(f"{bank}: {decimal(before)} before, {decimal(opened.stats().bytes)} now.", err=True)


@app.command("export")
def export(bank: Bank, file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write a whole bank to one file."""
    from rich.filesize import decimal

    from aim_sdk.support.terminal import say

    with _opened(bank) as opened:
        size = opened.export(file, progress=True)
        say(f"{file}: {len(opened)} demonstrations, {decimal(size)}.", err=True)


@app.command("publish")
def publish(
    bank: Bank, address: Annotated[str, typer.Argument(help="A file of any file system that fsspec writes: s3://...")]
) -> None:
    """Write a whole bank to one file, and its hash next to it: what `aim-icl serve --published` loads."""
    from aim_sdk.serving.published import publish as publish_bank
    from aim_sdk.support.terminal import say

    with _opened(bank) as opened:
        digest = publish_bank(opened, address)
        say(f"{address}: {len(opened)} demonstrations, sha256 {digest[:16]}.", err=True)


@app.command("import")
def import_(bank: Bank, file: Annotated[Path, typer.Argument(help="What `bank export` wrote.")]) -> None:
    """Add the demonstrations of an exported bank; the bank is created if it does not exist."""
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.errors import ArtifactNotFoundError
    from aim_sdk.support.terminal import say

    before = 0
    with suppress(ArtifactNotFoundError), _opened(bank) as opened:
        before = len(opened)
    try:
        with DemonstrationBank.import_file(file, into=bank, progress=True) as opened:
            say(f"{bank}: {len(opened) - before} demonstrations added, {len(opened)} in all.", err=True)
    except KeyboardInterrupt:
        interrupted(bank)


@app.command("stats")
def stats(bank: Bank, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what a bank holds, how much space it takes, and what it was made with."""
    from dataclasses import asdict

    from rich.filesize import decimal

    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import console, say_json

    with _opened(bank) as opened:
        found = opened.stats()
        if as_json:
            binding = opened.binding.model_dump(mode="json")
            say_json(asdict(found) | {"binding": binding, "verdict": _verdict_fields(opened)}, indent=2)
            return
        made = opened.binding
        each = found.bytes // max(1, found.demonstrations)
        rows = {
            "demonstrations": f"{found.demonstrations}",
            "fused tokens": f"{found.fused_tokens}",
            "on disk": f"{decimal(found.bytes)} in {found.segments} segments; {decimal(each)} per demonstration",
            "reclaimable": f"{decimal(found.reclaimable)} (`aim-icl bank compact`)",
            "vectors": ", ".join(f"{name} {decimal(size)}" for name, size in found.features.items()) or "none",
            "backbone": f"{made.fingerprint.model} of backend {made.fingerprint.backend}",
            "projector": f"{made.projector_kind} {made.projector_hash[:12]}",
            "prompt format": made.prompt_format.template or made.prompt_format.kind,
            "verdict": _verdict(opened),
        }
        console().print(FittedTable(("", ""), rows.items()))


def _verdict(bank: DiskBank) -> str:
    """Whether the demonstrations help, as far as that is known."""
    from aim_sdk.errors import CorruptArtifactError

    try:
        kept = bank.verdict
    except CorruptArtifactError as error:
        return str(error)
    if kept is None:
        return "not assessed (`aim-icl bank assess`)"
    stale = "; stale: the demonstrations changed since, assess them again" if kept.stale(bank) else ""
    return f"{kept.sentence} ({kept.date[:10]}, {kept.demonstrations} demonstrations{stale})"


def _verdict_fields(bank: DiskBank) -> dict[str, Any] | None:
    from aim_sdk.errors import CorruptArtifactError

    try:
        kept = bank.verdict
    except CorruptArtifactError as error:
        return {"error": str(error)}
    return None if kept is None else kept.model_dump() | {"stale": kept.stale(bank)}


def _opened(bank: Path, images: Path | None = None) -> DiskBank:
    from aim_sdk.bank import DemonstrationBank

    return DemonstrationBank.open(bank, images=images)


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


def _found(bank: DemonstrationBank, prefix: str) -> str:
    """The key that begins with ``prefix``, as people copy keys from a list."""
    from aim_sdk.errors import UnknownEntryError

    found = [key for key in bank if key.startswith(prefix)]
    if len(found) > 1:
        near = ", ".join(key[:12] for key in found[:5])
        raise UnknownEntryError(f"{len(found)} entries begin with {prefix!r}: {near}; give more of the key.")
    return found[0] if found else bank[prefix].key  # which says what there is


def _pairs(metadata: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in metadata.items())


def _filters(given: list[str] | None) -> dict[str, Any]:
    """``FIELD=VALUE``, the value as text or, if it looks like one, as a number."""
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
