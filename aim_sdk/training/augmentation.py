"""Episodes that only their demonstrations explain: images with new names, answers in a drawn style.

Trained on few labels or few styles, a projector learns a prior over them instead of copying from the demonstrations,
and unseen labels get worse than without it. So every episode draws its own: names out of millions that are made up (or
out of a list), and styles out of thousands of combinations. Images are shown in another view each time, so that a name
belongs to what is seen and not to the pixels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from aim_sdk.errors import ImageError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.training.config import EpisodeSettings
from aim_sdk.training.corpora.documents import Pair
from aim_sdk.training.episode import Episode
from aim_sdk.training.things import things
from aim_sdk.types import Demonstration, ImageInput, Query

_QUESTIONS: Final = (
    "What is this called?",
    "Which name belongs to this?",
    "Which word goes with this picture?",
    "What is the label?",
    "Name it.",
)
_ONSETS: Final = tuple("b c d f g h j k l m n p r s t v w z bl br ch cl dr fl gr kl pr sh sk sn st tr".split())  # noqa: SIM905
_VOWELS: Final = tuple("a e i o u ai ea ee oo ou".split())  # noqa: SIM905
_CODAS: Final = tuple("b d f g k l m n p r s t x z ck ft lm nd nt rk rn sh st".split())  # noqa: SIM905
_PREFIXES: Final = ("", "a ", "the ", "this is ", "it shows ", "I see ", "look: ", "- ", "* ", "# ", "[", "<", "(", '"')
_SUFFIXES: Final = (
    "",
    "!",
    "?",
    ";",
    "...",
    " indeed",
    " here",
    ", yes",
    " :)",
    " (picture)",
    "]",
    ">",
    ")",
    '"',
    "!!",
)
_CASES: Final[tuple[Callable[[str], str], ...]] = (str, str, str.lower, str.upper, str.title)
_MOST_NAMES: Final = 4
_VIEW: Final = 1024
"""Pixels of a view's longer side: turning an image takes time, and backbones look at fewer."""


class Augmentation:
    """Draws names and styles.

    Args:
        settings: the run's.
        common: words of the corpus that tell no thing from another.

    Raises:
        InputError: the list of label words cannot be read, or holds fewer words than an episode has names.
    """

    def __init__(self, settings: EpisodeSettings, common: frozenset[str]) -> None:
        self._relatives, self._common = settings.relatives, common
        self._questions = (*_QUESTIONS, *filter(None, [settings.text]))
        self._words: tuple[str, ...] = ()
        if settings.label_words is not None:
            try:
                lines = settings.label_words.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"label_words: {settings.label_words} cannot be read ({error}).") from error
            self._words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
            if len(self._words) < _MOST_NAMES:
                raise InputError(
                    f"label_words: {settings.label_words} holds {len(self._words)} words; expected many, "
                    f"{_MOST_NAMES} at least."
                )

    def naming(self, rng: random.Random, document: str, pairs: Sequence[Pair], shots: int) -> Episode:
        """Give two to four of the page's things a name each, show pictures of them, and ask for one of them.

        In the share ``relatives`` of the episodes, where the page has two pictures of one thing, each thing is shown in
        all pictures that the page has of it, and the query is a picture that is not shown. In all others each thing is
        shown in one picture, and the query is another view of one of them. The question is one of a few, of which the
        settings' own text for an image is one.
        """
        found = things([pair.answer for pair in pairs], self._common)
        if len(found) < 2:
            found = [[place] for place in range(len(pairs))]
        number = min(len(found), shots, rng.randint(2, _MOST_NAMES))
        found = [rng.sample(thing, len(thing)) for thing in rng.sample(found, len(found))]
        shown_twice = [thing for thing in found if len({pairs[place].image for place in thing}) > 1]
        if shown_twice and rng.random() < self._relatives:
            found.sort(key=lambda thing: thing is not shown_twice[0])
            queried, *others = found[0]
            chosen = [[place for place in others if pairs[place].image != pairs[queried].image], *found[1:number]]
        else:
            chosen = [thing[:1] for thing in found[:number]]
            queried = chosen[0][0]
        names = self.names(rng, number)
        question = rng.choice(self._questions)
        order = [place % number for place in range(shots)]
        rng.shuffle(order)
        turns = [order[:place].count(which) for place, which in enumerate(order)]
        pictures = tuple(
            pairs[chosen[which][turn % len(chosen[which])]].image for which, turn in zip(order, turns, strict=True)
        )
        shown = tuple(
            Demonstration(view(rng, picture), question, names[which])
            for picture, which in zip(pictures, order, strict=True)
        )
        query = Query(view(rng, pairs[queried].image), question)
        return Episode(shown, query, names[0], document, pictures, names=tuple(sorted(names)))

    def names(self, rng: random.Random, number: int) -> list[str]:
        """Draw names that begin differently: made-up words, or all of them words of the list."""
        listed = bool(self._words) and rng.random() < 0.5
        names: dict[str, str] = {}
        while len(names) < number:
            name = rng.choice(self._words) if listed else _invented(rng)
            names.setdefault(name[:2] if not listed else name, name)
        return list(names.values())

    def styled(self, rng: random.Random, shown: Sequence[Demonstration]) -> list[Demonstration]:
        """Write all answers in one style: what comes before and after them, and their case."""
        prefix, suffix, case = rng.choice(_PREFIXES), rng.choice(_SUFFIXES), rng.choice(_CASES)
        return [
            replace(item, answer=answer, metadata={"id": f"{item.metadata['id']}~{prefix}~{suffix}~{case.__name__}"})
            for item in shown
            for answer in [f"{prefix}{case(item.answer)}{suffix}"]
        ]


def view(rng: random.Random, source: ImageInput) -> ImageInput:
    """Another view of an image: cropped, mirrored, turned a little, in other light; what is not an image is
    unchanged."""
    from PIL import Image, ImageEnhance, ImageOps

    try:
        image: Image.Image = load_image(source)
    except ImageError:
        return source  # it is dropped, with its reason, where it is read
    if max(image.size) > _VIEW:
        image = ImageOps.contain(image, (_VIEW, _VIEW))
    width, height = image.size
    side = rng.uniform(0.75, 1.0)
    left, top = rng.uniform(0, 1 - side) * width, rng.uniform(0, 1 - side) * height
    image = image.crop((round(left), round(top), round(left + side * width) or 1, round(top + side * height) or 1))
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = image.rotate(
        rng.uniform(-10, 10), Image.Resampling.BICUBIC, fillcolor=image.resize((1, 1)).getpixel((0, 0))
    )
    for enhance, strength in ((ImageEnhance.Brightness, 0.2), (ImageEnhance.Contrast, 0.2), (ImageEnhance.Color, 0.4)):
        image = enhance(image).enhance(1 + rng.uniform(-strength, strength))
    return image


def _invented(rng: random.Random) -> str:
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2))))
    return "".join(syllables) + rng.choice(_CODAS)
