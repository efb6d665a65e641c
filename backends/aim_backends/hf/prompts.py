"""How demonstrations and queries become one string: the pieces of a prompt, plain or from the family's chat template.

A prompt is ``prefix + demonstration pieces + query piece``. Each piece depends on its demonstration alone, so fused
tokens can stand for it; for a chat template the pieces are cut out of rendered conversations, and it is checked that
they give the template's own conversation back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError

Message = dict[str, Any]
Render = Callable[..., str]
"""The processor's template: messages and ``add_generation_prompt`` -> string."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A demonstration as text, with the family's image placeholder in it."""

    text: str
    answer_start: int
    answer_end: int


class PromptRenderer(ABC):
    """Renders the pieces of one prompt format."""

    prefix: str
    """What comes before the first demonstration."""

    @abstractmethod
    def demonstration(self, text: str, answer: str) -> Piece:
        """Render one demonstration."""

    @abstractmethod
    def query(self, text: str) -> str:
        """Render a query up to the place of its answer."""

    def whole(self, demonstrations: Sequence[tuple[str, str]], query: str) -> str:
        """Render a prompt with its demonstrations as text."""
        pieces = [self.demonstration(text, answer).text for text, answer in demonstrations]
        return "".join([self.prefix, *pieces, self.query(query)])

    def answer(self, text: str, answer: str) -> tuple[str, str]:
        """Render ``answer`` as it continues `query`, and what the format writes after it."""
        piece, query = self.demonstration(text, answer), self.query(text)
        lead = piece.text[len(query) : piece.answer_start] if piece.text.startswith(query) else ""
        return lead + piece.text[piece.answer_start : piece.answer_end], piece.text[piece.answer_end :]


class PlainPrompts(PromptRenderer):
    """A format string."""

    def __init__(self, prompt_format: PromptFormat, placeholder: str) -> None:
        self._before, self._lead, self._after = prompt_format.pieces()
        self._placeholder = placeholder
        self.prefix = prompt_format.system or ""

    def demonstration(self, text: str, answer: str) -> Piece:
        before, answer = self.query(text) + self._lead, answer.strip()
        return Piece(before + answer + self._after, len(before), len(before) + len(answer))

    def query(self, text: str) -> str:
        return self._before.format(image=self._placeholder, text=text)


class ChatPrompts(PromptRenderer):
    """The family's own chat template: user turn = image and text, assistant turn = answer.

    Every piece is cut out of a conversation that ends in a query, because some templates write the last answer of a
    conversation differently (with an empty thought, for example).
    """

    _ANCHOR = ("Which one is the first?", "It is the 1st.")
    _OTHER = ("Which one is the second?", "It is the 2nd.")

    def __init__(self, prompt_format: PromptFormat, render: Render, placeholder: str) -> None:
        self._render = render
        self._system = _message("system", prompt_format.system) if prompt_format.system else None
        anchor, answer = self._ANCHOR
        whole = self._conversation([self._ANCHOR])
        self._end = whole[whole.rindex(answer) + len(answer) :] if answer in whole else ""
        two, one = self._conversation([self._ANCHOR], anchor), self._conversation([], anchor)
        closed = answer + self._end
        if answer not in whole or closed not in two:
            raise self._error("it does not write an answer the same way in the middle and at the end")
        self._anchored = two[: two.index(closed) + len(closed)]  # prefix + the anchor's piece
        self._query = two[len(self._anchored) :]
        self.prefix = one.removesuffix(self._query)
        if not one.endswith(self._query) or not self._anchored.startswith(self.prefix):
            raise self._error("it writes the first turn differently from the others")
        for shots in ([self._OTHER], [self._OTHER, self._ANCHOR], [self._ANCHOR, self._OTHER, self._ANCHOR]):
            self.check(shots, anchor)
        marks = self.query("x").count(placeholder), self.demonstration("x", "x").text.count(placeholder)
        if marks != (1, 1):
            raise self._error(f"it writes {placeholder!r} {marks[1]} times for one image, and {marks[0]} for a query's")

    def demonstration(self, text: str, answer: str) -> Piece:
        answer = answer.strip()
        whole = self._conversation([self._ANCHOR, (text, answer)], self._ANCHOR[0])
        piece = whole.removeprefix(self._anchored).removesuffix(self._query)
        end = len(piece) - len(self._end)
        if self._anchored + piece + self._query != whole or not piece.endswith(answer + self._end):
            raise self._error(f"it changes the answer {answer!r} or the turns around it")
        return Piece(piece, end - len(answer), end)

    def query(self, text: str) -> str:
        whole = self._conversation([self._ANCHOR], text)
        if not whole.startswith(self._anchored):
            raise self._error("a later turn changes an earlier one")
        return whole[len(self._anchored) :]

    def check(self, demonstrations: Sequence[tuple[str, str]], query: str) -> None:
        """Check that the pieces concatenate to the template's own conversation."""
        if self.whole(demonstrations, query) != self._conversation(demonstrations, query):
            raise self._error("its pieces do not concatenate to the whole conversation")

    def _conversation(self, demonstrations: Sequence[tuple[str, str]], query: str | None = None) -> str:
        messages = [self._system] if self._system else []
        for text, answer in demonstrations:
            messages += [_message("user", text, image=True), _message("assistant", answer.strip())]
        if query is not None:
            messages.append(_message("user", query, image=True))
        try:
            return self._render(messages, add_generation_prompt=query is not None)
        except Exception as error:  # a template fails in as many ways as any program
            raise self._error(f"it refuses the conversation ({type(error).__name__}: {error})") from error

    def _error(self, reason: str) -> FormatError:
        system = " (try it without the system text)" if self._system else ""
        return FormatError(
            f"this model's chat template cannot be cut into independent demonstrations: {reason}{system}.\n"
            "Next: use PromptFormat.plain('{image}Question: {text} Answer: {answer}\\n')."
        )


def _message(role: str, text: str, *, image: bool = False) -> Message:
    content: list[dict[str, str]] = [{"type": "image"}] if image else []
    if text or not image:
        content.append({"type": "text", "text": text})
    return {"role": role, "content": content}
