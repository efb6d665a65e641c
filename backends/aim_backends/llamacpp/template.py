"""A plain format out of a model's chat template: the template is asked, not read."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError

_IMAGE, _TEXT, _ANSWER = "\ue000", "\ue001", "\ue002"
"""Characters that no template writes."""
BARE: Final = PromptFormat.plain("{image}\n{text}\n{answer}\n")
"""For models without a template that can be used."""


def plain_format(template: str | None, *, bos: str, eos: str) -> PromptFormat:
    """The format that a chat template writes for turns of one image with its text, and an answer.

    BOS is left out: it is put in front by the backend. `BARE` if there is no template, or it cannot be written as a
    format (it numbers turns, say).
    """
    if template is None:
        return BARE
    for content in (f"{_IMAGE}\n{_TEXT}", [{"type": "text", "text": f"{_IMAGE}\n{_TEXT}"}]):
        answer: Any = _ANSWER if isinstance(content, str) else [{"type": "text", "text": _ANSWER}]
        try:
            return _asked(template, content, answer, {"bos_token": bos, "eos_token": eos})
        except (TemplateError, ValueError, TypeError, IndexError, FormatError):
            continue
    return BARE


def _asked(template: str, content: Any, answer: Any, tokens: dict[str, str]) -> PromptFormat:
    """Raises: ValueError: what comes before an image, between and after does not repeat from turn to turn."""
    written = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    user, assistant = {"role": "user", "content": content}, {"role": "assistant", "content": answer}

    def render(*messages: dict[str, Any], asks: bool) -> str:
        text = written.render(messages=messages, add_generation_prompt=asks, **tokens)
        return text.removeprefix(tokens["bos_token"])

    turn, whole = render(user, assistant, asks=False), render(user, assistant, user, asks=True)
    first, between, answered = _split(turn, _IMAGE, _TEXT, _ANSWER)[:3]
    suffix = turn.partition(_ANSWER)[2]
    again = whole.partition(_ANSWER)[2]
    before = again.partition(_IMAGE)[0].removeprefix(suffix)
    if not (again.startswith(suffix) and first.endswith(before)):
        raise ValueError
    asked = again.partition(_TEXT)[2]
    if asked.rstrip() != answered.rstrip() or not whole.startswith(turn):
        raise ValueError
    pieces = [_escaped(piece) for piece in (before, between, answered, suffix)]
    template = "{}{{image}}{}{{text}}{}{{answer}}{}".format(*pieces)
    return PromptFormat.plain(template, system=first.removesuffix(before) or None)


def _split(text: str, *marks: str) -> list[str]:
    """Raises: ValueError: a mark is not there once, in its order."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError
        part, _, text = text.partition(mark)
        parts.append(part)
    return [*parts, text]


def _escaped(piece: str) -> str:
    return piece.replace("{", "{{").replace("}", "}}")
