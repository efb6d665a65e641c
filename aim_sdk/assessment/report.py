"""An assessment for people: lines and tables for the terminal, and one HTML file with pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from aim_sdk.assessment.assessment import Assessment, Row
from aim_sdk.assessment.verdict import SURE, p_of
from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import InputError
from aim_sdk.files.atomic import write_atomic
from aim_sdk.files.images import describe, load_image
from aim_sdk.support.terminal import clean
from aim_sdk.types import ImageInput

MOST: Final = 20
"""Items of one kind that are shown, and demonstrations of each kind."""
_PIXELS: Final = 112


@dataclass(frozen=True, slots=True)
class Grid:
    """A table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(found: Assessment) -> list[Grid]:
    """The tables, without pictures: settings, confusion, calibration."""
    made = [
        Grid(
            f"Every setting on all {found.verdict.n} items: {found.metric}, and the gain over zero-shot",
            ("setting", "score", "gain", "p", "Holm's p"),
            tuple(_row(row, found.verdict.unit) for row in found.rows),
        )
    ]
    if found.confusion is not None:
        said = sorted({name for row in found.confusion.values() for name in row})
        rows = tuple((right, *(str(row.get(name, 0)) for name in said)) for right, row in found.confusion.items())
        made.append(Grid(f"Right answers (rows) and what {found.verdict.looked_at} said", ("", *said), rows))
    if found.calibration is not None:
        sure = found.calibration
        title = (
            f"Calibration: mean probability {sure.confidence:.2f}, right {sure.accuracy:.2f}, "
            f"expected error {sure.error:.2f}"
        )
        rows = tuple((f"{mean:.2f}", f"{right:.2f}", str(count)) for count, mean, right in sure.bins)
        made.append(Grid(title, ("probability of the answer", "right", "items"), rows))
    return made


def sentences(found: Assessment) -> Iterator[str]:
    """What a reader should know besides the verdict."""
    yield (
        f"Every number of the verdict is of items that did not choose the setting: {found.verdict.n} items in 5 folds, "
        "the setting of each chosen on the others. The table's numbers are of all items."
    )
    if found.left_out:
        yield f"{len(found.left_out)} demonstrations could not be asked; the first reason: {found.left_out[0]}"
    if (control := found.without_images) is not None:
        error = "" if control.standard_error is None else f" ± {control.standard_error:.0f}"
        yield (
            f"{found.verdict.looked_at} against its control, the same demonstrations read without their images: "
            f"{control.gain:+.0f}{error} (p {p_of(control.p)})."
        )
        if control.p > SURE:
            yield "So its images may decide which demonstrations are shown; what is shown of them adds little."
    refused = sum(row.refused for row in found.rows)
    if refused:
        yield f"{refused} prompts could not be answered and count as wrong; the first reason: {found.refused[0]}"


def doubts(found: Assessment, bank: DemonstrationBank) -> list[tuple[str, ...]]:
    """Demonstrations whose answers may be wrong: key, image, its answer, the likelier one, its probability."""
    return [
        (one.key[:12], _name(bank, one.key), one.answer, one.likelier, f"{one.likelier_probability:.2f}")
        for one in found.doubtful[:MOST]
    ]


def write_page(found: Assessment, bank: DemonstrationBank, path: Path, asked: Mapping[str, ImageInput]) -> None:
    """Write the HTML file, which needs no other one.

    Args:
        found: the assessment.
        bank: whose demonstrations were assessed.
        path: the file.
        asked: the image of each item.
    """
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=_shown)
    text = pages.get_template("report.html.jinja").render(
        verdict=found.verdict.sentence,
        facts=_facts(found),
        sentences=list(sentences(found)),
        grids=grids(found),
        looked_at=found.verdict.looked_at,
        wrong=[
            {
                "item": one,
                "image": thumbnail(asked.get(one.item)),
                "shown": [_card(bank, key) for key in one.shown],
            }
            for one in found.wrong[:MOST]
        ],
        wrong_in_all=len(found.wrong),
        doubtful=[{"one": one, **_card(bank, one.key)} for one in found.doubtful[:MOST]],
        doubtful_in_all=len(found.doubtful),
        harmful=[{"one": one, **_card(bank, one.key)} for one in found.influence[:MOST] if one.effect < 0],
        helpful=[{"one": one, **_card(bank, one.key)} for one in found.influence[: -MOST - 1 : -1] if one.effect > 0],
    )
    write_atomic(path, text.encode())


def thumbnail(image: ImageInput | None) -> str:
    """A small picture as a data URI; empty if the image cannot be read any more."""
    if image is None:
        return ""
    try:
        picture = load_image(image).convert("RGB")
    except InputError:
        return ""
    picture.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(value: Any) -> Any:
    """A text without characters that a browser obeys; what is HTML already stays."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _row(row: Row, unit: str) -> tuple[str, ...]:
    value = f"{row.value:.1f}{unit}" + ("" if row.standard_error is None else f" ± {row.standard_error:.1f}")
    other = row.against_zero_shot
    if other is None:
        return str(row.setting), value, "", "", ""
    error = "" if other.standard_error is None else f" ± {other.standard_error:.1f}"
    corrected = "" if row.p_corrected is None else p_of(row.p_corrected).removeprefix("= ")
    return str(row.setting), value, f"{other.gain:+.1f}{error}", p_of(other.p).removeprefix("= "), corrected


def _facts(found: Assessment) -> dict[str, Any]:
    binding = found.made["binding"]
    return {
        "items": f"{found.verdict.n} of {'a validation set' if found.validation else 'the bank itself'}",
        "demonstrations in the bank": found.demonstrations,
        "answers": "free" if found.choices is None else ", ".join(found.choices),
        "backbone": binding["fingerprint"]["model"],
        "projector": f"{binding['projector_kind']} {binding['projector_hash'][:12]}",
        "date": found.made["date"],
        "seconds": f"{found.seconds:.0f}",
    }


def _card(bank: DemonstrationBank, key: str) -> dict[str, Any]:
    """A demonstration with its picture."""
    if (entry := bank.get(key)) is None:
        return {"key": key[:12], "image": "", "text": "", "answer": "(not in the bank any more)", "name": ""}
    shown = entry.demonstration
    return {
        "key": key[:12],
        "image": thumbnail(shown.image),
        "text": shown.text,
        "answer": shown.answer,
        "name": describe(shown.image),
    }


def _name(bank: DemonstrationBank, key: str) -> str:
    return "" if (entry := bank.get(key)) is None else describe(entry.demonstration.image)


def head(rows: Sequence[Row], most: int = 12) -> list[Row]:
    """The best settings, best first, and zero-shot."""
    best = sorted(rows[1:], key=lambda row: -row.value)[:most]
    return [rows[0], *best]
