"""What is asked of an answer is done: options, limits, stop strings, counts, log-probabilities."""

from __future__ import annotations

import math
import string
from typing import Any

import torch

from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.interfaces import Backend
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import NotApplicable, check
from aim_sdk.testing.layouts import IMAGE_FIRST
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import Generation, Query

_PLAIN = PromptFormat.plain(IMAGE_FIRST[0])


@check
def check_options_are_used(backend: Backend) -> None:
    """A limit of new tokens is kept, beams change some answer, and an option that is unknown is refused.

    Catches options that are taken and thrown away: a table of scores then names settings that were not used.
    """
    for made in _answers(backend, max_new_tokens=2):
        require(len(made.token_ids) <= 2, f"2 new tokens at most were asked for; got {made.token_ids}")
    try:
        taken = backend.injector.generate(
            QUERIES[:1], [[]], prompt_format=_PLAIN, max_new_tokens=2, no_such_option_of_any_backend=1
        )
    except Exception:  # whichever: the caller is told
        pass
    else:
        require(False, f"the option no_such_option_of_any_backend=1 was taken without a word: {taken}")
    greedy = _answers(backend, max_new_tokens=8)
    try:
        beams = _answers(backend, max_new_tokens=8, num_beams=4)
    except InputError:
        return  # it is greedy, and says so
    same = all(one.token_ids == other.token_ids for one, other in zip(greedy, beams, strict=True))
    require(not same, f"num_beams=4 gives the greedy answer of all {len(greedy)} prompts: is it used?")


@check
def check_stop_string(backend: Backend) -> None:
    """An answer ends before the string that a plain template writes behind it, whole and streamed, without blanks.

    Catches answers that go on with the next demonstration's question. The stop string is the format's (`PromptFormat.
    stop`), cutting is the backend's (`aim_sdk.answers`).
    """
    tried = 0
    for query in QUERIES:
        (free,) = backend.injector.generate(
            [query], [[]], prompt_format=PromptFormat.plain("{image} Q: {text}\nA: {answer}"), max_new_tokens=12
        )
        require(free.text == free.text.strip(), f"the answer {free.text!r} has blanks round it")
        stop = next((free.text[n : n + 2] for n in range(2, len(free.text) - 2) if _is_stop(free.text, n)), "")
        if not stop:
            continue
        tried += 1
        form = PromptFormat.plain("{image} Q: {text}\nA: {answer}" + stop)
        (made,) = backend.injector.generate([query], [[]], prompt_format=form, max_new_tokens=12)
        expected = free.text.split(stop)[0].rstrip()
        require(made.text == expected, f"with the stop string {stop!r}: {made.text!r}; expected {expected!r}")
        streamed = "".join(backend.injector.stream(query, [], prompt_format=form, max_new_tokens=12))
        require(streamed == expected, f"with the stop string {stop!r} it streams {streamed!r}; expected {expected!r}")
    if not tried:
        raise NotApplicable("no answer of the model holds a piece of text to stop at")


@check
def check_prompt_tokens(backend: Backend) -> None:
    """`prompt_tokens` counts the query's text, its image and what stands before them.

    Catches counts of text alone: costs, context limits and figures are made of them.
    """
    first = DEMONSTRATIONS[0]
    query = Query(first.image, first.text)
    (reading,) = backend.reader.read([first], prompt_format=_PLAIN, with_images=False)
    (made,) = backend.injector.generate([query], [[]], prompt_format=_PLAIN, max_new_tokens=1)
    text = reading.answer_start
    require(
        made.prompt_tokens > text + 1,
        f"prompt_tokens is {made.prompt_tokens} for {text} tokens of text, an image and what begins a prompt",
    )
    if not backend.supports_interleaved:
        return
    one, two = (
        backend.injector.generate([query], [DEMONSTRATIONS[:shots]], prompt_format=_PLAIN, max_new_tokens=1)[0]
        for shots in (1, 2)  # some families see the one image of a prompt more closely than one of several
    )
    (added,) = backend.reader.text_only(DEMONSTRATIONS[1:2], prompt_format=_PLAIN)
    more = two.prompt_tokens - one.prompt_tokens
    require(
        more > len(added), f"an interleaved demonstration adds {more} to prompt_tokens, its text alone has {len(added)}"
    )


@check
def check_scores_are_log_probabilities(backend: Backend) -> None:
    """Scores are at most 0, and the probabilities of unlike tokens add up to at most 1.

    Catches logits that are not normalised, or over a part of the vocabulary.
    """
    words = [*string.ascii_letters, *string.digits]
    scores = backend.injector.score(QUERIES[0], [], words, prompt_format=backend.default_format)
    largest = max(max(row) for row in scores)
    require(largest <= 1e-4, f"a score is {largest}; expected log-probabilities, at most 0")
    single = [row[0] for row in scores if len(row) == 1]  # unlike texts of one token are unlike tokens
    total = sum(map(math.exp, single))
    require(total <= 1.01, f"the probabilities of {len(single)} tokens add up to {total:.3g}; expected at most 1")


@check
def check_ended(backend: Backend) -> None:
    """`log_probs(ended=True)` adds one token, the first one behind the answer, and changes no other.

    Catches projectors trained on answers that never end.
    """
    grown = []
    for form in (backend.default_format, _PLAIN):
        options: dict[str, Any] = {"prompt_format": form}
        try:
            with torch.no_grad():
                (plain,) = backend.injector.log_probs(QUERIES[:1], [[]], CHOICES[:1], **options)
                (ended,) = backend.injector.log_probs(QUERIES[:1], [[]], CHOICES[:1], ended=True, **options)
        except CapabilityError as error:
            raise NotApplicable(str(error)) from error
        (scores,) = backend.injector.score(QUERIES[0], [], CHOICES[:1], **options)
        require(
            len(plain) == len(scores), f"{len(plain)} log-probabilities of an answer that `score` gives {len(scores)}"
        )
        require(
            len(ended) - len(plain) in (0, 1), f"ended, {len(ended)} log-probabilities; without its end {len(plain)}"
        )
        grown.append(len(ended) - len(plain))
    require(grown[1] == 1, "a plain template ends its answers, and ended=True adds no token")


def _answers(backend: Backend, **options: Any) -> list[Generation]:
    """Answers of all queries, in two formats."""
    return [
        made
        for form in (backend.default_format, _PLAIN)
        for made in backend.injector.generate(QUERIES, [[]] * len(QUERIES), prompt_format=form, **options)
    ]


def _is_stop(text: str, place: int) -> bool:
    """Whether two characters of an answer can end it in a template."""
    stop = text[place : place + 2]
    return stop.isascii() and stop.isprintable() and stop.strip() == stop and not set("{}") & set(stop)
