"""A projector's model card: what it is, the line that loads it, and what its training says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import to_json

CARD_FILE: Final = "README.md"

CARD: Final = """---
{{ card_data }}
{%- if base_model %}
base_model: {{ base_model }}
{%- endif %}
---

# AIM projector ({{ kind }}) for {{ backbone }}

Turns the frozen backbone's readings of image+text demonstrations ({{ sizes }}) into fused virtual tokens.

```python
from aim_sdk import AIMPipeline

pipe = AIMPipeline.from_pretrained("{{ backend }}", model="{{ backbone }}", projector="path/or/hub-id/of/this/folder")
```

## Training

{{ training }}
"""


def training(summary: Mapping[str, Any]) -> str:
    """What a summary says: its verdict, the measures on held-out episodes as a table, and all of it as JSON."""
    if not summary:
        return "None: the weights are those that training begins with."
    told = to_json(dict(summary), inf_nan_mode="null").decode()
    parts = [str(summary["verdict"]).capitalize() + "."] if summary.get("verdict") else []
    parts += [table] if (table := _table(summary.get("held_out"))) else []
    details = f"<details><summary>Settings and numbers</summary>\n\n```json\n{told}\n```\n\n</details>"
    return "\n\n".join([*parts, details])


def _table(held_out: Any) -> str:
    """The measures, a row for each way in which the demonstrations enter; empty if there are none of this form."""
    try:
        rows = list(dict.fromkeys(row for measure in held_out.values() for row in measure))
        cells = [[_estimate(measure.get(row)) for measure in held_out.values()] for row in rows]
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
    lines = [["on held-out episodes", *map(str, held_out)], ["---"] * (1 + len(held_out))]
    lines += [[str(row), *found] for row, found in zip(rows, cells, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _estimate(found: Any) -> str:
    if found is None or not found["n"]:
        return ""
    error = "" if found["error"] is None or math.isnan(found["error"]) else f" ± {found['error']:.3f}"
    return f"{found['mean']:.3f}{error} (n={found['n']})"


def base_model(backbone: str) -> str | None:
    """The backbone's id on the Hub; None if its name is that of a folder."""
    return backbone if backbone.count("/") == 1 else None
