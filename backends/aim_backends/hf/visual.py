"""How many tokens the processor adds for an image to an unexpanded prompt (`aim_backends.hf.text`).

There an image has at most two tokens, besides those that frame it, which the processor or the format writes. So what is
added does not depend on the format, and a prompt has as many tokens as the unexpanded one and what its images add.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from PIL import Image

from aim_backends.hf.blame import OUT_OF_MEMORY

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

Size = tuple[int, int]
"""Width and height."""
_SQUARE: Size = (336, 336)
_PROBES: Final[tuple[Size, ...]] = ((64, 64), (120, 900), (1000, 200))
"""Sizes at which a processor's count is compared with what it writes."""


class VisualTokens:
    """Counts what images add, by their sizes, with a backbone's processor."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._measured: dict[tuple[Size, int], int] = {}

    def quick(self, sizes: Sequence[Size]) -> list[int]:
        """What an image of each size adds; if the processor does not count tokens, what a square one does for all."""
        if not self.counts:
            return [self.measured(_SQUARE)] * len(sizes)
        try:
            return [count + self._besides for count in self._counted(sizes)]
        except OUT_OF_MEMORY:
            raise
        except Exception:  # a size that it refuses later
            if len(sizes) > 1:
                return [count for size in sizes for count in self.quick([size])]
            return [self.measured(_SQUARE)] * len(sizes)

    def exact(self, size: Size, *, several: bool) -> int:
        """What one image of that size adds, alone or with others in its prompt.

        Raises:
            InputError: the processor refuses the size.
        """
        if several and self._several_differ:
            return self.measured(size, 2)
        return self.quick([size])[0] if self.counts else self.measured(size)

    def measured(self, size: Size, images: int = 1) -> int:
        """The same of one of some images of that size, by running the processor on blank ones, once.

        Raises:
            InputError: the processor refuses the size.
        """
        if (size, images) not in self._measured:
            backbone = self._backbone
            prompts = backbone.prompts(backbone.default_format)
            text = prompts.whole([("a", "b")] * (images - 1), "a")
            with backbone.processor_lock:
                outputs = backbone.process([text], [[Image.new("RGB", size)] * images], padding_side="right")
                ids, _ = backbone.tokens.encode(backbone.tokens.layout(text))
            self._measured[size, images] = (int(outputs["attention_mask"].sum()) - len(ids)) // images
        return self._measured[size, images]

    @cached_property
    def counts(self) -> bool:
        """Whether the processor counts an image's tokens without an image, and as many as it writes."""
        same = []
        for size in _PROBES:
            try:
                same.append(self._counted([size])[0] + self._besides == self.measured(size))
            except OUT_OF_MEMORY:
                raise
            except Exception:  # it does not count, or refuses this size
                continue
        return bool(same) and all(same)

    def _counted(self, sizes: Sequence[Size]) -> list[int]:
        heights = [[height, width] for width, height in sizes]
        counts = self._backbone.processor._get_num_multimodal_tokens(image_sizes=heights).num_image_tokens
        return [int(count) for count in counts]

    @cached_property
    def _besides(self) -> int:
        """What an image adds besides the tokens that the processor counts; negative if the prompt has some of them."""
        return self.measured(_SQUARE) - self._counted([_SQUARE])[0]

    @cached_property
    def _several_differ(self) -> bool:
        """Whether an image has other tokens next to others: LLaVA-OneVision cuts only a single one into tiles."""
        return self.measured(_SQUARE, 2) != self.measured(_SQUARE)
