"""Writes `reference/families.md`: what becomes of every image-text-to-text family of the installed transformers.

`make reference` runs it. Nothing of the table is written by hand: the tested types come from the tiny models, all other
facts from `aim_backends.families.table`.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from aim_backends.families.table import FAMILIES, PrefixReuse, family_of
from aim_sdk.testing.tiny import TINY_MODELS, build

PAGE = Path(__file__).parent / "reference" / "families.md"
MODEL_TYPES = sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)

HEAD = """# Model families

<!-- Written by `make reference`; do not edit. -->

Every image-text-to-text `model_type` of transformers {version}.

* **Served by** names the backend. `auto` takes every family that generates from ids and images
  without an encoder-decoder LM.
* **Tested as** names the tiny model, with the family's own processor, on which the conformance tests pass: fused tokens
  that are true embeddings give exactly the plain model's logits and answers. "not tested": nobody has tried.
* **Prefix reuse** says whether fused tokens that were computed once into a cache give the logits of the whole prompt:
  "yes", "one prompt at a time" (not in a batch of unequal prompts), "no", or "unknown".

{tested} of {all} types are tested, {refused} are refused when they are loaded.

| `model_type` | Served by | Tested as | Prefix reuse | Notes |
|---|---|---|---|---|
"""


def page(tiny: Callable[[str], Path]) -> str:
    """Return the page; `tiny` gives the folder of a tiny model."""
    tested = _tested(tiny)
    counts = {
        "tested": len(tested),
        "all": len(MODEL_TYPES),
        "refused": sum(bool(f.refused) for f in FAMILIES.values()),
    }
    head = HEAD.format(version=transformers.__version__, **counts)
    return head + "".join(_row(kind, tested) for kind in MODEL_TYPES)


def _tested(tiny: Callable[[str], Path]) -> Mapping[str, Sequence[str]]:
    variants: dict[str, list[str]] = defaultdict(list)
    for variant in TINY_MODELS:
        config = json.loads((tiny(variant) / "config.json").read_text(encoding="utf-8"))
        variants[config["model_type"]].append(variant)
    return variants


def _row(kind: str, tested: Mapping[str, Sequence[str]]) -> str:
    family = family_of(kind)
    if family.refused:
        return f"| `{kind}` | refused | | | {family.refused} |\n"
    variants = ", ".join(f"`{variant}`" for variant in tested.get(kind, ())) or "not tested"
    notes = "; ".join(filter(None, (family.note, family.prefix.why)))
    return f"| `{kind}` | `{family.backend}` | {variants} | {_prefix_reuse(family.prefix)} | {notes} |\n"


def _prefix_reuse(found: PrefixReuse) -> str:
    if not found.known:
        return "unknown"
    return "yes" if found.padded else "one prompt at a time" if found.alone else "no"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(lambda variant: build(variant, Path(folder) / variant)), encoding="utf-8")
