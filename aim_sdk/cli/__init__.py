"""The ``aim-icl`` command: one module a subcommand, heavy imports inside functions."""

import sys
from typing import Annotated

import typer

from aim_sdk.cli import analyze, answer, backends, bank, corpus, demo, train
from aim_sdk.cli import eval as evaluation
from aim_sdk.errors import AIMError

app = typer.Typer(
    name="aim-icl",
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
    """Run the command line; a user's error is a message and exit code 1, never a traceback."""
    try:
        app()
    except AIMError as error:
        typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(1)
