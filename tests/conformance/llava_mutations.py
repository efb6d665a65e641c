"""Bugs of a tiny LLaVA that its earlier kit let pass, and the check that must name each."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aim_backends.hf import TransformersBackend
from aim_backends.hf.footprint import TransformersFootprint
from aim_backends.hf.reader import TransformersReader
from aim_backends.hf.writing import PromptWriter
from aim_backends.llava import LlavaBackend
from aim_sdk import Backend, Demonstration, Fingerprint, FusedTokens, Generation, PromptFormat, Query, Reading
from aim_sdk.backend.box import Box
from aim_sdk.backend.capabilities import WritesBoxes
from aim_sdk.backend.constraints import Constraint, OneOf
from aim_sdk.backend.plain_boxes import PlainBoxes
from aim_sdk.backend.prepared import PreparedAnswers
from aim_sdk.errors import CutAnswerError
from tests.conformance.broken import Answerer, Broken, Reader, answering, reading
from tests.conformance.third_party.unseen import bgr, grey


class _Shifted(Reader):
    answer, image = 0, 0

    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        return [
            dataclasses.replace(
                found, answer_start=found.answer_start + self.answer, image_position=found.image_position + self.image
            )
            for found in self.good.read(demonstrations, **options)
        ]


class _AnswerStartLate(_Shifted):
    answer = 1


class _AnswerStartEarly(_Shifted):
    answer = -1


class _AnswerStartAtTheRole(_Shifted):
    answer = -4


class _ImagePositionLate(_Shifted):
    image = 2


class _ImagePositionNought(Reader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        return [dataclasses.replace(found, image_position=0) for found in self.good.read(demonstrations, **options)]


class _SeesBgr(Answerer):
    def query(self, query: Query, context: Any) -> Query:
        return dataclasses.replace(query, image=bgr(query.image))


class _SeesGrey(Answerer):
    def query(self, query: Query, context: Any) -> Query:
        return dataclasses.replace(query, image=grey(query.image))


class _ReadsBgr(Reader):
    def read(self, demonstrations: Sequence[Demonstration], **options: Any) -> list[Reading]:
        turned = [dataclasses.replace(item, image=bgr(item.image)) for item in demonstrations]
        return self.good.read(turned, **options)


class _SystemDropped(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        form: PromptFormat = options.pop("prompt_format")
        bare = form.model_copy(update={"system": None}) if form.kind == "chat" else form
        return super().generate(queries, contexts, prompt_format=bare, **options)


class _InterleavedImagesTurned(Answerer):
    def context(self, context: Any) -> Any:
        if not all(isinstance(item, Demonstration) for item in context):
            return context
        images = [item.image for item in context][::-1]
        return [dataclasses.replace(item, image=image) for item, image in zip(context, images, strict=True)]


class _InterleavedWithoutImages(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        reader, form = self.backend.reader, options["prompt_format"]
        text = [
            reader.text_only(row, prompt_format=form) if row and isinstance(row[0], Demonstration) else row
            for row in contexts
        ]
        return super().generate(queries, text, **options)


class _BeamsIgnored(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        options.pop("num_beams", None)
        return super().generate(queries, contexts, **options)


class _StopNotCut(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        made = super().generate(queries, contexts, **options)
        decode = self.backend.backbone.tokenizer.decode
        return [dataclasses.replace(one, text=decode(one.token_ids, skip_special_tokens=True).strip()) for one in made]


class _PromptTokensWithoutImages(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        made = super().generate(queries, contexts, **options)
        return [dataclasses.replace(one, prompt_tokens=one.prompt_tokens - 16) for one in made]


class _EndedIgnored(Answerer):
    def prepare_answers(self, *args: Any, ended: bool = False, **options: Any) -> PreparedAnswers:
        return super().prepare_answers(*args, **options)


class _NotNormalised(Answerer):
    def score(self, *args: Any, **options: Any) -> list[list[float]]:
        return [[value + 8 for value in row] for row in super().score(*args, **options)]


class _BehindTheRole(PromptWriter):
    def written(self, *args: Any) -> Any:
        written = super().written(*args)
        more = 3 if args[-1].kind == "chat" else 0
        return dataclasses.replace(written, heads=tuple(head + more for head in written.heads))


class _ConstantHash(LlavaBackend):
    @property
    def fingerprint(self) -> Fingerprint:  # type: ignore[override]
        return super().fingerprint.model_copy(update={"weights_hash": "0" * 64})


def fused_behind_the_role(good: TransformersBackend) -> Backend:
    good.injector.writer = _BehindTheRole(good.backbone)
    return good


def constant_hash(good: TransformersBackend) -> Backend:
    return _ConstantHash(good.backbone)


def slot_in_reach(good: TransformersBackend) -> Backend:
    good.slot = int(good.backbone.tokenizer("red", add_special_tokens=False)["input_ids"][-1])
    return good


def looking_twice(good: TransformersBackend) -> TransformersBackend:
    """A family whose first layer looks ids up a second time; nothing is wrong with it."""
    rows, seen = good.backbone.rows, list[Tensor]()
    table = torch.randn(rows, good.backbone.embedding_size, generator=torch.Generator().manual_seed(0)) / 8

    def see(module: object, args: object, kwargs: dict[str, Any]) -> None:
        seen[:] = [kwargs["input_ids"]]

    def add(module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] + table[seen[0]].to(args[0].dtype), *args[1:])

    good.model.register_forward_pre_hook(see, with_kwargs=True)
    good.model.get_decoder().layers[0].register_forward_pre_hook(add)
    return good


class _Nameless(TransformersReader):
    """Its fused tokens do not say what they stand for."""

    def text_only(self, *args: Any, **options: Any) -> list[FusedTokens]:
        return [FusedTokens(item.embeddings) for item in super().text_only(*args, **options)]


def second_lookup(good: TransformersBackend) -> Backend:
    """A family that looks ids up a second time, and sees the slot there."""
    good._reader = _Nameless(good.backbone)
    return looking_twice(good)


class _Miscounts(TransformersFootprint):
    texts, alone, after_images, window = 0, 0, 0, 10**9

    def text_tokens(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        return [n + self.texts for n in super().text_tokens(demonstrations, prompt_format=prompt_format)]

    def prompt_tokens(self, query: Query, shown: Sequence[Demonstration], *, prompt_format: PromptFormat) -> int:
        found = super().prompt_tokens(query, shown, prompt_format=prompt_format)
        return found + (self.after_images if shown else self.alone)

    def kv_bytes(self, tokens: int, images: int) -> int:
        return 100 - tokens if self.window == 0 else 100


class _AnswerUncounted(_Miscounts):
    texts = -1


class _BosForgotten(_Miscounts):
    alone, after_images = -1, -1


class _FrameForgotten(_Miscounts):
    after_images = -2


class _KvShrinks(_Miscounts):
    window = 0


def foreseeing(bug: type[TransformersFootprint]) -> Broken:
    """A loaded backend whose footprint is wrong."""

    def broken(good: TransformersBackend) -> Backend:
        sizes = good.footprint.sizes
        good.footprint = bug(good.backbone, sizes.device, sizes.dtype, sizes.weights_bytes)
        return good

    return broken


class _ChoiceCut(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        return [dataclasses.replace(one, text=one.text[:2]) for one in super().generate(queries, contexts, **options)]


class _ChoiceStreamedTwice(Answerer):
    def stream(self, query: Query, context: Any, **options: Any) -> Iterator[str]:
        pieces = list(super().stream(query, context, **options))
        return iter([*pieces, *pieces])


class _CutJsonGiven(Answerer):
    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        try:
            return super().generate(queries, contexts, **options)
        except CutAnswerError:
            return self.backend.injector.generate(queries, contexts, **options)


def constraining(bug: type[Answerer]) -> Broken:
    """A backend whose constrained answers have a bug."""

    class Constraining(LlavaBackend):
        def constrained(self, constraint: Constraint) -> Any:
            made = bug(self)
            made.good = super().constrained(constraint)
            return made

    return lambda good: Constraining(good.backbone)


class _FirstConstraintStays(LlavaBackend):
    def constrained(self, constraint: Constraint) -> Any:
        made = super().constrained(constraint)
        self.injector._constraint = constraint
        return made


class _ShortestChoice(LlavaBackend):
    def constrained(self, constraint: Constraint) -> Any:
        if isinstance(constraint, OneOf):
            constraint = OneOf((min(constraint.choices, key=len),))
        return super().constrained(constraint)


class _Plain(LlavaBackend):
    """Writes boxes plainly, without a bug."""

    @property
    def lacks(self) -> dict[type, str]:  # type: ignore[override]
        return {one: why for one, why in super().lacks.items() if one is not WritesBoxes}

    def write_boxes(self, boxes: Iterable[Box], image: Any) -> str:
        return PlainBoxes().write_boxes(boxes, image)

    def read_boxes(self, text: str, image: Any) -> list[Box]:
        return PlainBoxes().read_boxes(text, image)


class _CornersTurned(_Plain):
    def write_boxes(self, boxes: Iterable[Box], image: Any) -> str:
        return super().write_boxes([Box(box.y1, box.x1, box.y2, box.x2, box.label) for box in boxes], image)


class _BoxGuessed(_Plain):
    def read_boxes(self, text: str, image: Any) -> list[Box]:
        return super().read_boxes(text, image) or [Box(0, 0, 1, 1)]


def as_class(bug: type[LlavaBackend]) -> Broken:
    return lambda good: bug(good.backbone)


CAUGHT: list[tuple[str, str, Broken]] = [
    ("boxes_are_kept", "y first, read as x first", as_class(_CornersTurned)),
    ("boxes_are_kept", "a guess where there is no box", as_class(_BoxGuessed)),
    ("choices_are_kept", "cut", constraining(_ChoiceCut)),
    ("choices_are_kept", "streamed twice", constraining(_ChoiceStreamedTwice)),
    ("schema_is_kept", "cut JSON is given", constraining(_CutJsonGiven)),
    ("schema_is_kept", "stays for the next call", as_class(_FirstConstraintStays)),
    ("constrained_is_free", "the shortest choice", as_class(_ShortestChoice)),
    ("cost_is_foreseen", "an answer is not counted", foreseeing(_AnswerUncounted)),
    ("cost_is_foreseen", "BOS forgotten", foreseeing(_BosForgotten)),
    ("cost_is_foreseen", "frame tokens forgotten", foreseeing(_FrameForgotten)),
    ("cost_is_foreseen", "KV shrinks", foreseeing(_KvShrinks)),
    ("answer_start", "late", reading(_AnswerStartLate)),
    ("answer_start", "early", reading(_AnswerStartEarly)),
    ("answer_start", "at the role", reading(_AnswerStartAtTheRole)),
    ("image_position", "late", reading(_ImagePositionLate)),
    ("image_position", "nought", reading(_ImagePositionNought)),
    ("plain_model", "system text dropped", answering(_SystemDropped)),
    ("plain_model", "colours turned", answering(_SeesBgr)),
    ("plain_model", "no colours", answering(_SeesGrey)),
    ("reading_is_scored", "colours turned", reading(_ReadsBgr)),
    ("identity_chat", "system text dropped", answering(_SystemDropped)),
    ("identity_chat", "fused tokens after the role", fused_behind_the_role),
    ("interleaved", "images turned", answering(_InterleavedImagesTurned)),
    ("interleaved", "no images", answering(_InterleavedWithoutImages)),
    ("options_are_used", "beams ignored", answering(_BeamsIgnored)),
    ("stop_string", "not cut", answering(_StopNotCut)),
    ("prompt_tokens", "no images", answering(_PromptTokensWithoutImages)),
    ("ended", "ignored", answering(_EndedIgnored)),
    ("scores_are_log_probabilities", "not normalised", answering(_NotNormalised)),
    ("fingerprint", "constant hash", constant_hash),
    ("slot_changes_nothing", "in reach of texts", slot_in_reach),
    ("slot_changes_nothing", "looked up a second time", second_lookup),
    ("identity_forward", "looked up a second time", second_lookup),
]
"""(check, what goes wrong, how)."""
