"""Prompts of a plain format: segments tokenised one by one, so that a demonstration's tokens depend on no neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from aim_backends.shared.text import TextModel
from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError, InputError
from aim_sdk.types import Demonstration, Query

SpecialTokens = Literal["refuse", "allow"]
"""What happens to a user's text that holds a special token."""


@dataclass(frozen=True, slots=True)
class PromptSegments:
    """Token ids around one image."""

    before: list[int]
    after: list[int]
    answer: list[int]

    @property
    def text(self) -> list[int]:
        """All of them: the text-only form."""
        return self.before + self.after + self.answer


class SegmentWriter:
    """Writes demonstrations and queries as token ids. A text adds no special token to those that its format writes."""

    def __init__(self, model: TextModel, special_tokens: SpecialTokens = "refuse") -> None:
        if special_tokens not in get_args(SpecialTokens):
            raise InputError(f"special_tokens={special_tokens!r}; expected 'refuse' or 'allow'.")
        self._model = model
        self._special = model.special_tokens if special_tokens == "refuse" else {}

    def opening(self, prompt_format: PromptFormat) -> list[int]:
        """BOS and the system text, which is the developer's and may hold special tokens."""
        self._check_kind(prompt_format)
        return [*self._model.opening_ids, *self._model.tokenize(prompt_format.system or "")]

    def demonstration(self, item: Demonstration, prompt_format: PromptFormat) -> PromptSegments:
        """A demonstration's segments; their concatenation is its text-only form."""
        _, blanks, suffix = self._pieces(prompt_format)
        before, after = self._round_image(item.text, prompt_format)
        return PromptSegments(before, after, self._tokenize(blanks, item.answer, suffix))

    def query(self, item: Query, prompt_format: PromptFormat) -> PromptSegments:
        """A query's segments, without an answer."""
        before, after = self._round_image(item.text, prompt_format)
        return PromptSegments(before, after, [])

    def choice(self, text: str, prompt_format: PromptFormat, *, ended: bool = False) -> list[int]:
        """An answer without the suffix that would end it, or with the suffix's first token."""
        _, blanks, suffix = self._pieces(prompt_format)
        ids = self._tokenize(blanks, text, "")
        if not (ended and suffix):
            return ids
        whole = self._tokenize(blanks, text, suffix)
        return whole[: len(ids) + 1]

    def check_choices(self, choices: Sequence[str], prompt_format: PromptFormat) -> None:
        """Raises: FormatError: one writes a special token, which no answer to a constraint can."""
        for choice in choices:
            self.choice(choice, prompt_format)

    def _round_image(self, text: str, prompt_format: PromptFormat) -> tuple[list[int], list[int]]:
        before, after = self._pieces(prompt_format)[0].split("{image}")
        return self._filled(before, text), self._filled(after, text)

    def _filled(self, template: str, text: str) -> list[int]:
        """Tokenise a part of a format string, which holds the text or does not."""
        lead, field, trail = template.partition("{text}")
        return self._tokenize(lead.format(), text if field else "", trail.format())

    def _pieces(self, prompt_format: PromptFormat) -> tuple[str, str, str]:
        self._check_kind(prompt_format)
        return prompt_format.pieces()

    def _check_kind(self, prompt_format: PromptFormat) -> None:
        if prompt_format.kind != "plain":
            raise FormatError(
                f"{self._model.title} has no chat template. Use its default format, or "
                "PromptFormat.plain('... {image} ... {answer} ...')."
            )

    def _tokenize(self, lead: str, text: str, trail: str) -> list[int]:
        """Tokenise a text between what its format writes.

        Raises:
            FormatError: the text writes a special token, or completes one.
        """
        ids = self._model.tokenize(lead + text + trail)
        own, found = self._special_of(self._model.tokenize(text)), self._special_of(ids)
        if own or found != self._special_of(self._model.tokenize(lead + ("x" if text else "") + trail)):
            token = self._special[(own or found)[0]] if own or found else "what its format writes"
            raise FormatError(
                f"the text {text[:80]!r} contains the special token {token!r}, alone or together with the text next to "
                "it; "
                f"remove it, or load {self._model.title} with special_tokens='allow', if its texts are your own."
            )
        return ids

    def _special_of(self, ids: list[int]) -> list[int]:
        return [index for index in ids if index in self._special]
