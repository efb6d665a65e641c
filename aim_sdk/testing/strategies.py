"""Hypothesis strategies for what a backend is given."""

from __future__ import annotations

from hypothesis import strategies as st
from PIL import Image

from aim_sdk.types import Demonstration, Query

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@st.composite
def images(draw: st.DrawFn, *, largest: int = 64) -> Image.Image:
    """Pictures of any shape and mode: coloured, grey, with transparency, with a palette, one pixel high."""
    size = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"]))
    turn = draw(st.integers(0, 359))
    bands = [Image.linear_gradient("L").rotate(turn + more).resize(size) for more in (0, 70, 190)]
    return Image.merge("RGB", bands).convert(mode)


def texts() -> st.SearchStrategy[str]:
    """A text next to an image, possibly empty; without control characters."""
    return _TEXT


def answers() -> st.SearchStrategy[str]:
    """A demonstration's answer: never blank."""
    return _TEXT.filter(lambda text: bool(text.strip()))


def demonstrations() -> st.SearchStrategy[Demonstration]:
    """Valid demonstrations."""
    return st.builds(Demonstration, images(), texts(), answers())


def queries() -> st.SearchStrategy[Query]:
    """Valid queries."""
    return st.builds(Query, images(), texts())
