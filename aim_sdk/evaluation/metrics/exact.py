"""Exact match, plain or by the rules of VL-ICL Bench."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

from aim_sdk.errors import InputError, unknown
from aim_sdk.evaluation.items import Answered
from aim_sdk.evaluation.metrics.metric import Metric

Rule = Literal["equal", "vl-icl", "vl-icl-number", "vl-icl-yes-no"]
"""When an answer is right; see [`ExactMatch`][aim_sdk.evaluation.metrics.exact.ExactMatch]."""


class ExactMatch(Metric):
    """Share of the answers that are one of the references; case never matters.

    Rules, all but the first from VL-ICL Bench (ys-zong/VL-ICL, evals/eval.py):

    * ``equal``: the trimmed texts are equal by Unicode's caseless matching: composed and decomposed accents are one
      (NFC), and so are sharp s and ss. The other rules fold case by ``lower``, as the original code does.
    * ``vl-icl``: the answer is cut at its first newline, or, if there is none, at its first period.
    * ``vl-icl-number``: of what is left, only the first run of digits counts (operator induction).
    * ``vl-icl-yes-no``: what is left contains "yes" where the reference is "yes", and does not where it is "no"
      (matching). An empty answer to such a question counts as "no".
    """

    name = "exact_match"
    label = "exact match, %"
    closed = True

    def __init__(self, rule: Rule = "equal") -> None:
        """Choose a rule.

        Raises:
            InputError: there is no such rule.
        """
        if rule not in _RULES:
            raise InputError(f"exact_match: {unknown('rule', rule, _RULES)}")
        self.rule = rule

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        """Return 0 or 100 for each answer."""
        matches = _RULES[self.rule]
        return [100.0 * any(matches(a.text.strip(), answer.strip()) for answer in a.item.answers) for a in answered]


def _equal(text: str, answer: str) -> bool:
    return _folded(text) == _folded(answer)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _lower(text: str, answer: str) -> bool:
    return text.lower() == answer.lower()


def _cut(text: str) -> str:
    """Cut a trimmed text; one that starts with its only period stays as it is."""
    end = text.find("\n")
    if end < 0:
        end = text.find(".")
    return text[:end] if end > 0 else text


def _first_sentence(text: str, answer: str) -> bool:
    return _lower(_cut(text), answer)


def _number(text: str, answer: str) -> bool:
    found = re.search(r"\d+", _cut(text))
    return _lower(found.group() if found else "", answer)


def _yes_no(text: str, answer: str) -> bool:
    expected = {"yes": True, "no": False}.get(answer.lower())
    return ("yes" in _cut(text).lower()) is expected


_RULES: Final[dict[str, Callable[[str, str], bool]]] = dict(
    zip(get_args(Rule), (_equal, _first_sentence, _number, _yes_no), strict=True)
)
