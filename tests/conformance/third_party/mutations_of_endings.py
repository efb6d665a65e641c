"""Bugs in the adapter of Kite: where answers end."""

from typing import Any

from tests.conformance.third_party.adapter import KiteInjector
from tests.conformance.third_party.model import END, decode
from tests.conformance.third_party.mutant import Part


class EndIgnored(KiteInjector):
    def done(self, ids: list[int], stop: str | None) -> bool:
        return bool(stop and stop in decode(ids).lstrip())


class EndCutFromTheTokensAlone(EndIgnored):
    """The text holds what was said after the end."""

    def generate(self, *args: Any, **options: Any) -> Any:
        found = super().generate(*args, **options)
        return [
            type(made)(
                made.text, made.token_ids[: [*made.token_ids, END].index(END) + 1], made.prompt_tokens, made.log_probs
            )
            for made in found
        ]


class EndOfOneEndsAll(KiteInjector):
    def decode(self, prefilled: Any, stop: str | None, limit: int, beams: int) -> Any:
        found = super().decode(prefilled, stop, limit, beams)
        shortest = min([len(ids) for ids, _ in found if END in ids], default=limit)
        return [(ids[:shortest], logs[:shortest]) for ids, logs in found]


class LongStopsIgnored(KiteInjector):
    """Of whole answers, and while it generates."""

    def clean(self, ids: list[int], stop: str | None) -> str:
        return super().clean(ids, stop if stop and len(stop) == 1 else None)

    def done(self, ids: list[int], stop: str | None) -> bool:
        return super().done(ids, stop if stop and len(stop) == 1 else None)


class StopsAtItsFirstCharacter(KiteInjector):
    def clean(self, ids: list[int], stop: str | None) -> str:
        return super().clean(ids, stop[:1] if stop else None)


class LimitOneLess(KiteInjector):
    def decode(self, prefilled: Any, stop: str | None, limit: int, beams: int) -> Any:
        return super().decode(prefilled, stop, max(limit - 1, 1), beams)


CAUGHT: list[tuple[str, Part]] = [
    ("end_token", EndIgnored),
    ("end_token", EndCutFromTheTokensAlone),
    ("end_token", EndOfOneEndsAll),
    ("long_stop_string", LongStopsIgnored),
    ("long_stop_string", StopsAtItsFirstCharacter),
    ("options_are_used", LimitOneLess),
]
"""Which check must catch which bug."""
