"""Answers, streams and scores are one model's."""

from __future__ import annotations

import torch
from torch import Tensor

from aim_sdk.backend.capabilities import HasVocabulary, MarksSlots, Trainable, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.testing.compare import log_probs, require, require_close, require_same_scores, spelled, tolerance
from aim_sdk.testing.kit import CheckFailure, NotApplicable, check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.testing.steering import head_changed
from aim_sdk.types import Context, Demonstration, Generation, Query

_ASKED = "{image}Q: {text}\nA:"


@check
@close("tokens, log-probabilities, states", bfloat16=0.004, float16=0.0005)
def check_deterministic(backend: Backend) -> None:
    """Asked twice, the backbone gives the same tokens, scores and readings.

    Catches dropout that is left on, sampling that is on by default, and state that one call leaves for the next.
    """
    form = backend.default_format
    context = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    answers = [_answer(backend, QUERIES[0], context).token_ids for _ in range(2)]
    require(answers[0] == answers[1], f"the same prompt gave the tokens {answers[0]} and then {answers[1]}")
    scores = [backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form) for _ in range(2)]
    require_same_scores(scores[1], scores[0], backend, "the same choices, scored twice")
    readings = [backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)[0].hidden for _ in range(2)]
    require_close(readings[1], readings[0], backend, "the same demonstration, read twice")


@check
def check_image_reaches_the_answer(backend: Backend) -> None:
    """The query's image changes the scores of its answers, also after fused tokens.

    Catches an image that is lost when fused tokens enter the prompt.
    """
    form = backend.default_format
    for places in (0, 2):
        context = backend.reader.text_only(DEMONSTRATIONS[:places], prompt_format=form)
        scores = [
            backend.injector.score(Query(image, QUERIES[0].text), context, CHOICES, prompt_format=form)
            for image in (QUERIES[0].image, DEMONSTRATIONS[1].image)
        ]
        apart = max(abs(a - b) for one, other in zip(*scores, strict=True) for a, b in zip(one, other, strict=True))
        require(apart > 1e-4, f"after {places} demonstrations another image changes no score (difference {apart:.2g})")


@check
def check_stream_is_generate(backend: Backend) -> None:
    """The pieces of a stream, joined, are the answer.

    Catches characters that are cut in half and stop strings that one of the two does not know.
    """
    for form in (backend.default_format, PromptFormat.plain("{image}Question: {text} Answer: {answer}\n")):
        context = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
        answer = _answer(backend, QUERIES[0], context, form)
        pieces = backend.injector.stream(QUERIES[0], context, prompt_format=form, max_new_tokens=8)
        joined = "".join(pieces)
        require(joined == answer.text, f"the stream gives {joined!r}, generate {answer.text!r}")


@check
@needs(Trainable)
@close("log-probabilities", bfloat16=0.015, float16=0.003)
def check_cached_is_full(backend: Backend) -> None:
    """Scores after a prompt that is computed once equal those of one whole forward each.

    Catches caches that lose the image, the fused tokens, or the positions.
    """
    form = backend.default_format
    for places in (0, 2):
        context = backend.reader.text_only(DEMONSTRATIONS[:places], prompt_format=form)
        cached = backend.injector.score(QUERIES[1], context, CHOICES, prompt_format=form)
        full = [_whole(backend, QUERIES[1], context, choice).tolist() for choice in CHOICES]
        require_same_scores(cached, full, backend, f"scores with and without a cache after {places} demonstrations")


@check
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_score_batch_is_score(backend: Backend) -> None:
    """Choices scored for several queries at once get the scores of each query on its own, in the queries' order.

    Catches padding that is attended to, one context or image for all, and rows in another order.
    """
    form = backend.default_format
    context = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    contexts = [context, [], context[:1]]
    batch = backend.injector.score_batch(QUERIES, contexts, CHOICES, prompt_format=form)
    require(len(batch) == len(QUERIES), f"score_batch gives {len(batch)} results for {len(QUERIES)} queries")
    for place, (query, shown, found) in enumerate(zip(QUERIES, contexts, batch, strict=True)):
        expected = backend.injector.score(query, shown, CHOICES, prompt_format=form)
        require_same_scores(found.log_probs, expected, backend, f"query {place + 1} of a batch and on its own")
        if found.prompt_tokens is not None:
            (made,) = backend.injector.generate([query], [shown], prompt_format=form, max_new_tokens=1)
            require(
                found.prompt_tokens == made.prompt_tokens,
                f"score_batch says that prompt {place + 1} has {found.prompt_tokens} tokens, "
                f"generate {made.prompt_tokens}",
            )


@check
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_score_each_is_score(backend: Backend) -> None:
    """Queries with choices of their own, of different numbers and lengths, get the scores of each query on its own.

    Catches one query's choices for all, and scores in another order.
    """
    form = backend.default_format
    context = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    contexts, choices = [[], context, context[:1]], [CHOICES[:1], CHOICES, CHOICES[1:]]
    each = backend.injector.score_each(QUERIES, contexts, choices, prompt_format=form)
    require(len(each) == len(QUERIES), f"score_each gives {len(each)} results for {len(QUERIES)} queries")
    for place, (query, shown, own, found) in enumerate(zip(QUERIES, contexts, choices, each, strict=True)):
        expected = backend.injector.score(query, shown, own, prompt_format=form)
        require_same_scores(found.log_probs, expected, backend, f"query {place + 1} of several and on its own")


@check
@close("log-probabilities", bfloat16=0.008, float16=0.003)
def check_score_is_generate(backend: Backend) -> None:
    """Where an answer's text is tokenised as it was generated, its scores are the log-probabilities of its tokens.

    Catches log-probabilities and scores of the wrong positions, of some tokens alone, after a temperature or of a
    blank more or less.
    """
    plain = [PromptFormat.plain(_ASKED + lead + "{answer}\n") for lead in ("", " ")]
    usual = [(form, place, place) for form in (backend.default_format, *plain) for place in range(3)]
    more = [(form, place, shots) for form in plain for place in range(3) for shots in range(3) if shots != place]
    agreed = 0
    for number, (form, place, shots) in enumerate([*usual, *more]):
        if number >= len(usual) and agreed:  # the others only where the usual ones show nothing
            return
        context = backend.reader.text_only(DEMONSTRATIONS[:shots], prompt_format=form)
        for length in (1, 2):
            (made,) = backend.injector.generate(
                QUERIES[place : place + 1], [context], prompt_format=form, max_new_tokens=length, log_probs=True
            )
            if made.log_probs is None or len(made.log_probs) != len(made.token_ids):
                raise CheckFailure(f"log_probs=True gave {made.log_probs} for the tokens {made.token_ids}")
            require(max(made.log_probs, default=0.0) <= 1e-4, f"log-probabilities {made.log_probs}: above 0")
            agreed += _require_scored(backend, QUERIES[place], context, made, form)
    if not agreed:
        raise NotApplicable("no generated answer was tokenised again as it was generated")


def _require_scored(backend: Backend, query: Query, context: Context, made: Generation, form: PromptFormat) -> bool:
    """Compare token by token where a demonstration with this answer has the generated tokens; say whether it has."""
    if not made.text or made.log_probs is None:
        return False
    try:
        (reading,) = backend.reader.read(
            [Demonstration(query.image, query.text, made.text)], prompt_format=form, with_images=False
        )
        (scores,) = backend.injector.score(query, context, [made.text], prompt_format=form)
    except InputError:  # a text that is refused, since it names a token with a role
        return False
    what = f"the answer {made.text!r} to {query.text!r} after {len(context)} demonstrations in {spelled(form)}"
    ids, start = reading.token_ids.tolist(), reading.answer_start
    blank = form.kind == "plain" and bool(form.pieces()[1])  # it may be a token of its own, and is the answer's
    begun = [tuple(ids[place : place + len(made.token_ids)]) for place in (start, start - 1)[: 1 + blank]]
    if made.token_ids in begun and len(scores) == len(made.token_ids):
        what = (
            f"{what}: `score` gives its tokens {made.token_ids} {scores}, `generate` the log-probabilities "
            f"{made.log_probs}; expected the same numbers"
        )
        require_close(torch.tensor(scores), torch.tensor(made.log_probs), backend, what)
        return True
    # Other tokens, as those of a text without its blank. A greedy token is the likeliest: no other has more.
    require(
        len(scores) > 1 or scores[0] <= made.log_probs[0] + 10 * tolerance(backend, torch.tensor(scores)),
        f"{what}: `score` gives its one token {scores[0]}. The greedy answer was the token {made.token_ids[0]}, and "
        f"`generate` gives it {made.log_probs[0]}; no token can be likelier than the greedy one",
    )
    return False


@check
@needs(MarksSlots, HasVocabulary)
def check_slot_never_generated(backend: Backend) -> None:
    """However likely, the token that marks fused tokens is never generated.

    Catches answers that hold a placeholder, which would be replaced by a fused token in the next step.
    """
    slot, outputs = capability(backend, MarksSlots).slot, capability(backend, HasVocabulary).vocabulary.outputs
    if slot >= len(outputs):
        raise NotApplicable("the LM head has no row for the slot")

    def wish(logits: Tensor) -> None:
        logits[..., slot] = logits.max() + 100

    context = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=backend.default_format)
    with head_changed(backend, wish):
        answer = _answer(backend, QUERIES[0], context)
    require(slot not in answer.token_ids, f"the slot {slot} is among the tokens {answer.token_ids}")


def _answer(backend: Backend, query: Query, context: Context, form: PromptFormat | None = None) -> Generation:
    (answer,) = backend.injector.generate(
        [query], [context], prompt_format=form or backend.default_format, max_new_tokens=8
    )
    return answer


def _whole(backend: Backend, query: Query, context: Context, answer: str) -> Tensor:
    with torch.no_grad():
        (found,) = log_probs(backend, [query], [context], [answer], prompt_format=backend.default_format)
    return found
