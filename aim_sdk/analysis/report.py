"""The table, the plot and the result file of an attention measurement."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from aim_sdk.analysis.attention import TOKEN_KINDS, LayerAttention, Measurement, text_token_share
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.images import describe
from aim_sdk.support import figures
from aim_sdk.support.provenance import provenance
from aim_sdk.types import TokenKind

MEASURE = (
    "shares of the inner LLM's attention by kind of token: weights after the softmax, mean over heads and over the "
    "positions that predict the answer's tokens; text_share: text / (text + visual) of the demonstrations; density: "
    "share / tokens of the kind; standard errors over queries, clustered by shared demonstrations"
)
COLOURS: dict[TokenKind, str] = {
    "first": "#bbbbbb",
    "prefix": "#777777",
    "demonstration visual": "#d95f02",
    "demonstration text": "#1f6fb4",
    "query visual": "#f6b98b",
    "query text": "#a6cbe8",
    "answer": "#5aa56a",
}


def table(rows: Sequence[LayerAttention], measurements: Sequence[Measurement]) -> Table:
    """Shares in percent, a row per layer; then the demonstrations' text: its part, and its density over the images'."""
    made = Table(
        title=f"Attention of the answer by kind of token, in percent (n={len(measurements)} queries)",
        title_justify="left",
        caption=f"text: text / (text + visual) of the demonstrations ± standard error; uniform attention would give "
        f"{100 * text_token_share(measurements):.1f}\nper token: a text token's attention over a visual token's",
        caption_justify="left",
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for name in ("layer", "first", "prefix", "demo\nvisual", "demo\ntext", "query\nvisual", "query\ntext", "answer"):
        made.add_column(name, justify="right")
    made.add_column("text of the\ndemos", justify="right")
    made.add_column("per\ntoken", justify="right")
    for row in rows:
        shares = [f"{100 * row.shares[kind].mean:.1f}" for kind in TOKEN_KINDS]
        name = "all" if row.layer is None else str(row.layer)
        made.add_row(name, *shares, _text_share(row), _per_token(row), style="bold" if row.layer is None else None)
    return made


def plot(rows: Sequence[LayerAttention], measurements: Sequence[Measurement], path: Path) -> None:
    """Draw each kind's share over the layers, and next to it the text's part of the demonstrations' attention."""
    from matplotlib.ticker import MaxNLocator

    layers = [row for row in rows if row.layer is not None]
    numbers = [row.layer for row in rows if row.layer is not None]
    figure, (shares, split) = figures.panels(2, size=(5.5, 4.4))
    held = [kind for kind in TOKEN_KINDS if any(m.tokens[kind] for m in measurements)]
    bottom = [0.0] * len(layers)
    for kind in held:
        heights = [row.shares[kind].mean for row in layers]
        shares.bar(numbers, heights, 1.0, bottom, color=COLOURS[kind], label=kind)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    shares.set(title="attention of the answer", xlabel="layer", ylabel="share", ylim=(0, 1))
    shares.margins(x=0)
    shares.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, fontsize=8, frameon=False)
    shown = zip(numbers, layers, strict=True)
    seen = [(number, row.text_share) for number, row in shown if row.text_share is not None]
    split.errorbar(
        [layer for layer, _ in seen],
        [share.mean for _, share in seen],
        [math.nan if share.standard_error is None else share.standard_error for _, share in seen],
        color=COLOURS["demonstration text"],
        marker="o",
        capsize=2,
        label=f"measured ± standard error (n={len(measurements)} queries)",
    )
    uniform = text_token_share(measurements)
    split.axhline(uniform, color="black", linestyle=":", label="uniform attention (the text's part of the tokens)")
    split.set(title="text's part of the demonstrations' attention", xlabel="layer", ylim=(0, 1))
    split.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False)
    for panel in (shares, split):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    write_atomic(path, figures.png(figure))


def write_result(
    path: Path,
    backend: Backend,
    prompt_format: PromptFormat,
    rows: Sequence[LayerAttention],
    measurements: Sequence[Measurement],
    settings: dict[str, Any],
) -> None:
    """Write the summary and every query's shares, with versions and machine, as one JSON file."""
    head = {
        **provenance(),
        "measure": MEASURE,
        "settings": settings,
        "backbone": backend.fingerprint.model_dump(),
        "prompt_format": prompt_format.model_dump(),
        "text_token_share": text_token_share(measurements),
        "layers": [dataclasses.asdict(row) for row in rows],
    }
    queries = ",\n  ".join(json.dumps(_record(measurement), ensure_ascii=False) for measurement in measurements)
    # One line per query: one number per line would be tens of thousands of lines.
    text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "queries": [\n  {queries}\n ]\n}}\n'
    write_atomic(path, text.encode())


def _record(measurement: Measurement) -> dict[str, Any]:
    prompt = measurement.prompt
    return {
        "query": [_file(prompt.query.image), prompt.query.text],
        "demonstrations": [[_file(d.image), d.text, d.answer] for d in prompt.demonstrations],
        "answer": measurement.answer,
        "answer_is": "the model's own" if prompt.answer is None else "the true one",
        "group": prompt.group,
        "tokens": measurement.tokens,
        "shares": {kind: [round(share, 6) for share in values] for kind, values in measurement.shares.items()},
    }


def _text_share(row: LayerAttention) -> str:
    if row.text_share is None:
        return "-"
    error = row.text_share.standard_error
    return f"{100 * row.text_share.mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _per_token(row: LayerAttention) -> str:
    text, visual = row.densities["demonstration text"], row.densities["demonstration visual"]
    return f"{text / visual:.1f}x" if text is not None and visual else "-"


def _file(image: Any) -> str:
    return Path(describe(image)).name
