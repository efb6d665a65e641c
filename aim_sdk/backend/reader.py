"""Reads demonstrations: what a backend author implements first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from aim_sdk.config import PromptFormat
from aim_sdk.files.images import load_image
from aim_sdk.layers import LAST
from aim_sdk.types import Demonstration, FusedTokens, Reading


class DemoReader(ABC):
    """Reads demonstrations with the frozen backbone, each on its own."""

    @abstractmethod
    def read(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> list[Reading]:
        """Read one batch of demonstrations; ``with_images=False`` reads their text alone (the no-image control).

        ``layers`` says what `Reading.hidden` holds, counted as in `aim_sdk.layers`. A reader that gives the last hidden
        states alone refuses others: `only_last(layers)`.

        Raises:
            CapabilityError: this reader cannot give these layers.
            InputError: there is no such layer.
        """

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> Callable[[], list[Reading]]:
        """Do what needs no backbone (decode, tokenise) and return the forward: calling it is `read`'s result.

        May run in another thread while the backbone computes.
        """
        decoded = [replace(item, image=load_image(item.image)) for item in demonstrations]
        return partial(self.read, decoded, prompt_format=prompt_format, with_images=with_images, layers=layers)

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Estimate how many positions each demonstration takes in a forward, visual tokens included.

        What batches are made by; an estimate in any unit sorts, one in tokens also keeps a budget.
        """
        return [len(item.text) + len(item.answer) for item in demonstrations]

    @abstractmethod
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        """Return the true input embeddings of each demonstration's text tokens: injected, they are its text."""
