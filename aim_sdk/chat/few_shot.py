"""Which part of a conversation is shown and which is asked: the rule of `AIMPipeline.chat`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aim_sdk.chat.messages import Turn
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.types import Demonstration, ImageInput, Query


@dataclass(frozen=True, slots=True)
class FewShotChat:
    """A conversation as a few-shot prompt."""

    system: str | None
    """Of the conversation, which may be blank; None if it has none."""
    demonstrations: tuple[Demonstration, ...]
    query: Query


def few_shot_of(turns: Sequence[Turn]) -> FewShotChat:
    """Take the system message, the pairs of turns before the last one, and the last one.

    A user's turn with one image and the assistant's turn after it are a demonstration. The last turn is the user's and
    has one image: the query. Everything else is refused, because a backbone here is shown demonstrations that do not
    depend on each other, and not a conversation.

    Raises:
        InputError: it is no such conversation; the message says which turn, and what to do.
    """
    first = turns[0] if turns and turns[0].role == "system" else None
    rest = turns if first is None else turns[1:]
    for turn in rest:
        if turn.role == "system":
            raise InputError(f"{_where(turn)}: a system message after the first turn; expected it before all turns.")
    if not rest or rest[-1].role != "user":
        what = "no turn of the user" if not rest else "the last turn is the assistant's"
        raise InputError(f"messages: {what}; expected one that asks, at the end.")
    asked, before = rest[-1], rest[:-1]
    pairs = tuple(_demonstration(before[n], before[n + 1 : n + 2]) for n in range(0, len(before), 2))
    if not asked.images:
        earlier = any(turn.images for turn in rest[:-1])
        why = ", so this is a conversation about an earlier one.\nNext: repeat that image in the last turn"
        raise InputError(f"{_where(asked)}: the last turn has no image{why if earlier else '; a query has one'}.")
    return FewShotChat(None if first is None else first.text, pairs, Query(_only_image(asked), asked.text))


def check_texts_are_shown(chat: FewShotChat, prompt_format: PromptFormat) -> None:
    """Refuse texts that a plain template has no place for.

    Raises:
        InputError: naming the template.
    """
    if prompt_format.kind == "chat" or "{text}" in prompt_format.pieces()[0]:
        return
    if any(text.strip() for text in (chat.query.text, *(item.text for item in chat.demonstrations))):
        raise InputError(
            f"the pipeline's template {prompt_format.template!r} has no {{text}}: the texts next to the images would "
            "be left out.\nNext: send images alone, or load the pipeline with a template that shows them."
        )


def _demonstration(user: Turn, after: Sequence[Turn]) -> Demonstration:
    if user.role != "user":
        raise InputError(f"{_where(user)}: an answer to nothing; expected a user's turn with an image before it.")
    if not user.images:
        raise InputError(
            f"{_where(user)}: a turn without an image before the last one, so this is a conversation, and no list of "
            "demonstrations. Next: history='ignored' asks the last turn alone."
        )
    (answer,) = after  # neighbouring turns are of two sides, and the last one of all is the user's
    if not answer.text.strip():
        raise InputError(f"{_where(answer)}: a blank answer; a demonstration shows the response to its image.")
    return Demonstration(_only_image(user), user.text, answer.text)


def _only_image(turn: Turn) -> ImageInput:
    if len(turn.images) > 1:
        raise InputError(
            f"{_where(turn)}: {len(turn.images)} images in one turn; a demonstration and a query have one each."
        )
    (image,) = turn.images.values()
    return image


def _where(turn: Turn) -> str:
    return f"messages[{turn.place}]"
