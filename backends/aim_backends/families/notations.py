"""How the families write boxes, by the name that `Family.boxes` gives.

Each was taken from what the family's authors publish: Qwen2-VL's and Qwen2.5-VL's tools for finetuning
(`process_bbox`), Qwen3-VL's notebook `2d_grounding`, InternVL's guide to grounding data, big_vision's evaluators for
PaliGemma (which divide by 1024), and transformers' `Kosmos2Processor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aim_sdk.backend.box import Box, clean_label
from aim_sdk.backend.boxes import JsonBoxes, MarkedBoxes, Notation, Steps


@dataclass(frozen=True)
class _PatchIndices(MarkedBoxes):
    """Kosmos-2: the cells of the two corners, counted row by row; a box goes from middle to middle of them."""

    def numbers_of(self, box: Box, steps: Steps) -> Mapping[str, int]:
        from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index

        one = 1 / steps[0]  # a corner within rounding of 0 would be in cell -1
        corners = (box.x1, box.y1, max(box.x2, one), max(box.y2, one))
        first, last = coordinate_to_patch_index(corners, steps[0])
        return {"first": first, "last": last}

    def box_of(self, numbers: Mapping[str, int], steps: Steps, label: str) -> Box | None:
        from transformers.models.kosmos2.processing_kosmos2 import patch_index_to_coordinate

        first, last, side = numbers["first"], numbers["last"], steps[0]
        if first % side > last % side or first // side > last // side or last >= side * side:
            return None
        x1, y1, x2, y2 = patch_index_to_coordinate(first, last, side)
        return Box(x1, y1, x2, y2, clean_label(label))


NOTATIONS: Final[Mapping[str, Notation]] = {
    "qwen2-vl": MarkedBoxes(
        box="<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>",
        group="{label}{boxes}",
        label="<|object_ref_start|>{label}<|object_ref_end|>",
        between="",
        after="",
        marks=("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
        steps=1000,
        alone=True,
    ),
    "qwen2.5-vl": JsonBoxes(steps=None, last=1),
    "qwen3-vl": JsonBoxes(steps=1000),
    "internvl": MarkedBoxes(
        box="[{x1}, {y1}, {x2}, {y2}]",
        group="{label}<box>[{boxes}]</box>",
        label="<ref>{label}</ref>",
        between=", ",
        after="",
        marks=("<ref>", "</ref>", "<box>", "</box>"),
        steps=1000,
    ),
    "paligemma": MarkedBoxes(
        box="<loc{y1:04}><loc{x1:04}><loc{y2:04}><loc{x2:04}>",
        group="{boxes}{label}",
        label=" {label}",
        between="",
        after=" ; ",
        marks=("<loc", "<seg", ";"),
        steps=1024,
        last=1,
        alone=True,
    ),
    "kosmos-2": _PatchIndices(
        box="<patch_index_{first:04}><patch_index_{last:04}>",
        group="{label}<object>{boxes}</object>",
        label="<phrase>{label}</phrase>",
        between="</delimiter_of_multi_objects/>",
        after="",
        marks=("<phrase>", "</phrase>", "<object>", "</object>", "<patch_index_", "</delimiter_of_multi_objects/>"),
        steps=None,
    ),
}
"""Every notation."""
