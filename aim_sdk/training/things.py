"""Which of a page's pictures are of one thing, by what their texts share: a word that hardly any other page has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final

from aim_sdk.training.corpora import CorpusConfig, DocumentStream, open_corpus

_WORD: Final = re.compile(r"[^\W\d_]{3,}")
_SAMPLE: Final = 1000
"""Documents that common words are counted in."""
_COMMON: Final = 0.01
"""Of these documents, the share that may have a word which names a thing."""


def things(texts: Sequence[str], common: frozenset[str]) -> list[list[int]]:
    """Group a page's texts by what they are about.

    Two texts are about one thing if they share a word of three letters or more that is not common and that no third
    text of the page has (what three have is the page's topic).

    Args:
        texts: what is written of each picture.
        common: words that tell no thing from another: `aim_sdk.training.things.common_words`.

    Returns:
        The places of the texts about each thing, in their order.
    """
    words = [_words(text) - common for text in texts]
    often = Counter(word for found in words for word in found)
    thing = list(range(len(texts)))
    for place, found in enumerate(words):
        for before in range(place):
            if any(often[word] == 2 for word in found & words[before]):
                thing = [thing[before] if one == thing[place] else one for one in thing]
    return [[place for place, one in enumerate(thing) if one == which] for which in dict.fromkeys(thing)]


def common_words(corpus: CorpusConfig) -> frozenset[str]:
    """Words of more than one in a hundred of the first thousand documents, and of two documents at least.

    The documents are taken in the corpus's own order, so every process and every resumed run finds the same words.
    """
    stream = DocumentStream(open_corpus(corpus.model_copy(update={"shuffle": False})), epochs=1)
    often, documents = Counter[str](), 0
    for document, _ in islice(stream, _SAMPLE):
        documents += 1
        often.update(_words(" ".join(pair.answer for pair in document.pairs)))
    return frozenset(word for word, number in often.items() if number > max(1, _COMMON * documents))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
