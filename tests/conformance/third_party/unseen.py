"""Bugs of Kite's adapter that small, grey, short samples cannot show, and the check that must name each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from aim_sdk import Demonstration, FusedTokens, Generation, PromptFormat, Query, Reading, load_image
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.errors import ContextLengthError, ImageError
from tests.conformance.third_party import adapter
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector, KiteReader, Template, Turn

Part = type[Template] | type[KiteReader] | type[KiteInjector] | type[KiteBackend]

# Pictures


def bgr(image: Any) -> Image.Image:
    return Image.merge("RGB", load_image(image).split()[::-1])


def grey(image: Any) -> Image.Image:
    return ImageOps.grayscale(load_image(image)).convert("RGB")


class ReaderSeesBgr(KiteReader):
    def see(self, item: Demonstration) -> Tensor:
        return self.model.see(bgr(item.image))


class ReaderSeesGrey(KiteReader):
    def see(self, item: Demonstration) -> Tensor:
        return self.model.see(grey(item.image))


class QuerySeesBgr(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        return [self.model.see(bgr(query.image)) for query in queries]


class QuerySeesGrey(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        return [self.model.see(grey(query.image)) for query in queries]


class BothSeeBgr(KiteBackend):
    reader_class, injector_class = ReaderSeesBgr, QuerySeesBgr


class BothSeeGrey(KiteBackend):
    reader_class, injector_class = ReaderSeesGrey, QuerySeesGrey


class InterleavedSeesGrey(KiteInjector):
    def interleaved(self, item: Demonstration, form: PromptFormat) -> Tensor:
        return super().interleaved(dataclasses.replace(item, image=grey(item.image)), form)


# Texts


class TextStripped(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        return super().turn(form, text.strip(), answer)


class BracesDropped(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        return super().turn(form, text.replace("{", "").replace("}", ""), answer)


class QueryCutAt300(KiteInjector):
    def query(self, query: Query, form: PromptFormat, image: Tensor) -> list[Tensor]:
        return super().query(dataclasses.replace(query, text=query.text[:300]), form, image)


class DemonstrationsCutAt300(Template):
    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        return super().turn(form, text[:300], answer) if answer else super().turn(form, text, answer)


class ReaderCutsAt300(KiteReader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        return super().read([dataclasses.replace(d, text=d.text[:300]) for d in demonstrations], **options)


# Numbers of shots, rows and tokens


class LastThreeShots(KiteInjector):
    last = 3

    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return super().context(context[-self.last :], form)


class LastSixShots(LastThreeShots):
    last = 6


class LastTwelveShots(LastThreeShots):
    last = 12


class LastThreeInterleaved(KiteInjector):
    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        interleaved = bool(context) and isinstance(context[0], Demonstration)
        return super().context(context[-3:] if interleaved else context, form)


class NoQueryImageWithManyShots(KiteInjector):
    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return super().join(opening, context, [query[0], query[2]] if len(context) > 3 else query)


class LateTokensMisplaced(KiteInjector):
    """One place is left out after 16 new tokens."""

    def search(self, *args: Any) -> Any:
        forward, steps = self.model.forward, 0

        def late(x: Tensor, mask: Tensor, *rest: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > 16:
                mask = mask.clone()
                mask[:, 1] = False
            return forward(x, mask, *rest)

        self.model.forward = late  # type: ignore[method-assign]
        try:
            return super().search(*args)
        finally:
            self.model.forward = forward  # type: ignore[method-assign]


class LargeBatchAnswersTheFirst(KiteInjector):
    def generate(self, queries: Sequence[Query], contexts: Any, **options: Any) -> list[Generation]:
        same = [queries[0]] * len(queries) if len(queries) > 6 else queries
        return super().generate(same, contexts, **options)


class LargeBatchHasOneContext(KiteInjector):
    def generate(self, queries: Sequence[Query], contexts: Any, **options: Any) -> list[Generation]:
        same = [contexts[0]] * len(queries) if len(queries) > 6 else contexts
        return super().generate(queries, same, **options)


class RowsByLengthOfAnswer(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        return sorted(super().generate(*args, **options), key=lambda made: -len(made.token_ids))


class LargeReadingsMisplaced(KiteReader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        found = super().read(demonstrations, **options)
        return [*found[:-2], found[-1], found[-2]] if len(found) > 6 else found


# Log-probabilities of what was generated


class LogProbsNought(KiteInjector):
    def search(self, *args: Any) -> tuple[list[int], list[float]]:
        ids, logs = super().search(*args)
        return ids, [0.0] * len(logs)


class LogProbsOverAllowedTokens(KiteInjector):
    def search(self, *args: Any) -> tuple[list[int], list[float]]:
        ids, logs = super().search(*args)
        return ids, [log + 0.3 for log in logs]


class LogProbsLate(KiteInjector):
    def search(self, *args: Any) -> tuple[list[int], list[float]]:
        ids, logs = super().search(*args)
        return ids, [*logs[1:], *logs[:1]]


# Threads


class QueriesKeptOnSelf(KiteInjector):
    asked: Sequence[Query] = ()

    def generate(self, queries: Sequence[Query], contexts: Any, **options: Any) -> list[Generation]:
        self.asked = queries
        try:
            return super().generate(queries, contexts, **options)
        finally:
            self.asked = ()

    def query(self, query: Query, form: PromptFormat, image: Tensor) -> list[Tensor]:
        return super().query(self.asked[0] if len(self.asked) == 1 else query, form, image)


class ContextsKeptOnSelf(KiteInjector):
    kept: Any = ()

    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        self.kept = contexts
        try:
            return super().generate(queries, contexts, **options)
        finally:
            self.kept = ()

    def context(self, context: Any, form: PromptFormat) -> list[Tensor]:
        return super().context(self.kept[0] if len(self.kept) == 1 else context, form)


class ReaderKeepsOnSelf(KiteReader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        self.items = demonstrations
        return super().read(demonstrations, **options)

    def see(self, item: Demonstration) -> Tensor:
        return super().see(self.items[0] if len(self.items) == 1 else item)


# Prefixes


class PrefixIgnoresTheOrder(KiteInjector):
    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        shared = self.prefixes.shared

        def ordered(scope: object, contexts: Sequence[Any]) -> Any:
            keyed = all(isinstance(item, FusedTokens) and item.key for item in contexts[0])
            return shared(scope, [sorted(c, key=lambda i: i.key) for c in contexts] if keyed else contexts)

        self.prefixes.shared = ordered  # type: ignore[method-assign]
        try:
            return super().prefill(queries, contexts, form, room)
        finally:
            del self.prefixes.shared


class PrefixOfMoreDemonstrations(KiteInjector):
    """A state of all demonstrations is taken for one of the first of them."""

    def prefill(self, queries: Any, contexts: Any, form: PromptFormat, room: int) -> Any:
        put = self.prefixes.put
        self.prefixes.put = lambda scope, keys, *rest: [put(scope, keys[:n], *rest) for n in range(1, len(keys) + 1)]  # type: ignore[method-assign,assign]
        try:
            return super().prefill(queries, contexts, form, room)
        finally:
            del self.prefixes.put


# Refusals


class NoLimit(KiteBackend):
    """The model raises what it raises."""

    class _Reader(KiteReader):
        def read(self, *args: Any, **options: Any) -> list[Reading]:
            return _without_a_limit(super().read, *args, **options)

    class _Injector(KiteInjector):
        def prefill(self, *args: Any) -> Any:
            return _without_a_limit(super().prefill, *args)

    reader_class, injector_class = _Reader, _Injector


class QueryLimitOfAnotherType(KiteInjector):
    def prefill(self, *args: Any) -> Any:
        try:
            return super().prefill(*args)
        except ContextLengthError as error:
            raise ValueError(str(error)) from error


class ReaderWithoutALimit(KiteReader):
    def read(self, *args: Any, **options: Any) -> list[Reading]:
        return _without_a_limit(super().read, *args, **options)


class PromptCut(KiteInjector):
    """The middle of a long prompt is left out, and nobody is told."""

    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        made = super().join(opening, context, query)
        return made if len(made) < 1000 else torch.cat([made[:400], made[-600:]])


class BadImageIsAValueError(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        try:
            return super().see(queries)
        except ImageError as error:
            raise ValueError("cannot identify image file") from error


class ReaderBadImageIsAValueError(KiteReader):
    def prepare(self, *args: Any, **options: Any) -> PreparedReadings:
        try:
            return super().prepare(*args, **options)
        except ImageError as error:
            raise ValueError("cannot identify image file") from error


class BadImageIsBlack(KiteInjector):
    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        try:
            return super().see(queries)
        except ImageError:
            return [self.model.see(Image.new("RGB", (48, 48))) for _ in queries]


class AlwaysTheFirstQuery(KiteInjector):
    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        try:
            return super().generate(*args, **options)
        except (ImageError, ContextLengthError) as error:
            error.query = 0
            raise


def _without_a_limit(call: Any, *args: Any, **options: Any) -> Any:
    check, adapter._check_length = adapter._check_length, lambda tokens: None
    try:
        return call(*args, **options)
    finally:
        adapter._check_length = check


CAUGHT: list[tuple[str, Part]] = [
    ("reading_is_scored", ReaderSeesBgr),
    ("reading_is_scored", ReaderSeesGrey),
    ("plain_model", QuerySeesBgr),
    ("plain_model", QuerySeesGrey),
    ("plain_model", BothSeeBgr),
    ("plain_model", BothSeeGrey),
    ("interleaved", InterleavedSeesGrey),
    ("plain_model", TextStripped),
    ("plain_model", BracesDropped),
    ("plain_model", QueryCutAt300),
    ("identity_forward", DemonstrationsCutAt300),
    ("reading_is_the_text", ReaderCutsAt300),
    ("identity_forward", LastThreeShots),
    ("identity_forward", LastSixShots),
    ("identity_forward", LastTwelveShots),
    ("interleaved", LastThreeInterleaved),
    ("identity_forward", NoQueryImageWithManyShots),
    ("plain_model", LateTokensMisplaced),
    ("large_batch", LargeBatchAnswersTheFirst),
    ("large_batch", LargeBatchHasOneContext),
    ("large_batch", RowsByLengthOfAnswer),
    ("reading_alone", LargeReadingsMisplaced),
    ("threads_do_not_mix", QueriesKeptOnSelf),
    ("threads_do_not_mix", ContextsKeptOnSelf),
    ("threads_do_not_mix", ReaderKeepsOnSelf),
    ("score_is_generate", LogProbsNought),
    ("score_is_generate", LogProbsOverAllowedTokens),
    ("score_is_generate", LogProbsLate),
    ("prefix_reuse_is_exact", PrefixIgnoresTheOrder),
    ("prefix_reuse_is_exact", PrefixOfMoreDemonstrations),
    ("too_long_is_refused", NoLimit),
    ("too_long_is_refused", QueryLimitOfAnotherType),
    ("too_long_is_refused", ReaderWithoutALimit),
    ("too_long_is_refused", PromptCut),
    ("too_long_is_refused", AlwaysTheFirstQuery),
    ("bad_image_is_refused", BadImageIsAValueError),
    ("bad_image_is_refused", ReaderBadImageIsAValueError),
    ("bad_image_is_refused", BadImageIsBlack),
    ("bad_image_is_refused", AlwaysTheFirstQuery),
]
"""Which check must catch which bug."""
