"""The ``aim-icl`` command: one module a subcommand, heavy imports inside functions."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aim_sdk.cli import analyze, answer, backends, bank, corpus, demo, train
from aim_sdk.cli import eval as evaluation
from aim_sdk.errors import AIMError
from aim_sdk.terminal import clean, say


class _Commands(TyperGroup):
    """Says in one line that Ctrl-C has ended a command that says nothing of its own."""

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
app.command("train")(train.train)
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
    try:
        app()
    except AIMError as error:
        _fail(str(error))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}.")
    except KeyboardInterrupt:
        say("interrupted.", err=True)
        sys.exit(130)


def _fail(message: str) -> None:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(clean(message), err=True)
    sys.exit(1)
