"""``aim-icl backends``: what is installed, whether it keeps its promises, and a new one to start from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim_sdk.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aim_sdk.backend.interfaces import Backend
    from aim_sdk.testing import CheckResult

app = typer.Typer(help="List and check the installed backends, or start a new one.", no_args_is_help=True)

_COLOURS = {
    "passed": "green",
    "failed": "bold red",
    "unexpected pass": "bold red",
    "expected failure": "yellow",
    "not applicable": "dim",
}


@app.command("list")
def list_(
    capabilities: Annotated[
        bool,
        typer.Option("--capabilities", help="Also import each one, and print what its class can do; loads no model."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the installed backends; none of them is imported without --capabilities."""
    import dataclasses

    from aim_sdk.backend.registry import list_backends
    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import cell, console, say_json

    found = list_backends()
    can = {info.name: _capabilities(info.name) for info in found} if capabilities else {}
    if as_json:
        more = {name: {"capabilities": names, "error": error} for name, (names, error) in can.items()}
        say_json([dataclasses.asdict(info) | more.get(info.name, {}) for info in found], indent=2)
        return
    rows = [
        [info.name, cell(info.status, "green" if info.status == "ready" else "yellow"), info.origin, info.target]
        for info in found
    ]
    console().print(FittedTable(("name", "status", "distribution", "target"), rows))
    if capabilities:
        _show_capabilities(can)


def _capabilities(name: str) -> tuple[list[str], str | None]:
    """What a backend's class can do, by name, or what is wrong with it."""
    from aim_sdk.backend.capabilities import CAPABILITIES
    from aim_sdk.backend.registry import get_backend
    from aim_sdk.errors import AIMError

    try:
        kind = get_backend(name)
    except AIMError as error:
        return [], str(error)
    return [row.name for row in CAPABILITIES if row.of(kind)], None


def _show_capabilities(can: dict[str, tuple[list[str], str | None]]) -> None:
    """What each backend can do, and what the words mean."""
    from aim_sdk.backend.capabilities import CAPABILITIES
    from aim_sdk.support.fitted import FittedTable
    from aim_sdk.support.terminal import cell, console

    out = console()
    for name, (names, error) in can.items():
        out.print(cell(f"\n{name}: {error or ', '.join(names) or 'none besides reading and answering'}"))
    out.print("\nA backend with the capability")
    out.print(FittedTable(("", ""), [(row.name, row.does) for row in CAPABILITIES]))
    out.print("A loaded model may lack some that its class has: `aim-icl backends check NAME` says which, and why.")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="`aim-icl backends list` shows the names.")],
    model: Annotated[str | None, typer.Option(help="Hub id or local folder; default: the backend's.")] = None,
    tiny: Annotated[
        str | None, typer.Option(help="Check on a tiny random model of this variant instead, such as llava-1.5.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--check", help="Run this check alone; repeatable.")] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(help="check=reason: a known failure, or a check known not to apply; repeatable."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="Check it in this plain format with {image}, {text}, {answer}; default: its own."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 (the default on a CPU) | bfloat16 | float16.")] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run the conformance checks on a backend and print a table.

    The exit code is 1 if a check fails, passes although it is expected to fail, or does not apply although it must.
    """
    import dataclasses
    from tempfile import TemporaryDirectory

    from aim_sdk.backend.registry import get_backend
    from aim_sdk.config import PromptFormat
    from aim_sdk.support.terminal import say_json
    from aim_sdk.testing import CHECKS, run_checks
    from aim_sdk.testing.kit import in_format, known_checks

    written = None if form is None else PromptFormat.plain(form)
    backend_class = get_backend(name)
    expected = _expected(expect or [])
    known_checks([*(only or []), *expected])
    with TemporaryDirectory() as folder:
        place = _tiny(tiny, model, Path(folder)) if tiny else model
        loaded = {"device": device, "dtype": dtype, **options.of_backend(option, trust_remote_code)}
        backend = _load(backend_class, place, loaded, tiny)
        backend = backend if written is None else in_format(backend, written)
        results = run_checks(backend, expected_failures=expected, checks=only)
        if as_json:
            found = list(results)
            say_json([dataclasses.asdict(result) for result in found], indent=2)
        else:
            found = _watch(results, len(only or CHECKS), backend)
    if not all(result.ok for result in found):
        raise typer.Exit(1)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The new backend's name, such as my-vlm.")],
    out: Annotated[Path, typer.Option(help="The folder to write aim-NAME into; made if missing.")] = Path(),
) -> None:
    """Write a complete backend distribution to start from: a toy model, its adapter, its tests."""
    from aim_sdk.support.terminal import say
    from aim_sdk.testing.new import new_backend

    folder = new_backend(name, out)
    say(f"{folder}: a working backend around a toy model. Next:")
    say(f'  pip install -e "{folder}[test]"\n  pytest {folder}\n  aim-icl backends check {name}')


def _expected(items: list[str]) -> dict[str, str]:
    from aim_sdk.errors import InputError

    pairs = [item.partition("=") for item in items]
    if bad := [name for name, _, reason in pairs if not reason.strip()]:
        raise InputError(f"--expect {bad[0]!r}: expected check=reason, for example identity_beams='greedy only'.")
    return {name: reason for name, _, reason in pairs}


def _load(
    backend_class: "type[Backend]", model: str | None, loaded: dict[str, Any], tiny: str | None = None
) -> "Backend":
    """Load a backend that may be half finished: an error in its code becomes a message that says where."""
    from aim_sdk.errors import AIMError, BrokenBackendError, InputError
    from aim_sdk.testing.tracing import explained

    try:
        return backend_class.from_pretrained(model, **loaded)
    except AIMError as error:
        if tiny is None:
            raise
        raise InputError(
            f"backend {backend_class.name!r} cannot load the tiny random {tiny!r} model that --tiny made for it: "
            f"{error}\nNext: leave --tiny out, or name a variant of its own family."
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise BrokenBackendError(
            f"{backend_class.__name__}.from_pretrained({model!r}) failed: {explained(error)}"
        ) from error


def _tiny(variant: str, model: str | None, folder: Path) -> str:
    from aim_sdk.errors import InputError
    from aim_sdk.testing.tiny import build

    if model is not None:
        raise InputError("--tiny makes its own model; leave --model out.")
    return str(build(variant, folder / variant))


def _watch(results: "Iterator[CheckResult]", total: int, backend: "Backend") -> "list[CheckResult]":
    """Show a bar while the checks run, then their table."""
    from rich.table import Column, Table

    from aim_sdk.support.progress import Progress
    from aim_sdk.support.terminal import cell, console, say
    from aim_sdk.testing import count
    from aim_sdk.testing.kit import by_message

    _show_abilities(backend)
    found = []
    with Progress("checks", total) as progress:
        for result in results:
            found.append(result)
            progress.state(result.check)
            progress.advance(1)
    table = Table(Column("check", no_wrap=True), "result", "seconds", box=None, header_style="bold")
    for result in found:
        table.add_row(cell(result.check), cell(result.status, _COLOURS[result.status]), f"{result.seconds:.1f}")
    console().print(table)
    for names, status, message in by_message(
        found
    ):  # below the table: next to the names it would cut them, and people copy them
        console().print(cell(f"\n{', '.join(names)}: {status}", _COLOURS[status]))
        say(message)
    say(f"\n{_named(backend)}: {count(found)}")
    return found


def _show_abilities(backend: "Backend") -> None:
    """What the loaded backend can do, what it lacks, and which checks are left out for that."""
    from aim_sdk.support.terminal import say
    from aim_sdk.testing.kit import abilities

    found = abilities(backend)
    say(f"capabilities: {', '.join(name for name, lack in found.items() if lack is None) or 'none'}")
    for name, lack in found.items():
        if lack is not None:
            say(f"  without {name}: {lack}")
    say("")


def _named(backend: "Backend") -> str:
    """The backend and its model; without the model if its fingerprint fails, which a check reports."""
    try:
        return f"{backend.name}, {backend.fingerprint.model}"
    except Exception:
        return str(getattr(backend, "name", type(backend).__name__))
