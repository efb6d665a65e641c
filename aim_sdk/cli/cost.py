"""``aim-icl cost``: what prompts would take, before anything is computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from aim_sdk.injection.cost import Cost
    from aim_sdk.injection.cost_sample import CostSample


def cost(
    numbers: Annotated[list[str] | None, typer.Argument(help="Numbers of shots; after --shots, more.")] = None,
    backend: options.Backend = "pocket",
    model: options.Model = None,
    shots: Annotated[
        str | None, typer.Option(help="`4,8,16`, or `--shots 4 8 16`; default: 4,8,16, if no numbers are given.")
    ] = None,
    modes: Annotated[
        str, typer.Option(help="zero-shot, aim, text-only, interleaved, no-image; separated by commas.")
    ] = "zero-shot,aim,interleaved",
    demos: Annotated[
        Path | None, typer.Option(help="Count these demonstrations: JSON lines, CSV, or a folder per answer.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Count the demonstrations of a bank, instead of --demos.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="The folder that image paths in --demos are relative to; default: its own.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Assume this text; with --demos, of images without one.")] = None,
    answer: Annotated[str | None, typer.Option(help="Assume this answer, too.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Assume images of this size; default: 640x480.")] = None,
    template: options.Template = None,
    batch_size: Annotated[int, typer.Option(help="Prompts in memory at a time.", min=1)] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 32,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what prompts would take, and whether they fit: tokens, images, bytes of keys and values, bytes in a bank.

    Nothing is computed. A model of transformers needs only its configuration and its processor: a folder without
    weights is enough, and of a model on the hub no weights are downloaded. The exit code is 0 whatever fits.
    """
    from aim_sdk.backend.registry import get_backend
    from aim_sdk.config import PromptFormat
    from aim_sdk.injection.counting import cost_of, footprint_of
    from aim_sdk.support.terminal import say_json

    kind = get_backend(backend)
    sample, warned = _sample(demos, bank, images, text, answer, image_size)
    asked_shots = [*([] if shots is None else [shots]), *(numbers or [])] or ["4,8,16"]
    counts, named = _numbers(asked_shots), [name.strip() for name in modes.split(",") if name.strip()]
    asked: dict[str, Any] = {"modes": named, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    loaded = {"device": device, "dtype": dtype, **options.of_backend(option, trust_remote_code)}
    found = cost_of(
        footprint_of(kind, model, **loaded),
        sample,
        counts,
        backend=kind.name,
        prompt_format=None if template is None else PromptFormat.plain(template),
        **asked,
    )
    if as_json:
        say_json(found.model_dump(mode="json"), indent=2)
    else:
        _print(found)
    if warned:
        raise typer.Exit(3)


def _sample(
    demos: Path | None, bank: Path | None, images: Path | None, text: str | None, answer: str | None, size: str | None
) -> tuple[CostSample, bool]:
    """What is counted, and whether some lines of it could not be used."""
    from aim_sdk.answering.queries import read_demonstrations
    from aim_sdk.errors import InputError
    from aim_sdk.files.demonstrations import check_images
    from aim_sdk.injection import cost_sample
    from aim_sdk.support.terminal import say, warn_all

    if demos is not None and bank is not None:
        raise InputError("cost: pass --demos FILE or --bank FOLDER, not both.")
    assumed = {"--answer": answer, "--image-size": size, **({"--text": text} if bank is not None else {})}
    if (demos or bank) and (extra := [name for name, value in assumed.items() if value is not None]):
        raise InputError(f"cost: {extra[0]} is for assumed demonstrations; {demos or bank} brings its own.")
    check_images(images, demos)
    if demos is not None:
        found, bad = read_demonstrations(demos, text=text or "", images=images)
        warn_all(bad)
        if text is not None and not any(item.text == text for item in found):
            say(f"cost: --text is not used: each demonstration of {demos} has a text of its own.", err=True)
        return cost_sample.real(found, source=str(demos)), bool(bad)
    if bank is not None:
        from aim_sdk.bank import DemonstrationBank  # imports torch

        with DemonstrationBank.open(bank) as opened:
            held = [entry.demonstration for entry in opened.values()]
        if not held:
            raise InputError(f"{bank}: the bank is empty. Next: leave --bank out, or `aim-icl bank add` first.")
        return cost_sample.real(held, source=str(bank)), False
    given = {"text": text, "answer": answer, "size": None if size is None else _size(size)}
    return cost_sample.assumed(**{name: value for name, value in given.items() if value is not None}), False  # type: ignore[arg-type]


def _size(text: str) -> tuple[int, int]:
    from aim_sdk.errors import InputError

    if not (found := re.fullmatch(r"\s*(\d{1,99})\s*[xX×]\s*(\d{1,99})\s*", text)):
        raise InputError(f"--image-size {text!r}: expected width and height, as in 640x480.")
    return int(found[1]), int(found[2])


def _numbers(given: list[str]) -> list[int]:
    from aim_sdk.errors import InputError

    names = [name for part in given for name in re.split(r"[,\s]+", part) if name]
    if wrong := [name for name in names if not re.fullmatch(r"\d{1,99}", name, re.ASCII)]:
        raise InputError(f"--shots {wrong[0]!r}: expected whole numbers, as in 4,8,16.")
    if not names:
        raise InputError("--shots: expected whole numbers, as in 4,8,16.")
    return [int(name) for name in names]


def _print(found: Cost) -> None:
    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.numbers import byte_count
    from aim_sdk.support.terminal import console, say

    def size(count: int | None) -> str:
        return "not known" if count is None else byte_count(count)

    limit = "no known limit" if found.context_length is None else f"{found.context_length:,} tokens"
    say(f"{found.backend}, {found.model}: {found.dtype} on {found.device}, context {limit}")
    say(f"weights {size(found.weights_bytes)}; free memory {size(found.free_bytes)}")
    say(f"counted: {found.counted_on}\n")
    rows = [
        [
            prompt.mode,
            str(prompt.shots),
            "" if prompt.tokens is None else f"{prompt.tokens:,}",
            str(prompt.images),
            "" if prompt.problem else size(prompt.kv_bytes),
            "" if prompt.problem else size(prompt.memory_bytes),
            prompt.verdict,
        ]
        for prompt in found.prompts
    ]
    head = ("mode", "shots", "tokens", "images", "KV", f"memory x {found.batch_size}", "fits")
    console().print(FittedTable(head, rows, keys=2))
    say("")
    if found.bank_bytes_each is not None:
        whole = "" if found.bank_bytes is None else f", {byte_count(found.bank_bytes)} for all"
        each = byte_count(found.bank_bytes_each)
        say(f"In a bank: up to {found.fused_tokens:,} fused tokens, {each} a demonstration{whole}; and 1 to 2 kB each.")
    for reason in dict.fromkeys(prompt.problem for prompt in found.prompts if prompt.problem):
        say(f"No such prompt: {reason}")
    after = f"an answer of {found.max_new_tokens:,} tokens"
    say(f"KV: of one prompt. Memory: weights and KV of {found.batch_size:,} prompts, each with {after}.")
    for note in found.notes:
        say(f"Not counted: {note}.")
