"""What is computed ahead or kept is what would have been computed."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice

from aim_sdk.config import PromptFormat
from aim_sdk.interfaces import Backend
from aim_sdk.prefixes import MIN_TOKENS
from aim_sdk.testing.compare import require, require_close, require_same_scores
from aim_sdk.testing.kit import NotApplicable, check
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens


@check
def check_prepared_is_read(backend: Backend) -> None:
    """What `prepare` returns gives the readings of `read`, whenever it is called; `lengths` gives a number for each.

    Catches batches that are decoded ahead and read as one another, and states shared by two prepared batches.
    """
    form = backend.default_format
    for with_images in (True, False):
        expected = backend.reader.read(DEMONSTRATIONS, prompt_format=form, with_images=with_images)
        batches = [DEMONSTRATIONS[:2], DEMONSTRATIONS[2:]]
        forwards = [backend.reader.prepare(b, prompt_format=form, with_images=with_images) for b in batches]
        second, first = forwards[1](), forwards[0]()
        for found, wanted in zip([*first, *second], expected, strict=True):
            require(found.token_ids.tolist() == wanted.token_ids.tolist(), "a prepared reading has other tokens")
            require_close(found.hidden, wanted.hidden, backend, "readings, prepared and read at once")
    lengths = backend.reader.lengths(DEMONSTRATIONS, prompt_format=form)
    require(len(lengths) == len(DEMONSTRATIONS), f"{len(lengths)} lengths of {len(DEMONSTRATIONS)} demonstrations")
    require(min(lengths) > 0, f"lengths {lengths}; expected positive numbers")


@check
def check_prefix_reuse_is_exact(backend: Backend) -> None:
    """Answers and scores behind a prefix that was computed once are those of the whole prompt.

    Catches states that grow with use, positions that are counted twice, and prefixes that see what stands behind them.
    """
    injector, form = backend.injector, backend.default_format
    prefixes = injector.prefixes
    if prefixes is None:
        require(not backend.prefix_reuse, "the backend declares prefix_reuse, but its injector has no `prefixes`")
        raise NotApplicable("the injector computes every prompt whole")
    context = _long_context(backend)

    def answers() -> tuple[list[list[float]], list[int]]:
        (made,) = injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=4)
        return injector.score(QUERIES[1], context, CHOICES, prompt_format=form), list(made.token_ids)

    allowed = prefixes.info()["max_bytes"]
    try:
        prefixes.resize(0)
        scores, tokens = answers()
        prefixes.resize(1 << 30)
        for time in ("computed", "kept", "used again"):
            found, others = answers()
            require_same_scores(found, scores, backend, f"scores with a prefix that is {time}, and without")
            require(others == tokens, f"with a prefix that is {time} the answer is {others}, without it {tokens}")
        require(prefixes.info()["states"] > 0, "the same context three times, and no prefix was kept")
        form = PromptFormat.plain("{image}Q: {text} A: {answer}\n", system="Look well.\n")
        found, others = answers()  # the same keys, behind another opening
        prefixes.resize(0)
        scores, tokens = answers()
        require_same_scores(found, scores, backend, "scores in another format, with the same prefix and without")
        require(others == tokens, f"in another format the answer is {others}, without a prefix {tokens}")
    finally:
        prefixes.resize(allowed)


def _long_context(backend: Backend) -> list[FusedTokens]:
    """Demonstrations, again and again, until they are worth a prefix."""
    fused = backend.reader.text_only(DEMONSTRATIONS, prompt_format=backend.default_format)
    rounds = 1 + 2 * MIN_TOKENS // sum(map(len, fused))
    repeated = islice(cycle(enumerate(fused)), rounds * len(fused))
    return [replace(tokens, key=f"kit {number}") for number, tokens in repeated]
