"""The ``aim-icl`` command: one module per subcommand, with heavy imports inside functions."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aim_sdk.cli import analyze, answer, backends, bank, corpus, cost, demo, serve, train
from aim_sdk.cli import eval as evaluation
from aim_sdk.errors import AIMError
from aim_sdk.support.launcher import end_with_launcher
from aim_sdk.support.terminal import clean, quiet_libraries, say


class _Commands(TyperGroup):
    """Says in one line that Ctrl-C ended a command, if the command itself says nothing."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="aim-icl",
    cls=_Commands,
    help="AIM SDK: multimodal LLMs that learn from a few image+text demonstrations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("demo")(demo.demo)
app.command("answer")(answer.answer)
app.command("cost")(cost.cost)
app.command("train", context_settings={"ignore_unknown_options": True})(train.train)
app.command("serve")(serve.serve)
app.command("serve-key")(serve.serve_key)
app.add_typer(analyze.app, name="analyze")
app.add_typer(backends.app, name="backends")
app.add_typer(bank.app, name="bank")
app.add_typer(corpus.app, name="corpus")
app.add_typer(evaluation.app, name="eval")


def _version(requested: bool) -> None:
    if requested:
        import aim_sdk

        typer.echo(f"aim-icl {aim_sdk.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)]


@app.callback()
def _options(version: Version = False) -> None:
    pass


def main() -> None:
    """Run the command line; a user's error is a message and exit code 1, Ctrl-C exit code 130, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show (LC_ALL=C) is written as \\xe4
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    quiet_libraries()
    end_with_launcher()
    with _noting_ctrl_c() as received:
        try:
            app()
        except (Exception, KeyboardInterrupt) as error:
            # If Ctrl-C interrupts an import, libraries turn it into other errors.
            sys.exit(_explained(KeyboardInterrupt() if received() else error))


def _explained(error: BaseException) -> int:
    """Say what ended a command; return the exit code. Unexpected errors are raised again."""
    if isinstance(error, KeyboardInterrupt):
        say("interrupted.", err=True)
        return 130
    if isinstance(error, BrokenPipeError):  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, AIMError):
        message = str(error)
    elif isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}."
    else:
        raise error
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(clean(message), err=True)
    return 1


@contextmanager
def _noting_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C raises KeyboardInterrupt, as usual, and is remembered."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored: the job of a script, say
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Python kills itself with SIGINT at its end if Ctrl-C ever came through an exec of text (libraries do that
        # while they are imported), whatever became of the exception; the next such exec forgets it (pythonrun.c).
        exec("")
