"""A family's row in the syntax of the table, and the names that the table has for its facts."""

from __future__ import annotations

import json
from typing import Any, Final

from aim_backends.families import table
from aim_backends.families.table import Family, PrefixReuse

TO_BE_FOUND: Final = "to be found"
"""What forbids a reuse, in a draft that cannot tell."""
_KINDS: Final = (
    (("linear_attention", "conv", "hybrid"), table._RECURRENT),
    (("sliding_attention", "chunked_attention"), table._WINDOWED),
    (("minimax_m3_sparse", "indexed_attention"), table._BLOCKS),
)
"""Kinds of layers that read or count the padding after a prefix."""


def row_text(model_type: str, family: Family) -> str:
    """The row as it stands in the table, with the table's own names for reasons."""
    parts = (f"{name}={_text(value)}" for name, value in _said(family))
    return f'"{model_type}": Family({", ".join(parts)}),'


def prefix_row(model: Any, backbone: Any, alone: bool, padded: bool) -> PrefixReuse:
    """The table's own value for what was measured, with the reason as far as the configuration tells it."""
    if alone and padded:
        return table._ANYWHERE
    if not alone:
        if backbone.most_images == 1:
            return table._IMAGE_LEADS
        if backbone.cross_attends:
            return table._SEES_IMAGE
        return PrefixReuse(alone=False, padded=padded, why=TO_BE_FOUND)
    text = model.config.get_text_config(decoder=True)
    layers = {str(kind) for name in ("layer_types", "layers_block_type") for kind in getattr(text, name, None) or ()}
    found = (known for kinds, known in _KINDS if layers & {*kinds})
    if (known := next(found, None)) is not None:
        return known
    if getattr(text, "sliding_window", None):
        return table._WINDOWED
    return PrefixReuse(alone=True, padded=False, why=TO_BE_FOUND)


def _said(family: Family) -> list[tuple[str, object]]:
    """The facts that differ from those of a family that nobody has looked at."""
    plain = Family()
    names = Family.__dataclass_fields__
    return [(name, getattr(family, name)) for name in names if getattr(family, name) != getattr(plain, name)]


def _text(value: object) -> str:
    for name, known in vars(table).items():
        if (
            name.startswith("_")
            and isinstance(known, str | PrefixReuse)
            and known == value
            and not name.startswith("__")
        ):
            return name
    if isinstance(value, PrefixReuse):
        return f"PrefixReuse(alone={value.alone}, padded={value.padded}, why={json.dumps(value.why)})"
    return json.dumps(value) if isinstance(value, str) else repr(value)
