"""``aim-icl backends``: what is installed."""

import json

import typer

app = typer.Typer(help="The installed backends.", no_args_is_help=True)


@app.command("list")
def list_(as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table.")) -> None:
    """List the installed backends without importing any of them."""
    import dataclasses

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from aim_sdk.registry import list_backends

    found = list_backends()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(info) for info in found], indent=2))
        return
    table = Table("name", "status", "distribution", "target", box=None, header_style="bold")
    for info in found:
        colour = "green" if info.status == "ready" else "yellow"
        table.add_row(info.name, f"[{colour}]{info.status}[/]", info.origin, escape(info.target))
    Console().print(table)
