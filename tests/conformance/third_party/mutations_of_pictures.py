"""Bugs in the vision of Kite, which its readings, its answers and its own documentation share."""

from typing import Any

from torch import Tensor

from tests.conformance.third_party.model import KiteModel
from tests.conformance.third_party.mutant import Part
from tests.conformance.third_party.unseen import grey


class SeesGrey(KiteModel):
    def see(self, image: Any) -> Tensor:
        return super().see(grey(image))


class SeesTheFirstPatchOnly(KiteModel):
    def see(self, image: Any) -> Tensor:
        found = super().see(image)
        return found[:1].expand_as(found)


class SeesTheTopOnly(KiteModel):
    def see(self, image: Any) -> Tensor:
        found = super().see(image)
        return found[: len(found) // 2]


class CutsToASquare(KiteModel):
    """At the lower right end."""

    def see(self, image: Any) -> Tensor:
        side = min(image.size)
        return super().see(image.crop((0, 0, side, side)))


class ReadsWideOnesToTheirMiddle(KiteModel):
    def see(self, image: Any) -> Tensor:
        width, height = image.size
        return super().see(image.crop((width // 3 if width > height else 0, 0, width, height)))


CAUGHT: list[tuple[str, Part]] = [
    ("whole_picture_is_seen", SeesGrey),
    ("whole_picture_is_seen", SeesTheFirstPatchOnly),
    ("whole_picture_is_seen", SeesTheTopOnly),
    ("ends_of_long_pictures_are_seen", CutsToASquare),
    ("ends_of_long_pictures_are_seen", ReadsWideOnesToTheirMiddle),
]
"""Which check must catch which bug."""
