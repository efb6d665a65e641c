"""Keeps answers to a constraint, token by token: what a backend calls that has the model's logits.

llguidance says which tokens may follow; it knows the bytes of each token from the tokenizer's own file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from aim_sdk.backend.constraints import Constraint, JsonSchema, OneOf
from aim_sdk.backend.schema_refusal import refused_schema
from aim_sdk.errors import CutAnswerError, InputError
from aim_sdk.support.dependencies import imported

if TYPE_CHECKING:
    from numpy.typing import NDArray

_JSON_OPTIONS: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""Of llguidance: JSON has no blanks but one after a comma or a colon, so that a small model does not write blanks for
ever; and no ``\\u``, which would spell a declared property's name as that of another one."""
_SHOWN: Final = 200
"""Characters of an answer in a message."""


def token_bytes(tokenizer: str) -> Any:
    """The bytes of each token, as llguidance keeps them: made once, used by every `AnswerGrammar`.

    Args:
        tokenizer: the text of a Hugging Face ``tokenizer.json``.

    Raises:
        MissingDependencyError: llguidance is not installed.
    """
    library = imported("llguidance", extra="constrained")
    told = json.loads(tokenizer)
    decoders = (told.get("decoder") or {}).get("decoders", [told.get("decoder")])
    if any(decoder and decoder["type"] == "Metaspace" for decoder in decoders):  # which llguidance does not know
        blank = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        told["decoder"] = {"type": "Sequence", "decoders": [blank, {"type": "ByteFallback"}, {"type": "Fuse"}]}
        tokenizer = json.dumps(told)
    return library.LLTokenizer(tokenizer)


@dataclass(frozen=True, slots=True)
class _State:
    """What may follow some tokens of an answer."""

    matcher: Any
    allowed: NDArray[np.bool_]
    over: bool
    """The answer has ended, or nothing may follow."""
    lost: bool = False
    """The tokens are not an answer's: a beam without a chance."""


class AnswerGrammar:
    """One constraint on the answers of one call, in one model's tokens.

    An answer may begin with the format's blanks, and ends with one of the model's end tokens, with the string that the
    format writes after it, or where nothing may follow.

    Args:
        tokens: what `token_bytes` gives.
        constraint: what the answers have to be.
        ends: the model's end tokens.
        lead: how many blanks may come before the answer.
        stop: the string that ends an answer in this format, if there is one.

    Raises:
        InputError: the schema is not valid, or asks for what llguidance cannot enforce.
    """

    def __init__(
        self, tokens: Any, constraint: Constraint, *, ends: Iterable[int] = (), lead: int = 1, stop: str | None = None
    ) -> None:
        self.constraint = constraint
        self._tokens, self._ends, self._stop = tokens, frozenset(ends), stop or ""
        self._lead = max(1, lead)
        matcher = self._matcher(self._lark())
        self._size = max([tokens.vocab_size, *(end + 1 for end in self._ends)])
        self._start = self._state(matcher)
        self._known: dict[tuple[int, ...], _State] = {}

    def limit(self, max_new_tokens: int) -> int:
        """The most tokens of an answer: a choice is never cut, so its own length counts; JSON may be."""
        if isinstance(self.constraint, JsonSchema):
            return max_new_tokens
        longest = max(len(choice.encode()) for choice in self.constraint.choices)
        return self._lead + longest + len(self._stop.encode()) + 1

    def admit(self, rows: Sequence[Sequence[int]], scores: Tensor) -> Tensor:
        """Return scores ``(rows, vocabulary)`` with minus infinity for each token that may not follow a row's tokens.

        A row that has ended keeps its scores.

        Raises:
            InputError: a generation option has excluded every token that may follow.
        """
        width = scores.shape[-1]
        mask = np.ones((len(rows), width), dtype=bool)
        for place, state in enumerate(self._states(rows)):
            if not (state.over or state.lost):
                mask[place] = False
                mask[place, : self._size] = state.allowed[:width]
        made = scores.masked_fill(~torch.from_numpy(mask).to(scores.device), -torch.inf)
        if bool((made.amax(-1) == -torch.inf).any()):
            raise InputError(
                "no token that the constraint admits is left: a generation option (suppress_tokens, min_new_tokens, "
                "...) excludes them all. Next: leave that option out."
            )
        return made

    def over(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each row of tokens is a whole answer that nothing may follow."""
        return [state.over for state in self._states(rows)]

    def cut(self, ids: Sequence[int]) -> list[int]:
        """An answer's tokens, with the one that ends it, without what a batch puts after it."""
        matcher = self._start.matcher.deep_copy()
        for place, token in enumerate(ids):
            if token in self._ends and not matcher.is_stopped():
                return list(ids[: place + 1])
            if matcher.is_stopped() or token in self._tokens.eos_tokens or not matcher.consume_token(token):
                return list(ids[:place])
        return list(ids)

    def text(self, ids: Sequence[int]) -> str:
        """Decode an answer's tokens."""
        kept = [token for token in ids if token not in self._ends]
        return str(self._tokens.decode_bytes(kept).decode(errors="replace"))

    def answer(self, ids: Sequence[int]) -> str:
        """The answer that some tokens are: a choice as it was given, or JSON without blanks around it.

        Raises:
            CutAnswerError: they are not a whole answer.
        """
        text = self.text(ids)
        (state,) = self._states([ids])
        # A limit may have cut the string that ends JSON; choices are whole, and so is what an end token ends.
        cut = isinstance(self.constraint, JsonSchema) and not (ids and ids[-1] in self._ends)
        for length in range(len(self._stop), -1, -1) if cut else (len(self._stop), 0):
            value = text[: len(text) - length].strip()
            found = self.constraint.found(value) if text.endswith(self._stop[:length]) else None
            if found is not None and (length or state.over or not self._may_go_on(value)):
                return found
        if state.lost:
            raise InputError(
                f"the constraint does not admit the generated tokens ({text[:_SHOWN]!r}): the model's own generate "
                "ignores it, or more answers are asked for than there are."
            )
        shown = repr(text.strip()[-_SHOWN:])
        raise CutAnswerError(
            f"the answer was cut after {len(ids)} tokens, before it was whole; it ends in {shown}.\n"
            "Next: a larger max_new_tokens, or a schema with shorter answers."
        )

    def pieces(self, texts: Iterable[str], ids: Sequence[int]) -> Iterator[str]:
        """Yield a stream's text as soon as it is certain to be part of the answer: JSON piece by piece, a choice whole.

        Args:
            texts: what the model says, piece by piece.
            ids: its tokens, which grow with the texts.

        Raises:
            CutAnswerError: at the end, if the answer is not whole.
        """
        text = sent = ""
        for piece in texts:
            text += piece
            if isinstance(self.constraint, JsonSchema):
                certain = text.lstrip()
                certain = certain[: max(0, len(certain) - len(self._stop))].rstrip()
                if len(certain) > len(sent):
                    yield certain[len(sent) :]
                    sent = certain
        if rest := self.answer(ids)[len(sent) :]:
            yield rest

    def _lark(self) -> str:
        """The grammar of a whole answer, in llguidance's language."""
        lead, stop = f"\\x20{{0,{self._lead}}}", f"({_escaped(self._stop)})?"
        if isinstance(self.constraint, OneOf):
            texts = "|".join(_escaped(choice.strip()) for choice in self.constraint.choices)
            return f"start: ANSWER\nANSWER: /{lead}({texts}){stop}/\n"
        end = f" STOP\nSTOP: /{stop}/" if self._stop else ""
        return f"start: LEAD json{end}\nLEAD: /{lead}/\njson: %json {_written(json.loads(self.constraint.text))}\n"

    def _matcher(self, lark: str) -> Any:
        matching = imported("llguidance", extra="constrained").LLMatcher
        return matching(self._tokens, matching.grammar_from_lark(lark), log_level=0)

    def _refused(self, matcher: Any) -> InputError:
        """What is wrong, without llguidance's grammar and state."""
        if isinstance(self.constraint, JsonSchema):
            return refused_schema(json.loads(self.constraint.text), self._problem, _said(matcher))
        return InputError(
            "choices: too many or too long, or this backbone's tokens cannot write them at an answer's beginning "
            f"({_said(matcher)}).\nNext: fewer choices; or `pipe.classify`, which compares whole choices."
        )

    def _problem(self, schema: dict[str, Any]) -> str:
        """What llguidance says about a schema; empty if it admits it."""
        matcher = self._matcher(f"start: json\njson: %json {_written(schema)}\n")
        if not matcher.is_error():
            matcher.compute_logit_bias()
        return _said(matcher) if matcher.is_error() else ""

    def _may_go_on(self, value: str) -> bool:
        """Whether more tokens could have made another answer of whole JSON: digits are whole at any length."""
        return isinstance(self.constraint, JsonSchema) and value[-1:].isdigit()

    def _states(self, rows: Sequence[Sequence[int]]) -> list[_State]:
        """The state of each row; those of the rows that were asked last are at hand."""
        before, self._known = self._known, {}
        for row in map(tuple, rows):
            if row not in self._known:
                self._known[row] = before.get(row) or self._grown(row, before.get(row[:-1]))
        return [self._known[tuple(row)] for row in rows]

    def _grown(self, row: tuple[int, ...], parent: _State | None) -> _State:
        state, left = (parent, row[-1:]) if parent is not None else (self._start, row)
        for token in left:
            if state.over or state.lost:
                break
            matcher, known = state.matcher.deep_copy(), token < self._size and bool(state.allowed[token])
            if token in self._ends or not known:
                state = _State(matcher, state.allowed, over=known, lost=not known)
            else:
                matcher.consume_token(token)
                state = self._state(matcher)
        return state

    def _state(self, matcher: Any) -> _State:
        if matcher.is_error():
            raise self._refused(matcher)
        allowed = np.zeros(self._size, dtype=bool)
        allowed[: self._tokens.vocab_size] = np.frombuffer(matcher.compute_logit_bias(), np.uint8) != 0
        if matcher.is_error():
            raise self._refused(matcher)
        allowed[[*self._tokens.eos_tokens, *self._ends]] = False
        complete, more = bool(matcher.is_accepting()), bool(allowed.any())
        if not (complete or more):
            raise InputError("this model's tokenizer has no tokens for what the constraint asks for next.")
        allowed[list(self._ends)] = complete
        return _State(matcher, allowed, over=complete and not more)


def _written(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": _JSON_OPTIONS})


def _said(matcher: Any) -> str:
    return str(matcher.get_error()).split("\n   1 |")[0]


def _escaped(text: str) -> str:
    """A regular expression for exactly that text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
