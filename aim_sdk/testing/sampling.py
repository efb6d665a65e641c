"""Answers that are drawn: by the options that were given, and the same in a stream."""

from __future__ import annotations

from typing import Any

import torch

from aim_sdk.backend.capabilities import RunsInTorch, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import NotApplicable, check
from aim_sdk.testing.layouts import IMAGE_FIRST
from aim_sdk.testing.samples import QUERIES
from aim_sdk.types import Generation, Query

_SEEDS = (1, 2)
_TOKENS = 4
_HOT, _COLD = 2.0, 1e-4


@check
def check_sampling(backend: Backend) -> None:
    """Drawn answers differ with the seed, are the same under one seed, in a stream too, and greedy where it is cold.

    Catches `do_sample`, `temperature` and seeds that are accepted and ignored, and streams that draw in another way.
    The seed is the option `seed`, or torch's own if that is refused.
    """
    drawn = _Drawn(backend)
    forms = PromptFormat.plain(IMAGE_FIRST[0]), backend.default_format
    asked = list(zip(QUERIES, forms, strict=False))
    hot: dict[str, Any] = {"temperature": _HOT} if drawn.takes(temperature=_HOT) else {}
    options = {"do_sample": True, **hot}
    greedy = [drawn.greedy(*one) for one in asked]
    rows = [[drawn.answer(*one, seed, **options) for one in asked] for seed in _SEEDS]
    ids = [[made.token_ids for made in row] for row in rows]
    require(
        ids[0] != ids[1],
        f"{options} gives the same {'greedy ' * (ids[0] == greedy)}answers {ids[0]} under the seeds {_SEEDS} "
        f"({drawn.seeded}): are they drawn?",
    )
    if drawn.repeats:
        query, form = asked[0]
        again = drawn.answer(query, form, _SEEDS[0], **options).token_ids
        require(
            again == ids[0][0],
            f"{options} under one seed ({drawn.seeded}) gives the tokens {ids[0][0]}, and asked again {again}",
        )
        _require_streamed(drawn, query, form, options, rows[0][0].text)
    if hot:
        colder = options | {"temperature": _COLD}
        cold = [drawn.answer(*one, _SEEDS[0], **colder) for one in asked]
        require(  # any: two tokens may be equally likely
            any(one.token_ids == other for one, other in zip(cold, greedy, strict=True)),
            f"drawn at the temperature {_COLD} the answers are {[made.token_ids for made in cold]}, and the greedy "
            f"ones {greedy}: is it used?",
        )
        if drawn.repeats:
            _require_streamed(drawn, *asked[0], colder, cold[0].text)


def _require_streamed(drawn: _Drawn, query: Query, form: PromptFormat, options: dict[str, Any], text: str) -> None:
    streamed = drawn.stream(query, form, _SEEDS[0], **options)
    require(
        streamed == text,
        f"{options} under one seed ({drawn.seeded}): the stream gives {streamed!r}, generate {text!r}: does the stream "
        f"use the same options and the same seed?",
    )


class _Drawn:
    """Draws answers under a seed, however the backend takes one."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        try:
            self._generate(QUERIES[0], backend.default_format, 1, {"do_sample": True})
        except InputError as error:
            raise NotApplicable(f"it is greedy, and says so: {error}") from error
        self.takes_seed = self.takes(seed=1)
        self.seeded = "the option `seed`" if self.takes_seed else "torch.manual_seed"
        self.repeats = self.takes_seed or find(backend, RunsInTorch) is not None
        """A remote server without seeds draws as it likes."""

    def takes(self, **option: Any) -> bool:
        try:
            self._generate(QUERIES[0], self.backend.default_format, 1, {"do_sample": True, **option})
        except InputError:
            return False
        return True

    def greedy(self, query: Query, form: PromptFormat) -> tuple[int, ...]:
        return self._generate(query, form, _TOKENS, {}).token_ids

    def answer(self, query: Query, form: PromptFormat, seed: int, **options: Any) -> Generation:
        return self._generate(query, form, _TOKENS, self._seeded(seed, options))

    def stream(self, query: Query, form: PromptFormat, seed: int, **options: Any) -> str:
        given = self._seeded(seed, options)
        pieces = self.backend.injector.stream(query, [], prompt_format=form, max_new_tokens=_TOKENS, **given)
        return "".join(pieces)

    def _seeded(self, seed: int, options: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(seed)
        return options | ({"seed": seed} if self.takes_seed else {})

    def _generate(self, query: Query, form: PromptFormat, limit: int, options: dict[str, Any]) -> Generation:
        (made,) = self.backend.injector.generate([query], [[]], prompt_format=form, max_new_tokens=limit, **options)
        return made
