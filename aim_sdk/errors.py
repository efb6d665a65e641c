"""Every exception that AIM SDK raises on purpose.

Each member also subclasses the builtin that a caller would catch:

    AIMError                         Exception
    ├── InputError                   ValueError          a demonstration, a query or an argument cannot be used
    │   ├── ImageError               ValueError          not an image, truncated, too large, unreadable
    │   ├── FormatError              ValueError          a prompt format does not fit the family or the text
    │   ├── ContextLengthError       ValueError          the prompt does not fit the backbone's context
    │   ├── NonFiniteError           ArithmeticError     NaN or infinity in what was computed, in this dtype
    │   ├── ShotsError               ValueError          more shots than the bank holds
    │   ├── CutAnswerError           ValueError          an answer of a schema was cut before its JSON was whole
    │   ├── MissingDataError         FileNotFoundError   some or all files of an evaluation task are missing
    │   └── UnknownEntryError        KeyError            the bank holds no such demonstration
    ├── DuplicatePluginError         RuntimeError        two distributions register one name
    ├── BrokenPluginError            ImportError         a plugin's code failed when it was imported
    ├── BackendError                 Exception
    │   ├── UnknownBackendError      KeyError            no installed distribution registers that name
    │   ├── DuplicateBackendError    RuntimeError        two distributions register one name
    │   ├── BrokenBackendError       ImportError         the backend's code failed when it was imported
    │   ├── MissingDependencyError   ImportError         a package is missing; the message holds the `pip install`
    │   ├── ModelNotFoundError       FileNotFoundError   no such model folder, or the hub cannot be reached
    │   ├── UnsupportedModelError    TypeError           the checkpoint is of a family the backend does not serve
    │   ├── CapabilityError          NotImplementedError the backend or this model cannot do what was asked
    │   └── DeviceError              ValueError          a device or dtype that does not exist here
    ├── TrainingError                RuntimeError        memory ran out, a loss is NaN or infinite, another run's folder
    └── ArtifactError                Exception
        ├── ArtifactNotFoundError    FileNotFoundError   no projector or bank there
        ├── ArtifactWriteError       OSError             disk full, read-only folder
        ├── BankLockedError          TimeoutError        another process keeps the bank's lock
        ├── CorruptArtifactError     ValueError          cut, altered or malformed file
        └── FingerprintError         ValueError          made with another backbone or projector
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

_SHOWN: Final = 200
"""Characters of a value that a message shows."""


class AIMError(Exception):
    """Base of all errors that AIM SDK raises on purpose."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return "\n".join(str(arg) for arg in self.args)


class InputError(AIMError, ValueError):
    """A demonstration, a query or an argument cannot be used as it is."""

    query: int | None = None
    """Index of the query that cannot be used, if several were given; None if the error is not about one of them."""


class ImageError(InputError):
    """An image is missing, truncated, too large, or not an image."""


class FormatError(InputError):
    """A prompt format does not fit the model family or the text."""


class ContextLengthError(InputError):
    """The prompt and the tokens to generate exceed the backbone's context."""


class NonFiniteError(InputError, ArithmeticError):
    """A reading, fused tokens, logits or weights hold NaN or infinity: the dtype overflows, or a file is damaged."""


class ShotsError(InputError):
    """More shots were asked for than there are demonstrations."""


class CutAnswerError(InputError):
    """An answer of a schema was cut, by `max_new_tokens` for example, before its JSON was whole."""


class MissingDataError(InputError, FileNotFoundError):
    """Files or images of an evaluation task are missing; the message says where they belong and where to get them."""


class UnknownEntryError(InputError, KeyError):
    """The bank holds no demonstration with that key."""


class DuplicatePluginError(AIMError, RuntimeError):
    """Two installed distributions register a plugin of one kind (a backend, a metric, ...) by the same name."""


class BrokenPluginError(AIMError, ImportError):
    """A plugin's code failed while it was imported, or it is not a part of that kind; the cause is chained."""


class BackendError(AIMError):
    """A backend cannot be found, imported or loaded."""


class UnknownBackendError(BackendError, KeyError):
    """No installed distribution registers a backend of that name."""


class DuplicateBackendError(BackendError, DuplicatePluginError):
    """Two installed distributions register a backend of the same name."""


class BrokenBackendError(BackendError, BrokenPluginError):
    """A backend's code failed while it was imported; the cause is chained."""


class MissingDependencyError(BackendError, ImportError):
    """A package that a backend needs is not installed."""


class ModelNotFoundError(BackendError, FileNotFoundError):
    """A model folder does not exist, or the hub cannot be reached."""


class UnsupportedModelError(BackendError, TypeError):
    """A checkpoint belongs to a family that this backend does not serve."""


class CapabilityError(BackendError, NotImplementedError):
    """An optional capability that this backend, or this model, does not have."""


class DeviceError(BackendError, ValueError):
    """A device or dtype does not exist on this machine."""


class TrainingError(AIMError, RuntimeError):
    """A training run cannot continue: memory ran out, a loss is NaN or infinite, or the run does not fit its folder."""


class ArtifactError(AIMError):
    """A saved projector or a bank cannot be used."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """A projector's or a bank's folder, or a file in it, does not exist."""


class ArtifactWriteError(ArtifactError, OSError):
    """A bank cannot be written: the disk is full, the folder is read-only. What was written before is safe."""


class BankLockedError(ArtifactError, TimeoutError):
    """Another process is writing to the bank and did not finish in time."""


class CorruptArtifactError(ArtifactError, ValueError):
    """A file of a projector or a bank is cut, altered or malformed."""


class FingerprintError(ArtifactError, ValueError):
    """A projector was made with another backbone, or a bank with another backbone, projector or prompt format."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of ``choices``, whatever their case, or an empty string.

    Near is what is spelled alike, or what begins with ``name`` if that has four letters or more.
    """
    folded: dict[str, list[str]] = {}
    for choice in choices:
        folded.setdefault(choice.casefold(), []).append(choice)
    asked = name.casefold()
    longer = [choice for choice in folded if len(asked) >= 4 and choice.startswith(asked)]
    close = longer or difflib.get_close_matches(asked, folded, n=3, cutoff=0.65)
    near = [choice for one in close for choice in folded[one]][:3]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(what: str, name: object, choices: Iterable[str]) -> str:
    """Return the message for a name that does not exist, with the nearest ones and all.

    ``no mode named 'aims'. Did you mean 'aim'? Expected one of: aim, text-only.``
    """
    known = list(choices)
    expected = f"Expected one of: {', '.join(known)}." if known else "There are none."
    return f"no {what} named {str(name)!r}.{did_you_mean(str(name), known)} {expected}"


def problem(error: ValidationError) -> str:
    """Return the first thing that pydantic found wrong: ``optimizer.steps: Input should be ... (got 0)``."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {said(first)}" if place else said(first)


def said(found: Mapping[str, Any]) -> str:
    """Return what pydantic says about one of its errors, with the value if the error is about one field."""
    text: str = found["msg"].removeprefix("Value error, ").removesuffix(".")
    if found["type"] == "missing" or not found["loc"]:
        return text
    value = repr(found["input"])
    return f"{text} (got {value if len(value) <= _SHOWN else value[: _SHOWN - 1] + '…'})"
