"""Pocket's prompts: segments tokenised one by one, so that a demonstration's tokens never depend on neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from aim_backends.pocket.model import PocketModel
from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError
from aim_sdk.types import Demonstration, Query

DEFAULT_FORMAT = PromptFormat.plain("Question: {text}\n{image}\nAnswer: {answer}\n")
"""The layout that pocket was trained on."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Token ids round one image."""

    before: list[int]
    after: list[int]
    answer: list[int]


class Prompts:
    """Writes demonstrations and queries as token ids."""

    def __init__(self, model: PocketModel) -> None:
        self._model = model
        special = model.tokenizer.get_added_tokens_decoder()
        self._special = {index: token.content for index, token in special.items()}

    def opening(self, prompt_format: PromptFormat) -> list[int]:
        """BOS and the system text."""
        self._check_kind(prompt_format)
        return [self._model.bos_id, *self._tokenize(prompt_format.system or "")]

    def demonstration(self, item: Demonstration, prompt_format: PromptFormat) -> Segments:
        """A demonstration's segments; their concatenation is its text-only form."""
        _, blanks, suffix = self._pieces(prompt_format)
        before, after = self._round_image(item.text, prompt_format)
        return Segments(before, after, self._tokenize(blanks + item.answer + suffix))

    def query(self, item: Query, prompt_format: PromptFormat) -> Segments:
        """A query's segments, without an answer."""
        before, after = self._round_image(item.text, prompt_format)
        return Segments(before, after, [])

    def choice(self, text: str, prompt_format: PromptFormat, *, ended: bool = False) -> list[int]:
        """An answer without the suffix that would end it, or with the suffix's first token."""
        _, blanks, suffix = self._pieces(prompt_format)
        ids = self._tokenize(blanks + text)
        if not (ended and suffix):
            return ids
        whole = self._tokenize(blanks + text + suffix)
        return whole[: len(ids) + 1]

    def _round_image(self, text: str, prompt_format: PromptFormat) -> tuple[list[int], list[int]]:
        before, after = self._pieces(prompt_format)[0].split("{image}")
        return self._tokenize(before.format(text=text)), self._tokenize(after.format(text=text))

    def _pieces(self, prompt_format: PromptFormat) -> tuple[str, str, str]:
        self._check_kind(prompt_format)
        return prompt_format.pieces()

    def _check_kind(self, prompt_format: PromptFormat) -> None:
        if prompt_format.kind != "plain":
            raise FormatError(
                "pocket has no chat template. Use its default format, or "
                "PromptFormat.plain('... {image} ... {answer} ...')."
            )

    def _tokenize(self, text: str) -> list[int]:
        ids = self._model.tokenize(text)
        for index in ids:
            if index in self._special:
                raise FormatError(f"the text {text!r} contains the special token {self._special[index]!r}; remove it.")
        return ids
