"""How prompts are written, as tokens: the chat template and plain formats; and how long they may be."""

from typing import NamedTuple

from aim_echo.model import ASSISTANT, BOS, CONTEXT, EOS, SYSTEM, USER, encode
from aim_sdk.backend import ContextLengthError, PromptFormat


class Turn(NamedTuple):
    """A demonstration or a query as tokens."""

    before: list[int]
    """What comes before the image."""
    after: list[int]
    """Between the image and the answer."""
    blanks: list[int]
    """The template's, before an answer: they are the answer's, and a query ends before them."""
    answer: list[int]
    end: list[int]
    """What the template writes after an answer."""

    @property
    def text(self) -> list[int]:
        return [*self.before, *self.after, *self.blanks, *self.answer, *self.end]


def turn(prompt_format: PromptFormat, text: str, answer: str = "") -> Turn:
    """The chat template, or a plain format as it is written; `encode` makes no special token of any text."""
    if prompt_format.kind == "chat":
        return Turn([USER], [*encode(text), EOS, ASSISTANT], [], encode(answer), [EOS])
    query, blanks, suffix = prompt_format.pieces()
    before, after = (encode(part.format(text=text)) for part in query.split("{image}"))
    return Turn(before, after, encode(blanks), encode(answer), encode(suffix))


def opening(prompt_format: PromptFormat) -> list[int]:
    """BOS and the system text: a turn of its own in a chat, verbatim in a plain format."""
    system = encode(prompt_format.system or "")
    return [BOS, SYSTEM, *system, EOS] if system and prompt_format.kind == "chat" else [BOS, *system]


def check_length(tokens: int, room: int) -> None:
    """Refuse a prompt of that many tokens, before a forward, if the model has no room for it and the answer."""
    if tokens + room > CONTEXT:
        raise ContextLengthError(
            f"the prompt has {tokens} tokens and {room} are to follow; backend 'echo' takes {CONTEXT} in all."
        )
