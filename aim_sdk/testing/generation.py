"""Answers respect what was asked: options, limits, stop strings, counts, log-probabilities."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from typing import Any

import torch

from aim_sdk.backend.capabilities import HasVocabulary, Interleaves, Trainable, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.testing.compare import log_probs, require, require_close, shown, spelled, tolerance
from aim_sdk.testing.kit import NotApplicable, check, heart, needs
from aim_sdk.testing.layouts import IMAGE_FIRST
from aim_sdk.testing.positions import _heads as heads
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.testing.steering import saying
from aim_sdk.types import Demonstration, Generation, Query

_PLAIN = PromptFormat.plain(IMAGE_FIRST[0])
_STOPPED = ("{image} Q: {text}\nA: {answer}", "{image}{text} = {answer}")
_LONG = 12
_ANSWER = "a black cat and a fox"
"""Of several tokens, and ends in a letter: many a tokenizer joins a full stop and a line's end."""
_WIDE = "Gr\u00fc\u00dfe \u2603 \u732b"
"""Letters of two bytes, of three bytes, and one that few vocabularies hold as one token."""


@check
def check_options_are_used(backend: Backend) -> None:
    """A limit of new tokens is kept and reached, beams change some answer, and an unknown option is refused.

    Catches limits that are one too low, and options that are accepted and ignored: a table of scores then names
    settings that were not used. Of all prompts, one must reach its limit, if a higher one makes some answer longer
    (a single answer may end before: its last token may be the one that pads).
    """
    few, more = ([made.token_ids for made in _answers(backend, max_new_tokens=limit)] for limit in (2, 3))
    for ids in few:
        require(len(ids) <= 2, f"2 new tokens at most were asked for; got {ids}")
    longest = max(map(len, few))
    require(
        longest == 2 or max(map(len, more)) <= longest,
        f"2 new tokens were asked for; got {few}, and with a limit of 3 {more}: expected 2 of some prompt",
    )
    unknown: dict[str, Any] = {"prompt_format": _PLAIN, "max_new_tokens": 2, "no_such_option_of_any_backend": 1}
    calls: dict[str, Callable[[], object]] = {
        "generate": lambda: backend.injector.generate(QUERIES[:1], [[]], **unknown),
        "stream": lambda: list(backend.injector.stream(QUERIES[0], [], **unknown)),
    }
    for call, ask in calls.items():
        try:
            taken = ask()
        except Exception:  # any error: the caller is told
            continue
        require(False, f"`{call}` took the option no_such_option_of_any_backend=1 silently: {taken}")
    greedy = _answers(backend, max_new_tokens=8)
    try:
        beams = _answers(backend, max_new_tokens=8, num_beams=4)
    except InputError:
        return  # it is greedy, and says so
    same = all(one.token_ids == other.token_ids for one, other in zip(greedy, beams, strict=True))
    require(not same, f"num_beams=4 gives the greedy answer of all {len(greedy)} prompts: is it used?")


@heart
def check_stop_string(backend: Backend) -> None:
    """An answer ends before the string that a plain template writes after it, whole and streamed, without blanks.

    Catches answers that write the next demonstration's question too, and texts that nobody cleans. The stop string is
    the format's (`PromptFormat.stop`), cutting is the backend's (`aim_sdk.backend.answers`). The strings are taken out
    of the model's own answers.
    """
    answers, tried = [], 0
    for query in QUERIES:
        for template in _STOPPED if tried < 2 else ():
            form = PromptFormat.plain(template)
            (free,) = backend.injector.generate([query], [[]], prompt_format=form, max_new_tokens=_LONG)
            require(
                free.text == free.text.strip(),
                f"the answer {free.text!r} is not cleaned: it has blanks around it; does `generate` call "
                "`clean_answer` with the format's `stop`, also where that is None?",
            )
            answers.append(free.text)
            if stop := _stop_of(free.text):
                tried += 1
                _require_stopped(backend, query, template, stop, free.text)
    if not tried:
        raise NotApplicable(f"no answer of the model holds a character to stop at: {answers}")


@check
@needs(HasVocabulary)
def check_stream_keeps_characters(backend: Backend) -> None:
    """A stream gives the characters that generate gives, even those that span several tokens.

    Catches streams that decode token by token: half a character becomes a replacement mark. The model is made to say
    what is needed (its LM head's output is changed), so that it does not depend on its weights.
    """
    seen: list[str] = []
    for form in (_PLAIN, backend.default_format):
        try:
            (reading,) = backend.reader.read(
                [Demonstration(QUERIES[0].image, QUERIES[0].text, _WIDE)], prompt_format=form, with_images=False
            )
        except InputError as error:
            raise NotApplicable(f"it takes no text of several scripts: {error}") from error
        ids = reading.token_ids[reading.answer_start :].tolist()
        options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": len(ids)}
        with saying(backend, ids):
            (made,) = backend.injector.generate(QUERIES[:1], [[]], **options)
        seen.append(made.text)
        if not set(_WIDE) - set(string.printable) <= set(made.text):
            continue
        with saying(backend, ids):
            streamed = "".join(backend.injector.stream(QUERIES[0], [], **options))
        require(streamed == made.text, f"the stream gives {streamed!r}, generate {made.text!r}")
        return
    raise NotApplicable(f"the model cannot be made to say {_WIDE!r} by its LM head's output; it said {seen}")


@check
def check_prompt_tokens(backend: Backend) -> None:
    """`prompt_tokens` counts the query's text, its image and what comes before them.

    Catches counts of text alone: costs, context limits and figures are made of them.
    """
    first = DEMONSTRATIONS[0]
    query = Query(first.image, first.text)
    (reading,) = backend.reader.read([first], prompt_format=_PLAIN, with_images=False)
    (made,) = backend.injector.generate([query], [[]], prompt_format=_PLAIN, max_new_tokens=1)
    text = reading.answer_start
    require(
        made.prompt_tokens > text + 1,
        f"prompt_tokens is {made.prompt_tokens}; expected at least {text + 2}: {text} of the query's text, one or "
        f"more of its image, and what begins a prompt (BOS). All positions count, visual tokens too. The prompt: "
        f"{shown(backend, query, [], _PLAIN)}",
    )
    if find(backend, Interleaves) is None:
        return
    one, two = (
        backend.injector.generate([query], [DEMONSTRATIONS[:shots]], prompt_format=_PLAIN, max_new_tokens=1)[0]
        for shots in (1, 2)  # some families see the one image of a prompt more closely than one of several
    )
    (added,) = backend.reader.text_only(DEMONSTRATIONS[1:2], prompt_format=_PLAIN)
    more = two.prompt_tokens - one.prompt_tokens
    require(
        more > len(added),
        f"the second interleaved demonstration makes prompt_tokens {two.prompt_tokens} out of {one.prompt_tokens}, "
        f"{more} more; expected more than {len(added)}, its text alone, for its image counts, too",
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
@needs(Trainable, HasVocabulary)
@close("log-probabilities", bfloat16=0.006, float16=0.0015)
def check_ended(backend: Backend) -> None:
    """`ended=True` adds one token, the first one after the answer, and changes no other.

    Catches projectors trained on answers that never end, or that end with another token: the first token after the
    answer is that of the reading of the same demonstration, and its states say how likely it is.
    """
    grown = []
    for form in (backend.default_format, _PLAIN):
        options: dict[str, Any] = {"prompt_format": form}
        with torch.no_grad():
            (plain,) = log_probs(backend, QUERIES[:1], [[]], CHOICES[:1], **options)
            (ended,) = log_probs(backend, QUERIES[:1], [[]], CHOICES[:1], ended=True, **options)
        (scores,) = backend.injector.score(QUERIES[0], [], CHOICES[:1], **options)
        require(
            len(plain) == len(scores), f"{len(plain)} log-probabilities of an answer that `score` gives {len(scores)}"
        )
        require(
            len(ended) - len(plain) in (0, 1), f"ended, {len(ended)} log-probabilities; without its end {len(plain)}"
        )
        require_close(
            ended[: len(plain)].cpu(), plain.cpu(), backend, "log-probabilities before the end, and without it"
        )
        if len(ended) > len(plain):
            _require_end(backend, form)
        grown.append(len(ended) - len(plain))
    require(grown[1] == 1, "a plain template ends its answers, and ended=True adds no token")


def _require_end(backend: Backend, form: PromptFormat) -> None:
    """Where the LM head on a reading gives the answer's log-probabilities, it gives its end's, too."""
    with torch.no_grad():
        (logs,) = log_probs(backend, QUERIES[:1], [[]], [_ANSWER], prompt_format=form, ended=True)
    ended = logs.float().cpu()
    item = Demonstration(QUERIES[0].image, QUERIES[0].text, _ANSWER)
    (reading,) = backend.reader.read([item], prompt_format=form)
    agree: list[tuple[int, float]] = []
    outputs = capability(backend, HasVocabulary).vocabulary.outputs
    for start in (reading.answer_start, reading.answer_start - 1):  # a format's blank may be a token of its own
        ids = reading.token_ids[start : start + len(ended)].to(reading.hidden.device)
        states = reading.hidden[start - 1 : start - 1 + len(ids)].float()
        for logits in heads(states @ outputs.detach().float().T.to(states.device), states.shape[-1]):
            found = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0].cpu()
            near = len(found) == len(ended) and (found - ended)[:-1].abs() <= tolerance(backend, ended) / 5
            if torch.as_tensor(near).all():  # stricter than needed: in half precision many values are equal by chance
                agree.append((int(ids[-1]), float(found[-1])))
    last = float(ended[-1])
    require(
        not agree or any(abs(number - last) <= tolerance(backend, ended) for _, number in agree),
        f"ended=True adds a token of log-probability {last:.4g}; expected the token after the answer {item.answer!r} "
        f"in its reading, {' or '.join(f'{token} of {number:.4g}' for token, number in agree[:1])}, in "
        f"{spelled(form)}: is another token taken for the end?",
    )


def _answers(backend: Backend, **options: Any) -> list[Generation]:
    """Answers of all queries, in two formats."""
    return [
        made
        for form in (backend.default_format, _PLAIN)
        for made in backend.injector.generate(QUERIES, [[]] * len(QUERIES), prompt_format=form, **options)
    ]


def _stop_of(text: str) -> str:
    """Two characters of an answer (or one) that can end it in a template; none in an answer without such."""
    for length, inside in ((2, string.printable), (1, None)):
        for place in range(2 if len(text) > 3 else 1, len(text) - length + 1):
            stop = text[place : place + length]
            written = all(not c.isspace() and c not in "{}\ufffd" and c in (inside or c) for c in stop)
            if written and "\ufffd" not in text[:place][-1:]:
                return stop
    return ""


def _require_stopped(backend: Backend, query: Query, template: str, stop: str, free: str) -> None:
    form = PromptFormat.plain(template + stop)
    expected = free.split(stop)[0].rstrip()
    (made,) = backend.injector.generate([query], [[]], prompt_format=form, max_new_tokens=_LONG)
    streamed = "".join(backend.injector.stream(query, [], prompt_format=form, max_new_tokens=_LONG))
    for call, found in {"generate": made.text, "stream": streamed}.items():
        require(
            found == expected,
            f"`{call}` with the stop string {stop!r}: {found!r}; expected {expected!r}, as without it the answer to "
            f"{query.text!r} is {free!r} in {spelled(form)}",
        )
