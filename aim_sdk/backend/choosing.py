"""What a pipeline is made from when it is given a backend's name or class, a loaded backend, a model or a projector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.registry import BACKENDS, get_backend
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, InputError
from aim_sdk.files.atomic import expanded
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.saved import CONFIG_FILE

ANY = "auto"
"""The backend that serves a model by its files alone."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A backend, and what is still to be loaded for it."""

    backend: type[Backend] | Backend
    model: str | None = None
    projector: Projector | None = None


def choose(given: str | Path | type[Backend] | Backend | Projector, model: str | Path | None) -> Chosen:
    """Find out which backend, model and projector are meant.

    Args:
        given: a registered name, a backend's class, a loaded backend, a projector or its folder or hub id, or the
            folder or hub id of a model.
        model: the model that is also named; None: the one that `given` implies.

    Raises:
        UnknownBackendError: a name that nobody registers, and that is not a folder or hub id.
        InputError: it is none of these, or implies no model.
    """
    named = None if model is None else str(model)
    if isinstance(given, Backend):
        if named is not None:
            raise InputError(f"the backend {given.name!r} is loaded already; leave out model={named!r}.")
        return Chosen(given)
    if isinstance(given, type) and issubclass(given, Backend):
        return Chosen(given, named)
    if isinstance(given, Projector):
        return _of_projector(given, named)
    if not isinstance(given, str | Path):
        raise InputError(
            f"{given!r}: expected a backend's name or class, a loaded backend, a saved projector, or a model."
        )
    if isinstance(given, str) and given in BACKENDS:
        return Chosen(get_backend(given), named)
    text, folder = str(given), expanded(given)
    if (folder / CONFIG_FILE).is_file():
        return _of_projector(Projector.from_pretrained(text), named)
    if folder.is_dir() or "/" in text:
        if named is not None:
            raise InputError(f"{text} is a model, and so is model={named!r}; leave one of them out.")
        if not folder.is_dir() and (projector := _on_the_hub(text)) is not None:
            return _of_projector(projector, None)
        return Chosen(get_backend(ANY), text)
    return Chosen(get_backend(text), named)  # which says what there is


def _on_the_hub(name: str) -> Projector | None:
    try:
        return Projector.from_pretrained(name)
    except ArtifactNotFoundError:  # a model, or nothing; loading it will tell
        return None


def _of_projector(projector: Projector, model: str | None) -> Chosen:
    made = projector.fingerprint
    if made is None:
        raise ArtifactError("this projector belongs to no backbone yet. Next: name a backend, and pass projector=...")
    if model is None and "/" not in made.model:
        raise InputError(
            f"this projector was made with {made.model!r} of backend {made.backend!r}, which is not a hub id.\n"
            f"Next: pass model=<the folder of {made.model!r}>."
        )
    return Chosen(get_backend(made.backend), model or made.model, projector)
