"""A user's text stays text: it writes no token that the model reads as a role, the end of a turn, an image or a slot.

What a text writes is seen in ids: a tokenizer may normalise it, and its ends may join what the format writes next to
them. So each text is tokenised alone, which gives an error that names the token; and a whole prompt must hold the
special tokens of its *twin*, the same prompt with a letter instead of every text, in the same order. Templates,
formats and system texts are the developer's: what they write is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

from aim_backends.hf.prompts import PromptRenderer
from aim_backends.hf.text import Tokens
from aim_sdk.errors import FormatError, InputError

SpecialTokens = Literal["refuse", "allow"]
"""What happens to a user's text that holds a special token."""

_TAG = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]+\]")
"""What a role marker looks like: `<|im_end|>`, `</s>`, `<think>`, `[INST]`."""
_UNKNOWN = "\U0010fffd"
"""A character that no vocabulary holds."""


def role_ids(tokenizer: Any, template: str) -> frozenset[int]:
    """Return the ids of all tokens with a role.

    All special tokens; of the other added ones, which may be words, those that the chat template writes as a tag.
    """
    added = tokenizer.added_tokens_decoder
    found = {index for index, token in added.items() if token.special and token.content.strip()}
    found |= {index for index in tokenizer.all_special_ids if str(tokenizer.convert_ids_to_tokens(index)).strip()}
    found |= {i for i, token in added.items() if _TAG.fullmatch(token.content) and token.content in template}
    if tokenizer.unk_token_id in tokenizer(_UNKNOWN, add_special_tokens=False)["input_ids"]:
        found.discard(tokenizer.unk_token_id)  # what any text with a rare character writes
    return frozenset(found)


def tags(rendered: str) -> frozenset[str]:
    """Return the role markers of a rendered conversation; they are not tokens in every vocabulary."""
    return frozenset(_TAG.findall(rendered))


class Roles:
    """Checks texts, prompts and answers.

    Args:
        tokenizer, tokens: the family's tokenizer, and how its prompts are tokenised.
        reserved: image tokens, the slot and tokens without an embedding: no text may hold them.
        ids: tokens with a role; none if special tokens are allowed.
        placeholder: what stands for an image in a prompt.
    """

    def __init__(
        self, tokenizer: Any, tokens: Tokens, reserved: Collection[int], ids: Collection[int], placeholder: str
    ) -> None:
        self._tokenizer, self._tokens, self._placeholder = tokenizer, tokens, placeholder
        self._reserved, self._ids = frozenset(reserved), frozenset({*reserved, *ids})
        self._of_twin = lru_cache(256)(self._of_prompt)
        self._of_end = lru_cache(256)(self._of_answer)

    def check_text(self, texts: Sequence[str], marks: Collection[str] = ()) -> None:
        """Refuse text that holds an image token, the slot, a token with a role, or one of ``marks``.

        Raises:
            FormatError: naming the token and the text.
        """
        self._check(texts, self._ids, marks)

    def check_system(self, text: str) -> None:
        """Refuse a system text that holds an image token or the slot; its special tokens are intended.

        Raises:
            FormatError: naming the token.
        """
        self._check([text], self._reserved, ())

    def check_prompt(
        self,
        prompts: PromptRenderer,
        shown: Sequence[tuple[str, str]],
        query: str | None,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Check that a prompt's texts add no special token to those that its format writes, and take none away.

        Args:
            prompts: its format.
            shown: the text and the answer of each demonstration.
            query: the query's text; None: the prompt ends after its demonstrations.
            ids: the unexpanded prompt's, if they are known.

        Raises:
            FormatError: they add or remove one.
        """
        prompt = _written(prompts, shown, query)
        found = self._of_ids(self._tokens.encode(self._tokens.layout(prompt))[0] if ids is None else ids)
        twins = tuple((_twin(text), _twin(answer)) for text, answer in shown)
        expected = self._of_twin(prompts, twins, None if query is None else _twin(query))
        if (found, prompt.count(self._placeholder)) != expected:
            self._refuse([text for item in shown for text in item] + [query or ""], found, expected[0])

    def check_answer(self, answer: str, lead: str, end: str, ids: Sequence[int]) -> None:
        """Check that the tokens of ``lead + answer`` (and the first one of ``end``) hold the format's special tokens.

        Raises:
            FormatError: they hold others.
        """
        found, expected = self._of_ids(ids), self._of_end(lead, end)
        if found != expected:
            self._refuse([answer], found, expected)

    def _check(self, texts: Sequence[str], refused: frozenset[int], marks: Collection[str]) -> None:
        for text in filter(None, texts):
            ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            index = next((index for index in ids if index in refused), None)
            if index is not None:
                token, reserved = self._tokenizer.convert_ids_to_tokens(index), index in self._reserved
            elif self._placeholder in text:
                token, reserved = self._placeholder, True
            elif (mark := next((mark for mark in marks if mark in text), None)) is not None:
                token, reserved = mark, False
            else:
                continue
            if reserved:
                raise FormatError(
                    f"the text {text[:80]!r} holds {token!r}, which this model reads as an image or a placeholder, or "
                    "does not know.\n"
                    "Next: remove it from the text; the image is put in by the prompt format."
                )
            raise FormatError(
                f"the text {text[:80]!r} holds {token!r}, which this model reads as a special token and not as text.\n"
                f"Next: remove it from the text{_OPTION}."
            )

    def _refuse(self, texts: Sequence[str], found: Sequence[int], expected: Sequence[int]) -> None:
        names = self._tokenizer.convert_ids_to_tokens
        shown = " and ".join(repr(text[:80]) for text in texts if text)
        raise FormatError(
            f"with the text {shown} the prompt holds the special tokens {names(list(found))}; its format writes "
            f"{names(list(expected))}: the text completes one, or joins its neighbour.\n"
            f"Next: change how the text begins or ends{_OPTION}."
        )

    def _of_ids(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(index for index in ids if index in self._ids)

    def _of_prompt(
        self, prompts: PromptRenderer, shown: tuple[tuple[str, str], ...], query: str | None
    ) -> tuple[tuple[int, ...], int]:
        """The special tokens of a prompt, and how often it holds the placeholder."""
        prompt = _written(prompts, shown, query)
        return self._of_ids(self._tokens.encode(self._tokens.layout(prompt))[0]), prompt.count(self._placeholder)

    def _of_answer(self, lead: str, end: str) -> tuple[int, ...]:
        return self._of_ids(self._tokens.continuation("", f"{lead}x", end))


_OPTION = (
    "; or load the backend with special_tokens='allow', if its texts are your own and may hold roles and ends of turns"
)


def _twin(text: str) -> str:
    """A harmless text in the place of one; a template may write none and a blank one in their own ways."""
    return "x" if text.strip() else text[:1]


def _written(prompts: PromptRenderer, shown: Sequence[tuple[str, str]], query: str | None) -> str:
    if query is not None:
        return prompts.whole(shown, query)
    return prompts.prefix + "".join(prompts.demonstration(text, answer).text for text, answer in shown)


def check_option(special_tokens: str) -> None:
    """Refuse an unknown setting of special tokens.

    Raises:
        InputError: it is neither of the two.
    """
    if special_tokens not in get_args(SpecialTokens):
        raise InputError(f"special_tokens={special_tokens!r}; expected 'refuse' or 'allow'.")
