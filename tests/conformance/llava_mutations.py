"""Bugs of a tiny LLaVA that its earlier kit let pass, and the check that must name each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aim_backends.hf import TransformersBackend
from aim_backends.hf.writing import PromptWriter
from aim_backends.llava import LlavaBackend
from aim_sdk import Backend, Demonstration, Fingerprint, Generation, PromptFormat, Query, Reading
from aim_sdk.backend.prepared import PreparedAnswers
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


def second_lookup(good: TransformersBackend) -> Backend:
    """A family that looks ids up a second time, and sees the slot there."""
    table = (
        torch.randn(good.backbone.rows, good.backbone.embedding_size, generator=torch.Generator().manual_seed(0)) / 8
    )

    def add(module: object, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + table[args[0]]

    good.model.get_input_embeddings().register_forward_hook(add)
    return good


CAUGHT: list[tuple[str, str, Broken]] = [
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
