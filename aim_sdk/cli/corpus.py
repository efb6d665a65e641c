"""``aim-icl corpus``: what a training corpus holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from aim_sdk.training.corpora import CorpusConfig, Document, Pair
    from aim_sdk.training.corpora.inspection import Inspection

app = typer.Typer(help="Training corpora: recognised, counted, filtered.", no_args_is_help=True)


@app.command("inspect")
def inspect(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A folder of the corpus's files, or one of them.")],
    images: Annotated[
        Path | None, typer.Option(help="The folder that image names are relative to; default: that of the corpus.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="mmc4 | mmc4-tar | obelics | llava | webdataset | jsonl; default: recognised."),
    ] = None,
    min_similarity: Annotated[float | None, typer.Option(help="Of image and answer by CLIP; default: 0.24.")] = None,
    one_to_one: Annotated[
        bool | None, typer.Option("--one-to-one/--no-one-to-one", help="A text belongs to one image; default: it does.")
    ] = None,
    min_image_bytes: Annotated[int | None, typer.Option(help="Default: 10240.", min=0)] = None,
    max_images: Annotated[int | None, typer.Option(help="The most images per document; default: 6.", min=1)] = None,
    min_pairs: Annotated[int | None, typer.Option(help="Of a document; default: 2.", min=1)] = None,
    similarity: Annotated[
        str | None, typer.Option(help="corpus | clip (computed) | none (ignored); default: corpus.")
    ] = None,
    clip_model: Annotated[str | None, typer.Option(help="As open_clip names it, or a folder.")] = None,
    clip_pretrained: Annotated[str | None, typer.Option(help="A tag of open_clip's, or a file.")] = None,
    clip_device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    group: Annotated[
        int | None, typer.Option(help="llava, webdataset: samples of one document; default: 8.", min=1)
    ] = None,
    show: Annotated[int, typer.Option(help="How many documents to show.", min=0)] = 3,
    limit: Annotated[int | None, typer.Option(help="Stop after this many documents.", min=1)] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image that is kept.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the counts to this file.")] = None,
) -> None:
    """Show some documents of a corpus as training would see them, and count what the filters leave out.

    Ctrl-C ends the scan and shows what was counted.
    """
    from aim_sdk.support.progress import advancing
    from aim_sdk.support.terminal import console, say
    from aim_sdk.training.corpora import open_corpus
    from aim_sdk.training.corpora.inspection import Inspection

    inspection = Inspection(open_corpus(_config(context.params)), decode=decode)
    shown: list[Document] = []
    interrupted = False
    try:
        with advancing("documents", limit) as advance:
            for document in inspection.scan(limit):
                advance(1)
                if document is not None and len(shown) < show:
                    shown.append(document)
    except KeyboardInterrupt:
        interrupted = True
    for document in shown:
        _print_document(console(), document)
    _print_counts(console(), inspection)
    if as_json is not None:
        summary = inspection.summary() | {"complete": limit is None and not interrupted}
        _write(as_json, summary)
    if inspection.documents and not inspection.kept:
        say(_nothing_kept(inspection), err=True)
    if interrupted:
        say(f"interrupted: {inspection.documents} documents were counted.", err=True)
        raise typer.Exit(130)
    if inspection.documents and not inspection.kept:
        raise typer.Exit(1)


def _nothing_kept(inspection: Inspection) -> str:
    """What to change."""
    changes = inspection.drops.cures(lambda name: f"--{name.replace('_', '-')} (in training: corpus.{name})")
    next_ = f" Next: {changes}." if changes else ""
    return f"nothing is kept: training on this corpus has nothing to learn from.{next_}"


def _config(given: Mapping[str, Any]) -> CorpusConfig:
    """The options that are settings of a corpus: those of its fields' names."""
    from pydantic import ValidationError

    from aim_sdk.errors import InputError
    from aim_sdk.training.corpora import CorpusConfig

    try:
        return CorpusConfig(**{n: v for n, v in given.items() if n in CorpusConfig.model_fields and v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{str(name).replace('_', '-')} {first['input']!r}: " for name in first["loc"])
        raise InputError(f"{option}{first['msg'].removeprefix('Value error, ')}.") from error


def _write(file: Path, summary: dict[str, Any]) -> None:
    from aim_sdk.files.atomic import write_atomic

    write_atomic(file, json.dumps(summary, indent=2).encode())


def _print_document(console: Console, document: Document) -> None:
    from rich.table import Table

    console.print(_short(document.id, 100), style="bold")
    table = Table("image", "similarity", "text", "answer", box=None, padding=(0, 2))
    for pair in document.pairs:
        similarity = "" if pair.similarity is None else f"{pair.similarity:.3f}"
        table.add_row(_image(pair), similarity, _short(pair.text, 60), _short(pair.answer, 100))
    console.print(table)
    console.print()


def _print_counts(console: Console, inspection: Inspection) -> None:
    from rich.table import Table

    counts, drops = inspection.summary(), inspection.drops
    console.print(
        f"{counts['format']}, {counts['files']} files: {counts['documents']} documents, of which {counts['kept']} are "
        f"kept with {counts['pairs']} pairs"
    )
    if inspection.kept:
        table = Table("pairs", "documents", box=None, padding=(0, 2))
        for pairs, documents in counts["pairs_per_document"].items():
            table.add_row(pairs, f"{documents}")
        console.print(table)
    if drops.counts:
        table = Table("left out", "count", "why", "first", box=None, padding=(0, 2))
        for item in counts["dropped"]:
            table.add_row(item["what"], f"{item['count']}", item["reason"], _short(item["first"], 60))
        console.print(table)


def _image(pair: Pair) -> str:
    from aim_sdk.files.images import describe

    if not isinstance(pair.image, str):
        return describe(pair.image)
    path = Path(pair.image)
    return f"{_short(path.name, 40)} ({path.stat().st_size} bytes)"


def _short(text: str, width: int) -> str:
    """One line."""
    from aim_sdk.support.terminal import clean

    line = clean(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"
