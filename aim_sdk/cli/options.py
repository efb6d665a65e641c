"""Options that several commands share."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

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


Option = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="One of the backend's own: `mmproj=FILE` (again for several)."),
]


_OF_THEIR_OWN = {
    **{name: f"--{name}" for name in ("bank", "device", "dtype", "images", "model", "projector", "selector")},
    "keep_images": "--keep-images",
    "keep_readings": "--keep-readings",
    "prompt_format": "--template",
    "trust_remote_code": "--trust-remote-code",
}
"""What a pipeline takes besides the options of its backend, and how commands spell it."""


def without_keys(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command as a result may show them."""
    return [re.sub(r"(\bapi_key=).*", r"\1...", given, flags=re.DOTALL) for given in arguments]


def of_backend(option: Sequence[str] | None, trust_remote_code: bool) -> dict[str, Any]:
    """What a backend is loaded with besides; those without code of others have no option ``trust_remote_code``.

    Raises:
        InputError: an option is not ``NAME=VALUE``, is given twice, or has a spelling of its own.
    """
    from aim_sdk.errors import InputError
    from aim_sdk.files.yaml_files import value_of

    found: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    for given in option or ():
        name, sign, value = given.partition("=")
        if not (name.isidentifier() and sign):
            raise InputError(f"--option {given}: expected NAME=VALUE, such as mmproj=FILE.")
        if name in _OF_THEIR_OWN:
            raise InputError(f"--option {given}: this is an option of its own: {_OF_THEIR_OWN[name]}.")
        if name in found:
            raise InputError(f"--option {given}: {name} is given twice.")
        found[name] = value_of(value)
    return found
