"""The demonstrations and queries that the checks use: pictures that differ, texts of unlike lengths."""

from __future__ import annotations

from PIL import Image

from aim_sdk.types import Demonstration, Query


def picture(width: int, height: int, turn: int) -> Image.Image:
    """Draw several colours, no two of whose channels are alike: gradients, turned by `turn` degrees."""
    line, rings = (make("L").resize((width, height)) for make in (Image.linear_gradient, Image.radial_gradient))
    return Image.merge("RGB", (line.rotate(turn), line.rotate(turn + 110).point(lambda value: 255 - value), rings))


DEMONSTRATIONS = (
    Demonstration(picture(40, 50, 0), "What colour is it?", "red"),
    Demonstration(picture(64, 40, 90), "Which animal is this? A lynx, or a fox?", "It is a lynx."),
    Demonstration(picture(30, 30, 180), "And this?", "a black cat"),
)
QUERIES = (
    Query(picture(50, 50, 45), "What is this?"),
    Query(picture(64, 32, 20), "How many people are in the picture, and what are they doing there?"),
    Query(picture(32, 64, 70), "And here?"),
)
PICTURES = (picture(1200, 900, 30), picture(1000, 200, 60), picture(120, 900, 110), picture(20, 20, 250))
"""A photo, a banner, a receipt and an icon: many a processor gives them unequal numbers of tokens, or tiles."""
_THINGS = ("lynx", "fox", "cat", "dog", "owl", "hen", "ant", "bee")
LONG = " ".join(f"Is the {thing} in it, to the left of the other ones, or not?" for thing in _THINGS)
"""Longer than a question, and than what a careless adapter cuts at."""
SHOTS = (
    *DEMONSTRATIONS,
    Demonstration(picture(44, 44, 215), "Is {it} there?", "no"),
    Demonstration(picture(60, 36, 320), LONG, "The fox is."),
    Demonstration(picture(36, 52, 15), "Who sleeps?", "an owl"),
    Demonstration(picture(48, 40, 100), "How many {a, b}?", "7 of them"),
    Demonstration(picture(40, 40, 275), "Is it day?", "Yes, it is."),
)
"""More of them: eight demonstrations, one of them long, some with braces."""
CHOICES = ("No", "Yes.", "It is a lynx, or a fox.")
SYSTEM = "Look well, and then answer.\n"
