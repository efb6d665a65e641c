"""CIDEr-D and its tokens against the reference implementation, where Java and pycocoevalcap are installed."""

import random
import shutil

import pytest

from aim_sdk.support.cider import cider_d
from aim_sdk.support.ptb import tokenize

NOUNS = [
    *("man", "woman", "boy", "girl", "dog", "cat", "t-shirt", "bus", "street"),
    *("sign", "tennis", "player", "group", "kids'", "man's", "skateboarder", "tv", "laptop"),
    *("T.V.", "cell-phone", "mother-in-law"),
]
KINDS = [
    *("red", "blue", "black-and-white", "three-year-old", "2-story", "50's", "old", "two", "3"),
    *("brown/white", "U.S.", "st.", "double-decker", "1/2", "#2"),
]
DOING = [
    *("is holding", "isn't riding", "sits on", "doesn't like", "walking", "can't see"),
    *("cannot reach", "gonna hit", "they're near", "who's wearing"),
]
PLACES = [
    *("in front of", "at 5:30 p.m. in", "near St. Louis,", "on 5th Ave.", "in Washington D.C.", 'by a "Stop" sign in'),
    *("w/", "and/or", "&", "(left) of", "-- near", "; on"),
    *("... in", "at 3pm with", "in the '70s with", "for $5.00 at", "no. 5 in", "Mr. Smith's"),
    *("rock 'n' roll", "10,000", "100%", "o'clock", "vs."),
]
ENDS = [
    *(". ", ".", "..", "...", "!", "!!", "?", "?!", " .", ",", ";", '"'),
    *(")", "'", '."', " etc.", " U.S.", " a.m.", "'s"),
]


def captions(count: int) -> list[str]:
    """Sentences like captions, with all that tokenizers stumble over."""
    rng = random.Random(0)
    found = []
    for _ in range(count):
        parts = [rng.choice(["A", "The", "Two", "There is a", "It's a"])]
        for _ in range(rng.randint(1, 3)):
            parts += [rng.choice([*KINDS, "", ""]), rng.choice(NOUNS), rng.choice(DOING)]
            parts += [rng.choice(["a", "the"]), rng.choice(NOUNS), rng.choice([*PLACES, "in the", "on a"])]
        found.append(" ".join([*filter(None, parts), rng.choice(NOUNS)]) + rng.choice(ENDS))
    return found


@pytest.fixture(scope="module")
def reference() -> object:
    """The reference's tokenizer."""
    if shutil.which("java") is None:
        pytest.skip("no Java")
    return pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()


def test_the_tokens_are_the_references(reference: object) -> None:
    lines = captions(3000)
    between = [line for caption in lines for line in (caption, "A man .")]  # the end of one line may change the next
    found = reference.tokenize({n: [{"caption": line}] for n, line in enumerate(between)})  # type: ignore[attr-defined]
    wrong = [line for n, line in enumerate(lines) if found[2 * n][0].split() != tokenize(line)]
    assert len(wrong) <= len(lines) * 0.002, wrong[:5]


def test_the_scores_are_the_references(reference: object) -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    rng, lines = random.Random(1), captions(600)
    references = [[rng.choice(lines) for _ in range(5)] for _ in range(200)]
    candidates = [rng.choice([row[0], rng.choice(lines), row[1][: len(row[1]) // 2], ""]) for row in references]
    tokenized = [[" ".join(tokenize(line)) for line in row] for row in references]
    mean, own = scorer.compute_score(
        dict(enumerate(tokenized)), {n: [" ".join(tokenize(line))] for n, line in enumerate(candidates)}
    )
    assert cider_d(candidates, references) == pytest.approx(list(own))
    assert mean == pytest.approx(sum(own) / len(own))
