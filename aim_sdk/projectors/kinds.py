"""Projector kinds by name: the built-in ones, and those of installed distributions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aim_sdk.errors import InputError, unknown
from aim_sdk.layers import LAST
from aim_sdk.support.plugins import Registry
from aim_sdk.types import Vocabulary

if TYPE_CHECKING:
    from aim_sdk.projectors.base import Projector


class _Kinds(Registry["type[Projector]"]):
    def check(self, name: str, part: Any) -> str:
        kind = getattr(part, "kind", None)
        return "" if kind == name else f"expected a Projector of kind {name!r}, not of {kind!r}"


KINDS: Final = _Kinds(
    "projector kind",
    "aim_sdk.projectors",
    {
        "linear": "aim_sdk.projectors.linear:LinearProjector",
        "linear-norm": "aim_sdk.projectors.linear:LinearNormProjector",
        "residual": "aim_sdk.projectors.residual:ResidualProjector",
        "residual-mlp": "aim_sdk.projectors.residual:ResidualMLPProjector",
        "carrier": "aim_sdk.projectors.carrier:CarrierProjector",
        "carrier-linear": "aim_sdk.projectors.carrier:LinearCarrierProjector",
        "attention": "aim_sdk.projectors.attention:AttentionProjector",
    },
)
"""Every projector by its kind; a class of the running program is there as soon as it is defined."""


def untrained(kind: str, vocabulary: Vocabulary, *, layers: Sequence[int] = LAST, **options: Any) -> Projector:
    """Build a projector that fits a backbone, with the weights that training begins from.

    Args:
        kind: a key of [`KINDS`][aim_sdk.projectors.kinds.KINDS].
        vocabulary: the loaded backbone's (`Backend.vocabulary`).
        layers: what it reads ([`aim_sdk.layers`][aim_sdk.layers]).
        **options: other arguments of the kind's constructor.

    Raises:
        InputError: no projector is of that kind, or the kind has no such option.
        BrokenPluginError: the kind of another distribution cannot be imported.
    """
    return KINDS[kind].untrained(vocabulary, layers=layers, **options)


def check_options(kind: type[Projector], options: Iterable[str]) -> None:
    """Refuse options that a kind does not have.

    Raises:
        InputError: it names the nearest option.
    """
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "layers"]
    for name in options:
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise InputError(f"a {kind.kind!r} projector: {unknown('option', name, known)}")
