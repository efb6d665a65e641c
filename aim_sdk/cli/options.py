"""Options that several commands share."""

from typing import Annotated

import typer

Backend = Annotated[str, typer.Option(help="`aim-icl backends list` shows the names.")]
Model = Annotated[str | None, typer.Option(help="Hub id or local folder; default: the backend's.")]
Projector = Annotated[
    str | None,
    typer.Option(help="Folder, hub id, or an untrained kind (carrier, residual, ...); default: the backend's."),
]
Template = Annotated[
    str | None,
    typer.Option(help="A plain format with {image}, {text}, {answer}; default: the backend's format."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run a checkpoint's own Python code; by default, none is run."),
]
Dtype = Annotated[str | None, typer.Option(help="float32 | bfloat16 | float16.")]


def trusting(trust_remote_code: bool) -> dict[str, bool]:
    """What a backend is loaded with: backends without code of others have no such option."""
    return {"trust_remote_code": True} if trust_remote_code else {}
