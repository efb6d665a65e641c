"""The text tokens of a prompt's pieces, and where they stand once the processor has expanded the images.

They are found in the *unexpanded* prompt, in which one image is at most two tokens: whatever else the processor writes
for an image (tiles, rows, line ends between them) lies between these two, and is not text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from aim_backends.hf.prompts import Piece, PromptRenderer
from aim_sdk.errors import FormatError, UnsupportedModelError


@dataclass(frozen=True)
class Layout:
    """What the processor writes for an image, without the visual tokens between the first and the last one."""

    placeholder: str
    expansion: str
    end: str = field(default="", kw_only=True)
    """What the processor puts after every prompt."""
    start: str = field(default="", kw_only=True)
    """What the processor puts before every prompt, such as a BOS of its own."""
    bare: bool = field(default=False, kw_only=True)
    """Whether the processor by itself adds no special token, such as BOS."""
    writes_bos: bool = field(default=False, kw_only=True)
    """Whether BOS is part of the laid out text, wherever it stands there."""

    def __call__(self, text: str) -> str:
        """Write a prompt as the processor does."""
        body = self.body(text)
        return body if body.endswith(self.end) else body + self.end

    def body(self, text: str) -> str:
        """Write the beginning of a prompt: its images, but not its end."""
        return self.start + text.replace(self.placeholder, self.expansion)

    def given(self, text: str) -> str:
        """What the processor is given, so that it writes this prompt."""
        return text.removesuffix(self.end)


@dataclass(frozen=True)
class BosLayout(Layout):
    """A processor that puts BOS after an image which begins the prompt; BOS is written first, so it does not."""

    bos: str

    def body(self, text: str) -> str:
        return super().body(self.given(text))

    def given(self, text: str) -> str:
        return text if text.startswith(self.bos) else self.bos + text


@dataclass(frozen=True, slots=True)
class TextTokens:
    """A demonstration's text tokens, without prefix and image."""

    prefix_ids: tuple[int, ...]
    ids: tuple[int, ...]
    places: tuple[int, ...]
    """The positions of the ids in the unexpanded prompt ``prefix + demonstration``."""
    unexpanded: tuple[int, ...]
    image_position: int
    answer_start: int


class Tokens:
    """Tokenises unexpanded prompts.

    Raises:
        UnsupportedModelError: the tokenizer gives no character offsets.
    """

    def __init__(self, tokenizer: Any, images: Collection[int], layout: Layout) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise UnsupportedModelError(
                f"{type(tokenizer).__name__} gives no character offsets; expected a fast tokenizer (tokenizer.json)."
            )
        self._tokenizer, self._images, self.layout = tokenizer, frozenset(images), layout

    def adds_special(self, prompt: str) -> bool:
        """Whether the tokenizer must still put its own BOS before a rendered prompt."""
        bos = self._tokenizer.bos_token
        return not (self.layout.start or self.layout.bare) and not (bos and prompt.startswith(bos))

    def encode(self, prompt: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokenise an unexpanded prompt whose images are laid out: ids and character offsets."""
        special = not self.layout.writes_bos and self.adds_special(prompt)
        encoded = self._tokenizer(prompt, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        return list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]]

    def prefix_ids(self, prefix: str, prompt: str) -> list[int]:
        """The tokens (BOS, system prompt) before a prompt's first piece."""
        ids, offsets = self.encode(self.layout(prompt))
        return ids[: _length_before(len(self.layout.body(prefix)), offsets)]

    def prefix_length(self, prefix: str, prompt: str, expanded: Sequence[int]) -> int:
        """How many of the processor's ids stand before a prompt's first piece.

        Raises:
            FormatError: the processor's ids begin with other text than the unexpanded prompt.
        """
        head = self.prefix_ids(prefix, prompt)
        length, same = len(head), head == list(expanded[: len(head)])
        if not self._images.isdisjoint(head):  # this family's image stands before everything else
            (old_first, old_last), (new_first, new_last) = self.image_span(head), self.image_span(expanded)
            length += new_last - old_last
            text = [*expanded[:new_first], *expanded[new_last + 1 : length]]
            same = [*head[:old_first], *head[old_last + 1 :]] == text
        if not same:
            raise FormatError("the processor writes the beginning of the prompt differently from its tokenizer.")
        return length

    def demonstration(self, prompts: PromptRenderer, piece: Piece) -> TextTokens:
        """Tokenise one demonstration after the prefix."""
        text = prompts.prefix + piece.text
        ids, offsets = self.encode(self.layout(text))
        border, stop = len(self.layout.body(prompts.prefix)), len(self.layout.body(text))
        # From the end: the layout changes lengths at the image, and the answer comes after it.
        answer = stop - (len(piece.text) - piece.answer_start)
        places = [
            i for i, (start, end) in enumerate(offsets) if end > border and start < stop and ids[i] not in self._images
        ]
        first, last = self.image_span(ids)  # what stands between, of the template's, belongs to the image
        places = [place for place in places if not first < place < last]
        return TextTokens(
            prefix_ids=tuple(i for i in ids[: _length_before(border, offsets)] if i not in self._images),
            ids=tuple(ids[place] for place in places),
            places=tuple(places),
            unexpanded=tuple(ids),
            image_position=sum(place < first for place in places),
            answer_start=next(n for n, place in enumerate(places) if offsets[place][1] > answer),
        )

    def continuation(self, prompt: str, answer: str, end: str = "") -> list[int]:
        """The tokens of ``answer`` as it would be tokenised after ``prompt``, and the first one of ``end``."""
        start = len(self.layout(prompt))
        stop = start + len(answer)
        ids, offsets = self.encode(self.layout(prompt) + answer + end)
        after = [(index, first) for index, (first, last) in zip(ids, offsets, strict=True) if last > start]
        ended = sum(first < stop for _, first in after) + bool(end)
        return [index for index, _ in after[:ended]]

    def image_span(self, ids: Sequence[int]) -> tuple[int, int]:
        """First and last place of the image's tokens.

        Raises:
            FormatError: there is none.
        """
        places = [place for place, index in enumerate(ids) if index in self._images]
        if not places:
            raise FormatError("the prompt holds no image token; the chat template or the format string dropped it.")
        return places[0], places[-1]

    def expanded_places(self, tokens: TextTokens, expanded: Sequence[int]) -> list[int]:
        """Where a demonstration's text tokens stand in the processor's ids of the same prompt.

        Raises:
            FormatError: the processor's ids hold other text than the unexpanded prompt.
        """
        old_first, old_last = self.image_span(tokens.unexpanded)
        # An image is all between the text before and after it.
        new_first, new_last = old_first, len(expanded) - len(tokens.unexpanded) + old_last
        same_head = list(tokens.unexpanded[:old_first]) == list(expanded[:new_first])
        if not same_head or list(tokens.unexpanded[old_last + 1 :]) != list(expanded[new_last + 1 :]):
            names = self._tokenizer.convert_ids_to_tokens
            raise FormatError(
                "the processor writes the text around the image differently from a text-only prompt:\n"
                f"  text-only: {names(list(tokens.unexpanded))}\n"
                f"  with image: {names([*expanded[: new_first + 1], *expanded[new_last:]])}"
            )
        shift = new_last - old_last
        return [place if place < old_first else place + shift for place in tokens.places]

    def origins(self, unexpanded: Sequence[int], expanded: Sequence[int]) -> list[int]:
        """Which unexpanded token each of the processor's tokens of the same prompt comes from.

        What the processor writes for an image, text between its tiles included, comes from the image's first token.

        Raises:
            FormatError: the processor's ids hold other text than the unexpanded prompt.
        """
        runs, found = deque(self._runs(unexpanded)), list[int]()
        image = None
        for visual, places in self._runs(expanded):
            ids = [expanded[place] for place in places]
            old = runs[0][1] if runs and runs[0][0] == visual else []
            text = [] if visual else [unexpanded[place] for place in old]
            if visual and old:
                image = old[0]
                found += [image] * len(places)
                runs.popleft()
            elif text and ids[-len(text) :] == text and (image is not None or len(ids) == len(text)):
                found += [image] * (len(ids) - len(text)) if image is not None else []  # some is the image's
                found += old
                runs.popleft()
                image = None
            elif image is not None:  # still inside that image
                found += [image] * len(places)
        if runs or len(found) != len(expanded):
            raise FormatError("the processor writes the text around the images differently from a text-only prompt.")
        return found

    def _runs(self, ids: Sequence[int]) -> list[tuple[bool, list[int]]]:
        """The places of each run of image tokens, or of text tokens."""
        return [(visual, list(run)) for visual, run in groupby(range(len(ids)), lambda n: ids[n] in self._images)]


def _length_before(border: int, offsets: Sequence[tuple[int, int]]) -> int:
    return next((i for i, (_, end) in enumerate(offsets) if end > border), len(offsets))
