"""The reader of a gateway that reads nothing: its demonstrations are in a bank that was read elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError
from aim_sdk.layers import LAST
from aim_sdk.types import Demonstration, FusedTokens, Reading


class UnreadReader(DemoReader):
    """Refuses to read.

    Args:
        bank: the folder of the bank.
    """

    reads: ClassVar[bool] = False

    def __init__(self, bank: Path) -> None:
        self._bank = bank

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> NoReturn:
        self._refuse()

    def run(self, prepared: PreparedReadings) -> list[Reading]:
        self._refuse()

    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CapabilityError(
            f"nothing can be read here: reader={str(self._bank)!r} is a bank, and no model was loaded.\n"
            "Next: reader=None, which loads the checkpoint. To choose from the bank alone, the selectors 'first', "
            "'random', 'rices', 'text' and 'mmices' read no query."
        )
