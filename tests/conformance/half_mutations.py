"""More bugs of a tiny LLaVA, as large as real ones are: what rounding to half precision must not hide."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from aim_backends.hf import TransformersBackend
from aim_sdk import Backend, FusedTokens, Generation, Query, Reading
from aim_sdk.backend.prepared import AnswerLogits
from aim_sdk.types import ChoiceScores
from tests.conformance.broken import Answerer, Broken, Reader, answering, reading


def padding_is_seen(good: TransformersBackend) -> Backend:
    """A mask that shows the padding of a batch."""

    def show(module: object, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = given.get("attention_mask")
        seen = torch.ones_like(mask) if isinstance(mask, torch.Tensor) and mask.ndim == 2 else mask
        return args, {**given, "attention_mask": seen}

    good.model.model.register_forward_pre_hook(show, with_kwargs=True)
    return good


class _TextForgotten(Answerer):
    def query(self, query: Query, context: Any) -> Query:
        return Query(query.image, "What?")


class _ImageFirst(Answerer):
    """Fused tokens after the text of a format that begins with it: here, after the first of them."""

    def context(self, context: Any) -> Any:
        return [*context[1:], *context[:1]]


class _SystemUnread(Reader):
    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        form = options.pop("prompt_format")
        return self.good.read(demonstrations, prompt_format=form.model_copy(update={"system": None}), **options)


class _ImagesTurned(Reader):
    """The rows of a batch get each other's images."""

    def read(self, demonstrations: Any, **options: Any) -> list[Reading]:
        images = [one.image for one in demonstrations]
        turned = [
            dataclasses.replace(one, image=image)
            for one, image in zip(demonstrations, images[1:] + images[:1], strict=True)
        ]
        return self.good.read(turned, **options)


class _TokenBefore(Reader):
    def run(self, prepared: Any) -> list[Reading]:
        return [dataclasses.replace(found, hidden=found.hidden.roll(1, 0)) for found in self.good.run(prepared)]


class _FirstContextForAll(Answerer):
    def score_batch(self, queries: Any, contexts: Any, choices: Any, **options: Any) -> list[ChoiceScores]:
        return self.good.score_batch(queries, [contexts[0]] * len(queries), choices, **options)

    def score_each(self, queries: Any, contexts: Any, choices: Any, **options: Any) -> list[ChoiceScores]:
        return self.good.score_each(queries, [contexts[0]] * len(queries), choices, **options)


class _ImagesLost(Answerer):
    """Logits after interleaved demonstrations as after their texts."""

    def answer_logits(self, prepared: Any, contexts: Any) -> list[AnswerLogits]:
        form, reader = prepared.prompt_format, self.backend.reader
        text = [
            reader.text_only(row, prompt_format=form) if row and not isinstance(row[0], FusedTokens) else row
            for row in contexts
        ]
        return super().answer_logits(prepared, text)


class _Remembers(Answerer):
    """Keeps what it has scored by the image's `id` or path."""

    def __init__(self, good: TransformersBackend) -> None:
        super().__init__(good)
        self.kept: dict[Any, Any] = {}

    def query(self, query: Query, context: Any) -> Query:
        key = id(query.image) if isinstance(query.image, Image.Image) else query.image
        image = query.image.copy() if isinstance(query.image, Image.Image) else Image.open(query.image).copy()
        return Query(self.kept.setdefault(key, image), query.text)


class _GoesOn(Answerer):
    """Says more after the end."""

    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        made = super().generate(queries, contexts, **options)
        return [dataclasses.replace(one, text=f"{one.text}!") if one.ended else one for one in made]


class _Scaled(Answerer):
    """Log-probabilities at another temperature."""

    def generate(self, queries: Any, contexts: Any, **options: Any) -> list[Generation]:
        made: Sequence[Generation] = super().generate(queries, contexts, **options)
        return [
            one if one.log_probs is None else dataclasses.replace(one, log_probs=tuple(0.9 * n for n in one.log_probs))
            for one in made
        ]


CAUGHT: list[tuple[str, str, Broken]] = [
    ("sensitivity", "the question is forgotten", answering(_TextForgotten)),
    ("identity_behind_text", "in another order", answering(_ImageFirst)),
    ("identity_batch", "padding is seen", padding_is_seen),
    ("reading_alone", "images turned", reading(_ImagesTurned)),
    ("prepared_is_read", "states of the token before", reading(_TokenBefore)),
    ("large_batch", "padding is seen", padding_is_seen),
    ("reading_is_scored_in_chat", "the reader's system text is lost", reading(_SystemUnread)),
    ("score_batch_is_score", "one context for all", answering(_FirstContextForAll)),
    ("score_each_is_score", "one context for all", answering(_FirstContextForAll)),
    ("answer_logits", "images are lost", answering(_ImagesLost)),
    ("end_token", "more after the end", answering(_GoesOn)),
    ("images_are_seen_again", "kept by `id` or path", answering(_Remembers)),
    ("score_is_generate", "at another temperature", answering(_Scaled)),
]
"""(check, what goes wrong, how)."""
