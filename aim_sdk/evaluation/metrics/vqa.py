"""VQA accuracy: agreement with ten annotators, after the normalisation of the official evaluation.

The rules and the tables are facts of the benchmark (visualqa.org/evaluation; GT-Vision-Lab/VQA, vqaEval.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics.metric import Metric

_ENOUGH: Final = 3
"""Other annotators who must have given an answer for it to count in full."""

_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`,?!'
"""Not the apostrophe (possessives) and not the colon (times)."""
_COMMA_IN_NUMBER: Final = re.compile(r"\d,\d")
_PERIOD: Final = re.compile(r"\.(?!\d)")
_ARTICLES: Final = frozenset({"a", "an", "the"})
_NUMBERS: Final = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_CONTRACTIONS: Final = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_SPELLINGS: Final = {
    # The official table: each word without one of its apostrophes, and one entry that goes the other way.
    **{
        word[:i] + word[i + 1 :]: word
        for word in _CONTRACTIONS.split()
        for i, letter in enumerate(word)
        if letter == "'"
    },
    "somebody'd": "somebodyd",
}


class VQAAccuracy(Metric):
    """Mean over the annotators of min(1, others who gave the answer / 3), times 100.

    Each annotator is left out in turn, by position and not by answer: of ten annotators, 1, 2, 3, 4 who gave the answer
    are worth 30, 60, 90, 100.

    By default the answer and all references are normalised, as the benchmark's page describes it; and besides,
    composed and decomposed accents are one (Unicode's NFC; the benchmark's English answers have none). Case is folded
    by ``lower``, as there: sharp s is not ss. With ``compat``
    they are as in OpenFlamingo's copy of the script (open_flamingo/eval/vqa_metric.py): only where the references
    differ from each other; if they do not differ, the answer must equal them letter by letter.
    """

    name = "vqa_accuracy"
    label = "VQA accuracy, %"

    def __init__(self, compat: bool = False) -> None:
        self.compat = compat

    def check(self, items: Sequence[Item]) -> None:
        for item in items:
            if len(item.answers) <= _ENOUGH:
                raise InputError(
                    f"vqa_accuracy compares an answer with those of several annotators: item {item.id!r} has "
                    f"{len(item.answers)}, expected at least {_ENOUGH + 1} (the benchmark has 10). "
                    "Items with fewer answers can be scored with: exact_match."
                )

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        """Return 0 to 100 for each answer.

        Raises:
            InputError: an item has too few references for an answer to count in full.
        """
        self.check([a.item for a in answered])
        return [100.0 * self._accuracy(a) for a in answered]

    def _accuracy(self, answered: Answered) -> float:
        references = [self._prepared(answer) for answer in answered.item.answers]
        text = self._prepared(answered.text)
        if not self.compat or len(set(references)) > 1:
            text, references = normalize(text), [normalize(reference) for reference in references]
        return agreement(text, references)

    def _prepared(self, text: str) -> str:
        return _trimmed(text if self.compat else unicodedata.normalize("NFC", text))


def agreement(text: str, references: Sequence[str]) -> float:
    """Leave-one-out accuracy of an answer, 0 to 1."""
    equal = references.count(text)
    others = [equal - (reference == text) for reference in references]
    return sum(min(1.0, n / _ENOUGH) for n in others) / len(others)


@lru_cache(maxsize=65536)  # annotators repeat each other
def normalize(text: str) -> str:
    """Lower case; no articles, no punctuation; numbers up to ten as digits; contractions with their apostrophes."""
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(_trimmed(text)).lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """Replace each sign by a space, or drop it next to a space or if a comma divides digits; then drop periods.

    A number with a comma anywhere in the text decides for all of its signs: that is how the official code has it.
    """
    number = _COMMA_IN_NUMBER.search(text) is not None
    left = text
    for sign in _PUNCTUATION:
        if sign in text:
            beside_space = f"{sign} " in text or f" {sign}" in text
            left = left.replace(sign, "" if number or beside_space else " ")
    return _PERIOD.sub("", left)
