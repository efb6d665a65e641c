"""Stage ``demo_data``: pack held-out drawings and label words for the demo that ships with the backend."""

import json
import random
import shutil
from pathlib import Path
from typing import Any, Final

from PIL import Image

from aim_backends.pocket.model import PocketModel
from benchmarks.pocket.catalog import Concept, load_catalog
from benchmarks.pocket.config import SEED, SHIPPED, WORK
from benchmarks.pocket.sources import HELD_OUT_STYLE, STYLES
from benchmarks.pocket.words import Words

_FOLDER: Final = SHIPPED / "demo"
_PIXELS: Final = 96
_COLOURS: Final = 48
_WORDS: Final = Path(__file__).parent / "demo_words.txt"
_DEMONSTRATIONS: Final = 2


def build() -> None:
    """Write the drawings, ``demo.json`` and ``ATTRIBUTION.md``."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    entries = [entry for concept in load_catalog() if concept.held_out for entry in _pack(concept)]
    sources = {
        style.name: {"package": f"{style.package}@{style.version}", "licence": style.licence, "credit": style.credit}
        for style in STYLES
    }
    contents = {"sources": sources, "label_words": _label_words(), "drawings": entries}
    (_FOLDER / "demo.json").write_text(json.dumps(contents, indent=0) + "\n", encoding="utf-8")
    (_FOLDER / "ATTRIBUTION.md").write_text(_attribution(), encoding="utf-8")
    size = sum(path.stat().st_size for path in _FOLDER.rglob("*") if path.is_file())
    print(f"{len(entries)} drawings, {size / 1e6:.2f} MB")


def _pack(concept: Concept) -> list[dict[str, Any]]:
    """Save one drawing in the held-out style and two in training styles of different makers."""
    styles = concept.styles()
    random.Random(f"{SEED}:{concept.name}").shuffle(styles)
    makers = {style.split("-")[0].replace("noto", "google"): style for style in styles}
    chosen = [HELD_OUT_STYLE, *list(makers.values())[:_DEMONSTRATIONS]]
    return [
        {
            "concept": concept.name,
            "category": concept.category,
            "style": style,
            "file": _save(WORK / concept.drawings[style], Path(style) / f"{concept.name.replace(' ', '-')}.png"),
        }
        for style in chosen
    ]


def _save(source: Path, target: Path) -> str:
    image = Image.open(source).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, image).convert("RGB").resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    (_FOLDER / target).parent.mkdir(parents=True, exist_ok=True)
    flat.quantize(_COLOURS, dither=Image.Dither.NONE).save(_FOLDER / target, optimize=True)
    return target.as_posix()


def _label_words() -> list[str]:
    """Read the chosen words (whole and harmless ones), and check that they were held out."""
    chosen = _WORDS.read_text(encoding="utf-8").split()
    if seen := set(chosen) - set(Words(PocketModel.load_base()).held_out):
        raise ValueError(f"not held out: {', '.join(sorted(seen))}")
    return sorted(chosen)


def _attribution() -> str:
    rows = "\n".join(
        f"| `{style.name}` | {style.credit} | `{style.package}` {style.version} | {style.licence} |" for style in STYLES
    )
    return (
        "# Drawings\n\n"
        "The drawings in these folders come from the packages below. They were rendered on white at "
        f"{_PIXELS} x {_PIXELS} pixels with at most {_COLOURS} colours; nothing else was changed.\n\n"
        "| folder | work and authors | package | licence |\n| --- | --- | --- | --- |\n"
        f"{rows}\n\n"
        "Licence texts: [Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0), "
        "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/), [MIT](https://opensource.org/license/mit).\n"
    )
