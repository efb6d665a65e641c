"""Backends with one deliberate bug each, round a good one: what the checks of the kit must catch."""

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from PIL import Image

from aim_backends.hf import TransformersBackend
from aim_backends.hf.backbone import Backbone
from aim_sdk import Backend, Demonstration, DemoReader, FusedTokens, Generation, Injector, Projector, Query, Reading
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers, PreparedReadings

Broken = Callable[[TransformersBackend], Backend]


class Reader(DemoReader):
    """Passes everything on; a bug overrides one method."""

    def __init__(self, good: DemoReader) -> None:
        self.good = good

    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        return self.good.read(demonstrations, **options)

    def prepare(self, demonstrations: Sequence[Demonstration], **options: Any) -> PreparedReadings:
        return self.good.prepare(demonstrations, **options)

    def run(self, prepared: PreparedReadings) -> list[Reading]:
        return self.good.run(prepared)

    def text_only(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[FusedTokens]:
        return self.good.text_only(demonstrations, **options)


class Answerer(Injector):
    """Passes everything on, through `context` and `query`; a bug overrides one method."""

    def __init__(self, good: TransformersBackend) -> None:
        self.backend, self.good = good, good.injector

    def context(self, context: Any) -> Any:
        return context

    def query(self, query: Query, context: Any) -> Query:
        return query

    def generate(self, queries: Sequence[Query], contexts: Any, **options: Any) -> list[Generation]:
        queries = [self.query(query, context) for query, context in zip(queries, contexts, strict=True)]
        return self.good.generate(queries, [self.context(context) for context in contexts], **options)

    def stream(self, query: Query, context: Any, **options: Any) -> Iterator[str]:
        return self.good.stream(self.query(query, context), self.context(context), **options)

    def score(self, query: Query, context: Any, choices: Sequence[str], **options: Any) -> list[list[float]]:
        return self.good.score(self.query(query, context), self.context(context), choices, **options)

    def prepare_answers(self, queries: Any, answers: Any, **options: Any) -> PreparedAnswers:
        ids = self.good.prepare_answers(queries, answers, **options).token_ids
        options.pop("contexts", None)
        return PreparedAnswers(tuple(queries), tuple(answers), ids, **options)

    def answer_logits(self, prepared: PreparedAnswers, contexts: Any) -> list[AnswerLogits]:
        queries = [self.query(query, context) for query, context in zip(prepared.queries, contexts, strict=True)]
        form, ended = prepared.prompt_format, prepared.ended
        written = self.good.prepare_answers(queries, prepared.answers, prompt_format=form, ended=ended)
        return self.good.answer_logits(written, [self.context(context) for context in contexts])


class Wrapped(Backend):
    """A good backend with another reader or injector."""

    name = "broken"

    def __init__(self, good: TransformersBackend, reader: type[Reader] = Reader, injector: type = Answerer) -> None:
        self.good = good
        self._reader, self._injector = reader(good.reader), injector(good)

    @classmethod
    def from_pretrained(cls, model: str | None = None, **options: Any) -> Self:
        raise NotImplementedError

    reader = property(lambda self: self._reader)
    injector = property(lambda self: self._injector)
    fingerprint = property(lambda self: self.good.fingerprint)
    default_format = property(lambda self: self.good.default_format)
    device = property(lambda self: self.good.device)
    dtype = property(lambda self: self.good.dtype)
    vocabulary = property(lambda self: self.good.vocabulary)
    decoder_layers = property(lambda self: self.good.decoder_layers)
    most_images = property(lambda self: self.good.most_images)
    slot = property(lambda self: self.good.slot)
    prepare_answers = property(lambda self: self._injector.prepare_answers)
    answer_logits = property(lambda self: self._injector.answer_logits)

    def default_projector(self) -> Projector:
        return self.good.default_projector()

    def plain_answer(self, query: Query, **options: Any) -> list[int]:
        return self.good.plain_answer(query, **options)


def _blank(query: Query) -> Query:
    return Query(Image.new("RGB", (20, 20)), query.text)


def _dummy(good: TransformersBackend) -> FusedTokens:
    return FusedTokens(good.backbone.embed([5, 6, 7]))


class _Reversed(Answerer):
    def context(self, context: Any) -> Any:
        return list(context)[::-1]


class _ShuffledWhenGenerating(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        turned = [[FusedTokens(item.embeddings.flip(0)) for item in context] for context in contexts]
        return self.good.generate(queries, turned, **options)


class _RowsMixedUp(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        return self.good.generate(queries, [*contexts[1:], contexts[0]], **options)


class _BeamsMixedUp(_RowsMixedUp):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        mixed = super().generate if "num_beams" in options else self.good.generate
        return mixed(queries, contexts, **options)


class _PlaceholderForEmpty(Answerer):
    def context(self, context: Any) -> Any:
        return [item if len(item) else _dummy(self.backend) for item in context]


class _AlwaysADemonstration(Answerer):
    def context(self, context: Any) -> Any:
        return [_dummy(self.backend), *context]


class _SeesTheBatch(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        readings = self.good.read(demonstrations, **options)
        return [dataclasses.replace(r, hidden=r.hidden + 0.01 * (len(readings) - 1)) for r in readings]


class _CountsTheOpening(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        readings = self.good.read(demonstrations, **options)
        return [
            dataclasses.replace(
                r,
                token_ids=torch.cat([torch.tensor([1]), r.token_ids]),
                hidden=torch.cat([r.hidden[:1], r.hidden]),
                embeddings=torch.cat([r.embeddings[:1], r.embeddings]),
            )
            for r in readings
        ]


class _SeesWhatComes(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        readings = self.good.read(demonstrations, **options)
        return [dataclasses.replace(r, hidden=r.hidden + r.hidden.mean(0)) for r in readings]


class _Blind(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        return self.good.read(demonstrations, **{**options, "with_images": False})


class _LayersMixedUp(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        return self.good.read(demonstrations, **options | {"layers": options.get("layers", (-1,))[::-1]})


class _LayersOffByOne(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        layers = tuple(layer + (layer == 0) for layer in options.get("layers", (-1,)))
        return self.good.read(demonstrations, **options | {"layers": layers})


class _AnyLayer(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        layers = tuple(min(layer, 1) for layer in options.get("layers", (-1,)))
        return self.good.read(demonstrations, **options | {"layers": layers})


class _Peeking(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        return self.good.read(demonstrations, **{**options, "with_images": True})


class _Noisy(Answerer):
    def score(self, *args: Any, **options: Any) -> list[list[float]]:
        return [[value + float(torch.rand(())) for value in row] for row in super().score(*args, **options)]


class _DropsTheImage(Answerer):
    def query(self, query: Query, context: Any) -> Query:
        return _blank(query) if context else query


class _Echoing(Answerer):
    def stream(self, *args: Any, **options: Any) -> Iterator[str]:
        yield from super().stream(*args, **options)
        yield " "


class _CacheWithoutImage(Answerer):
    def score(self, query: Query, context: Any, choices: Any, **options: Any) -> list[list[float]]:
        return super().score(_blank(query), context, choices, **options)


class _ScoresOtherTokens(Answerer):
    def score(self, *args: Any, **options: Any) -> list[list[float]]:
        return [[value / 2 for value in row] for row in super().score(*args, **options)]


class _GeneratesSlots(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        prepared = self.good.prepare(queries, contexts, prompt_format=options["prompt_format"])
        with self.good.injected(prepared):
            ids = self.backend.model.generate(
                **prepared.inputs, do_sample=False, max_new_tokens=options["max_new_tokens"]
            )
        width = prepared.inputs["input_ids"].shape[1]
        return [Generation("", tuple(row), 1) for row in ids[:, width:].tolist()]


class _Detached(Answerer):
    def context(self, context: Any) -> Any:
        return [FusedTokens(item.embeddings.detach()) for item in context]


class _LeavesAHook(Answerer):
    """Takes its hook back only where all went well."""

    def generate(self, *args: Any, **options: Any) -> list[Generation]:
        module = self.backend.model.get_input_embeddings()
        handle = module.register_forward_hook(lambda module, args, output: output * 1.5)
        answers = super().generate(*args, **options)
        handle.remove()
        return answers


class _KeepsTheContext(Answerer):
    """Keeps what is injected on itself, where other threads find it."""

    kept: Any = ()

    def score(self, query: Query, context: Any, choices: Any, **options: Any) -> list[list[float]]:
        self.kept = context
        time.sleep(0.02)
        return super().score(query, self.kept, choices, **options)


class _Casting(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        readings = self.good.read(demonstrations, **options)
        return [dataclasses.replace(r, hidden=r.hidden.double()) for r in readings]


class _RestlessFingerprint(Wrapped):
    fingerprint = property(lambda self: self.good.fingerprint.model_copy(update={"tokenizer_hash": uuid.uuid4().hex}))


class _Trainable(Answerer):
    def answer_logits(self, *args: Any) -> list[AnswerLogits]:
        self.backend.model.requires_grad_(True)
        return super().answer_logits(*args)


class _AnswersOtherRows(Answerer):
    """Looks at the first row's answer everywhere."""

    def answer_logits(self, *args: Any) -> list[AnswerLogits]:
        found = super().answer_logits(*args)
        first = found[0].logits[:1]
        return [AnswerLogits(one.token_ids, first.expand(len(one), -1)) for one in found]


class _KeepsAllActivations(Wrapped):
    """The switch of a model in eval mode."""

    def recompute_activations(self, on: bool = True) -> None:
        pass


class _TextHasRoles(Wrapped):
    """Tokenises a user's text as it tokenises its own template."""

    def __init__(self, good: TransformersBackend) -> None:
        super().__init__(TransformersBackend(Backbone(good.model, good.backbone.processor, "broken", "allow")))


class _ChoicesHaveRoles(Answerer):
    """Checks demonstrations and queries, and forgets the choices."""

    def score(self, query: Query, context: Any, choices: Sequence[str], **options: Any) -> list[list[float]]:
        allowing = TransformersBackend(Backbone(self.backend.model, self.backend.backbone.processor, "broken", "allow"))
        return allowing.injector.score(query, context, choices, **options)


class _PreparesTheWrongBatch(Reader):
    """Keeps what it has prepared in one place."""

    prepared: Any = None

    def prepare(self, *args: Any, **options: Any) -> PreparedReadings:
        self.prepared = super().prepare(*args, **options)
        return self.prepared

    def run(self, prepared: PreparedReadings) -> list[Reading]:
        return super().run(self.prepared)


class _Reusing(Wrapped):
    prefixes = property(lambda self: self._injector.prefixes)


class _ReusesAnotherPrefix(Answerer):
    """Right when it computes a prefix, wrong when it has it."""

    def __init__(self, good: TransformersBackend) -> None:
        super().__init__(good)
        self.prefixes = PrefixCache[None]()

    def context(self, context: Any) -> Any:
        shared = self.prefixes.shared("", [context])
        if shared is None:
            return context
        self.prefixes.put("", shared.keys, None, 1)
        return list(context)[::-1] if shared.done else context


def reading(bug: type[Reader]) -> Broken:
    return lambda good: Wrapped(good, reader=bug)


def answering(bug: type[Answerer]) -> Broken:
    return lambda good: Wrapped(good, injector=bug)


def reusing(bug: type[Answerer]) -> Broken:
    return lambda good: _Reusing(good, injector=bug)


def wrapping(bug: type[Wrapped]) -> Broken:
    return lambda good: bug(good)


BROKEN: list[tuple[str, Broken]] = [
    ("identity_forward", answering(_Reversed)),
    ("identity_generate", answering(_ShuffledWhenGenerating)),
    ("identity_batch", answering(_RowsMixedUp)),
    ("identity_beams", answering(_BeamsMixedUp)),
    ("zero_demonstrations", answering(_PlaceholderForEmpty)),
    ("plain_model", answering(_AlwaysADemonstration)),
    ("reading_alone", reading(_SeesTheBatch)),
    ("reading_is_the_text", reading(_CountsTheOpening)),
    ("reading_before_the_answer", reading(_SeesWhatComes)),
    ("image_reaches_the_reading", reading(_Blind)),
    ("image_reaches_the_reading", reading(_Peeking)),
    ("reading_layers", reading(_LayersMixedUp)),
    ("reading_layers", reading(_LayersOffByOne)),
    ("reading_layers", reading(_AnyLayer)),
    ("deterministic", answering(_Noisy)),
    ("image_reaches_the_answer", answering(_DropsTheImage)),
    ("stream_is_generate", answering(_Echoing)),
    ("cached_is_full", answering(_CacheWithoutImage)),
    ("score_is_generate", answering(_ScoresOtherTokens)),
    ("slot_never_generated", answering(_GeneratesSlots)),
    ("gradient_reaches_the_projector_only", answering(_Detached)),
    ("gradient_reaches_the_projector_only", answering(_Trainable)),
    ("text_keeps_its_role", wrapping(_TextHasRoles)),
    ("text_keeps_its_role", answering(_ChoicesHaveRoles)),
    ("nothing_stays_injected", answering(_LeavesAHook)),
    ("threads_do_not_mix", answering(_KeepsTheContext)),
    ("dtype_and_device", reading(_Casting)),
    ("prepared_is_read", reading(_PreparesTheWrongBatch)),
    ("prefix_reuse_is_exact", reusing(_ReusesAnotherPrefix)),
    ("answer_logits_batch", answering(_AnswersOtherRows)),
    ("recomputed_activations", wrapping(_KeepsAllActivations)),
    ("saved_projector_is_the_same", wrapping(_RestlessFingerprint)),
]
"""Which check must catch which bug."""


def name(broken: Broken) -> str:
    """The bug's name, for the test's id."""
    (cell,) = broken.__closure__ or ()
    return str(cell.cell_contents.__name__).lstrip("_")
