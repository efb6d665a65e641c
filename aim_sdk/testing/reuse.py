"""What is computed ahead or reused equals what would have been computed."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice

from aim_sdk.backend.capabilities import ReusesPrefixes, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.prefixes import MIN_TOKENS
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require, require_close, require_same_scores, shown
from aim_sdk.testing.kit import CheckFailure, check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import FusedTokens, Generation


@check
@close("states", bfloat16=0.04, float16=0.012)
def check_prepared_is_read(backend: Backend) -> None:
    """What `prepare` returns gives the readings of `read`, whenever it is run; `lengths` gives a number for each.

    Catches batches that are decoded ahead and read as one another, and states shared by two prepared batches.
    """
    form = backend.default_format
    for with_images in (True, False):
        expected = backend.reader.read(DEMONSTRATIONS, prompt_format=form, with_images=with_images)
        batches = [DEMONSTRATIONS[:2], DEMONSTRATIONS[2:]]
        ahead = [backend.reader.prepare(b, prompt_format=form, with_images=with_images) for b in batches]
        require(list(map(len, ahead)) == list(map(len, batches)), f"{ahead} of batches of {list(map(len, batches))}")
        second, first = backend.reader.run(ahead[1]), backend.reader.run(ahead[0])
        for found, wanted in zip([*first, *second], expected, strict=True):
            require(found.token_ids.tolist() == wanted.token_ids.tolist(), "a prepared reading has other tokens")
            require_close(found.hidden, wanted.hidden, backend, "readings, prepared and read at once")
    lengths = backend.reader.lengths(DEMONSTRATIONS, prompt_format=form)
    require(len(lengths) == len(DEMONSTRATIONS), f"{len(lengths)} lengths of {len(DEMONSTRATIONS)} demonstrations")
    require(min(lengths) > 0, f"lengths {lengths}; expected positive numbers")


@check
@needs(ReusesPrefixes)
@close("log-probabilities, tokens", bfloat16=0.015, float16=0.003)
def check_prefix_reuse_is_exact(backend: Backend) -> None:
    """Answers and scores after a prefix that was computed once are those of the whole prompt.

    Catches states that grow with use, positions that are counted twice, prefixes that see what comes after them, and
    states that are mistaken for those of another format, of other demonstrations, or of the same ones in another order.
    """
    prefixes, form = capability(backend, ReusesPrefixes).prefixes, backend.default_format
    shots, other = _long_context(backend), PromptFormat.plain(_PLAIN, system="Look well.\n")
    turned = shots[::-1]
    mixed = shots[: len(shots) // 2] + turned[: len(shots) // 2]
    asked: list[tuple[str, list[list[FusedTokens]], PromptFormat]] = [
        ("the prefix is computed", [shots], form),
        ("the prefix is kept", [shots], form),
        ("the prefix is used again", [shots], form),
        ("the same demonstrations come in the opposite order", [turned], form),
        ("the opposite order comes again", [turned], form),
        ("others follow its first half", [mixed], form),
        ("two prompts of a batch share its first half", [shots, mixed], form),
        ("the same demonstrations come in another format", [shots], other),
        ("the first order comes again", [shots], form),
    ]
    allowed = prefixes.info()["max_bytes"]
    try:
        prefixes.resize(0)
        whole = [_ask(backend, [context], where) for context, where in ((shots, form), (turned, form), (mixed, form))]
        (second,) = backend.injector.generate(QUERIES[1:2], [mixed], prompt_format=form, max_new_tokens=_TOKENS)
        both = whole[0][0], [*whole[0][1], second]
        elsewhere = _ask(backend, [shots], other)
        expected = [whole[0]] * 3 + [whole[1]] * 2 + [whole[2], both, elsewhere, whole[0]]
        prefixes.resize(1 << 30)
        for number, ((when, contexts, where), wanted) in enumerate(zip(asked, expected, strict=True)):
            found = _ask(backend, contexts, where)
            _require_whole(backend, found, wanted, f"with prefixes kept, when {when}", contexts, where)
            if number == 2:
                kept = prefixes.info()["states"] > 0
                require(kept, "the same demonstrations came three times, and no prefix was kept")
    finally:
        prefixes.resize(allowed)


_PLAIN = "{image}Q: {text} A: {answer}\n"
_TOKENS = 3


def _ask(
    backend: Backend, contexts: list[list[FusedTokens]], form: PromptFormat
) -> tuple[list[list[float]], list[Generation]]:
    """The scores after the first context, and the answers of the batch."""
    scores = backend.injector.score(QUERIES[1], contexts[0], CHOICES, prompt_format=form)
    made = backend.injector.generate(QUERIES[: len(contexts)], contexts, prompt_format=form, max_new_tokens=_TOKENS)
    return scores, made


def _require_whole(
    backend: Backend,
    found: tuple[list[list[float]], list[Generation]],
    expected: tuple[list[list[float]], list[Generation]],
    when: str,
    contexts: list[list[FusedTokens]],
    form: PromptFormat,
) -> None:
    """Require what is said with prefixes to be what is said without, or say what was asked."""
    try:
        require_same_scores(found[0], expected[0], backend, f"scores {when}, and of the whole prompt")
        for query, context, made, whole in zip(QUERIES, contexts, found[1], expected[1], strict=False):
            require(
                made.token_ids == whole.token_ids or is_tie(backend, query, context, made, whole, prompt_format=form),
                f"{when} an answer has the tokens {made.token_ids}, of the whole prompt {whole.token_ids}",
            )
    except CheckFailure as failure:
        sizes = " and ".join(f"{len(row)} demonstrations of {sum(map(len, row))} fused tokens" for row in contexts)
        raise CheckFailure(
            f"{failure}\nThe contexts: {sizes}. Does a state hold exactly the demonstrations of its keys, in their "
            "order, after the same opening? Do the positions after it continue its own, and is it copied before it "
            f"grows?\nThe prompt: {shown(backend, QUERIES[1], contexts[0], form)}"
        ) from None


def _long_context(backend: Backend) -> list[FusedTokens]:
    """Demonstrations, repeated until each half of them is worth a prefix."""
    fused = backend.reader.text_only(DEMONSTRATIONS, prompt_format=backend.default_format)
    rounds = 2 * (1 + MIN_TOKENS // sum(map(len, fused)))
    repeated = islice(cycle(enumerate(fused)), rounds * len(fused))
    return [replace(tokens, key=f"kit {number}") for number, tokens in repeated]
