"""Reads demonstrations: what a backend author implements first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.config import PromptFormat
from aim_sdk.files.images import load_image
from aim_sdk.layers import LAST
from aim_sdk.types import Demonstration, FusedTokens, Reading


class DemoReader(ABC):
    """Reads demonstrations with the frozen backbone, each on its own."""

    reads: ClassVar[bool] = True
    """False: nothing is read here, neither demonstrations nor queries; a bank that was read elsewhere is shown."""

    def read(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> list[Reading]:
        """Read one batch of demonstrations: `prepare`, then `run`.

        Args:
            demonstrations: any number.
            prompt_format: how their text is written.
            with_images: False reads their text alone (the no-image control).
            layers: what `Reading.hidden` holds, counted as in `aim_sdk.layers`.

        Raises:
            CapabilityError: this reader cannot give these layers.
            InputError: a demonstration cannot be read, or there is no such layer.
        """
        return self.run(
            self.prepare(demonstrations, prompt_format=prompt_format, with_images=with_images, layers=layers)
        )

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> PreparedReadings:
        """Do what needs no backbone (decode, tokenise); may run in another thread while the backbone computes.

        By default, this decodes the images. Your own reader may also tokenise, and return a subclass that holds more.

        Raises:
            InputError: a demonstration cannot be read.
        """
        shown = tuple(demonstrations)
        longest = max(self.lengths(shown, prompt_format=prompt_format), default=0)
        if with_images:
            shown = tuple(replace(item, image=load_image(item.image)) for item in shown)
        return PreparedReadings(shown, prompt_format, with_images, tuple(layers), len(shown) * longest)

    @abstractmethod
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        """Read what `prepare` returned: one reading for each demonstration, in their order.

        A reader that gives the last hidden states alone refuses other layers: ``only_last(prepared.layers)``.

        Raises:
            CapabilityError: this reader cannot give these layers.
            InputError: a demonstration cannot be read, or there is no such layer.
        """

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Estimate how many positions each demonstration takes in a forward, visual tokens included, in their order.

        Batches are made by it: an estimate in any unit is enough to sort, one in tokens also keeps within a budget.
        """
        return [len(item.text) + len(item.answer) for item in demonstrations]

    @abstractmethod
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        """Return the true input embeddings of each demonstration's text tokens: injected, they are its text."""
