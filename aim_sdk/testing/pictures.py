"""The whole of a picture is seen, and its colours: shown by pairs of pictures that differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from PIL import Image, ImageChops
from torch import Tensor

from aim_sdk.backend.interfaces import Backend
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import NotApplicable, check
from aim_sdk.testing.samples import DEMONSTRATIONS, picture

_SIDE, _LONG = 64, 192
_PART = 16
_ENDS = {
    (_LONG, _SIDE): {"left end": (0, 0, _PART, _SIDE), "right end": (_LONG - _PART, 0, _LONG, _SIDE)},
    (_SIDE, _LONG): {"top": (0, 0, _SIDE, _PART), "bottom": (0, _LONG - _PART, _SIDE, _LONG)},
}
"""The ends of a wide and of a tall picture."""
_HUES = ((60, 150, 160), (160, 111, 99))
"""Two colours of the same brightness, by the mean of the channels and by the eye's weights for them."""


@check
def check_whole_picture_is_seen(backend: Backend) -> None:
    """Each corner and the middle of a square picture, and its hue, change the reading, however little.

    Catches vision that sees one part of a picture, as one patch for all or a crop at a corner, and colours that are
    turned to grey: readings, answers and the plain model share the mistake if they share the code. That one picture
    has another reading than another shows nothing of this.
    """
    plain, far, half = picture(_SIDE, _SIDE, 30), _SIDE - _PART, (_SIDE - _PART) // 2
    corners = {
        "upper left corner": (0, 0),
        "upper right corner": (far, 0),
        "lower left corner": (0, far),
        "lower right corner": (far, far),
        "middle": (half, half),
    }
    boxes = {name: (x, y, x + _PART, y + _PART) for name, (x, y) in corners.items()}
    unseen = _unseen(backend, plain, boxes)
    require(
        not unseen,
        f"two pictures of {_SIDE}x{_SIDE} that differ only in the {' or the '.join(unseen)} have the same reading, bit "
        "by bit; expected another",
    )
    flat = [_states(backend, Image.new("RGB", (_SIDE, _SIDE), colour)) for colour in _HUES]
    require(
        not torch.equal(*flat),
        f"two pictures of the colours {_HUES[0]} and {_HUES[1]}, which are equally bright, have the same reading, bit "
        "by bit; expected another: are colours turned to grey?",
    )


@check
def check_ends_of_long_pictures_are_seen(backend: Backend) -> None:
    """Both ends of a wide and of a tall picture change the reading, however little.

    Catches pictures that are cut to a square at one end. A processor of its own may keep the middle alone, as CLIP's
    does: if neither end is seen, the check does not apply, and says so, because what is at the ends of such pictures
    is lost.
    """
    lost = []
    for size, ends in _ENDS.items():
        unseen = _unseen(backend, picture(*size, 30), ends)
        require(
            len(unseen) != 1,
            f"two pictures of {size[0]}x{size[1]} that differ only at the {''.join(unseen)} have the same reading, bit "
            "by bit; expected another, as the other end has: is a picture cut to a square at one end?",
        )
        lost += unseen
    if lost:
        raise NotApplicable(f"it sees the middle of long pictures alone, and not the {', '.join(lost)}")


def _unseen(backend: Backend, plain: Image.Image, boxes: Mapping[str, tuple[int, int, int, int]]) -> list[str]:
    """The parts of a picture that do not change its reading."""
    usual = _states(backend, plain)

    def changed(box: tuple[int, int, int, int]) -> Image.Image:
        other = plain.copy()
        other.paste(ImageChops.invert(plain.crop(box)), box)
        return other

    return [name for name, box in boxes.items() if torch.equal(_states(backend, changed(box)), usual)]


def _states(backend: Backend, image: Image.Image) -> Tensor:
    shown = replace(DEMONSTRATIONS[0], image=image)
    (reading,) = backend.reader.read([shown], prompt_format=backend.default_format)
    return reading.hidden
