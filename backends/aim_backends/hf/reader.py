"""Reads demonstrations with a transformers backbone: the last hidden states on top of each one's text tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aim_backends.hf.blame import naming_the_image
from aim_backends.hf.tap import recording
from aim_backends.hf.text import TextTokens
from aim_sdk.backend.prepared import PreparedReadings
from aim_sdk.backend.reader import DemoReader
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, ContextLengthError
from aim_sdk.files.images import describe, image_size, load_image
from aim_sdk.layers import LAST, side_by_side
from aim_sdk.types import Demonstration, FusedTokens, ImageInput, Reading

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class ProcessedReadings(PreparedReadings):
    """What the processor made of demonstrations; these are as they were given, so that errors name their files."""

    inputs: dict[str, Tensor] = field(repr=False)
    """The backbone's, padded on the right."""
    tokens: list[TextTokens] = field(repr=False)
    places: list[list[int]] = field(repr=False)
    """Where in each row the text tokens stand."""
    visual: Tensor | None = field(repr=False)
    """Which positions stand for an image, ``(rows, positions)``; None if there are no images."""


class TransformersReader(DemoReader):
    """Reads a batch in one forward, padded on the right so that every demonstration starts where it starts alone."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._plain: bool | None = None

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> PreparedReadings:
        shown = tuple(demonstrations)
        tokens, inputs, places = self._processed(shown, prompt_format, with_images) if shown else ([], {}, [])
        positions = inputs["input_ids"].numel() if shown else 0
        given = shown, prompt_format, with_images, tuple(layers), positions
        visual = _visual(inputs["attention_mask"], tokens, places) if shown and with_images else None
        return ProcessedReadings(*given, inputs=inputs, tokens=tokens, places=places, visual=visual)

    def _processed(
        self, shown: Sequence[Demonstration], prompt_format: PromptFormat, with_images: bool
    ) -> tuple[list[TextTokens], dict[str, Tensor], list[list[int]]]:
        """The text tokens of each demonstration, the backbone's inputs, and where in them the text tokens stand."""
        backbone, sources = self._backbone, _sources(shown)
        images = [[load_image(source) for source in row] for row in sources] if with_images else []
        with naming_the_image(backbone, sources), backbone.processor_lock:
            tokens, prompts = self.text_tokens(shown, prompt_format)
            if with_images:
                inputs = backbone.process(prompts, images, padding_side="right")
            else:
                inputs = self._text_inputs(tokens)
        if with_images:
            lengths = inputs["attention_mask"].sum(1).tolist()
            self._check_length(shown, lengths)
            rows = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
            places = [backbone.tokens.expanded_places(t, row) for t, row in zip(tokens, rows, strict=True)]
        else:
            places = [list(range(len(t.prefix_ids), len(t.prefix_ids) + len(t.ids))) for t in tokens]
        if backbone.answer_type:  # a prefix LM: what is before the answer must not see it, nor the padding after it
            for row, (t, where) in enumerate(zip(tokens, places, strict=True)):
                inputs["token_type_ids"][row, where[t.answer_start] :] = backbone.answer_type
        return tokens, inputs, places

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        assert isinstance(prepared, ProcessedReadings)
        if not len(prepared):
            return []
        backbone, tokens = self._backbone, prepared.tokens
        sources = _sources(prepared.demonstrations) if prepared.with_images else []
        with naming_the_image(backbone, sources), backbone.lock:
            hidden, first = self._hidden(prepared.inputs, prepared.layers)
            embedded = backbone.embed([index for t in tokens for index in t.ids])
        embeddings = torch.split(embedded, [len(t.ids) for t in tokens])
        visual = self._visual_means(first, prepared, embeddings[0])
        return [
            Reading(
                token_ids=torch.tensor(t.ids),
                hidden=hidden[row, torch.tensor(where, device=hidden.device)],
                embeddings=embedding,
                image_position=t.image_position,
                answer_start=t.answer_start,
                visual=visual[row],
            )
            for row, (t, where, embedding) in enumerate(zip(tokens, prepared.places, embeddings, strict=True))
        ]

    def _visual_means(
        self, first: Tensor | None, prepared: ProcessedReadings, embeddings: Tensor
    ) -> list[Tensor | None]:
        """The mean of each row's visual tokens as the first layer takes them in; ``embeddings``: the first row's."""
        chosen = prepared.visual
        if first is None or chosen is None or not self._takes_embeddings(first[0, prepared.places[0]], embeddings):
            return [None] * len(prepared)
        sums = torch.bmm(chosen[:, None].to(first), first)[:, 0]
        counts = chosen.sum(1)
        means = sums / counts.clamp_min(1)[:, None].to(sums)
        return [mean if count else None for mean, count in zip(means, counts.tolist(), strict=True)]

    def _takes_embeddings(self, states: Tensor, embeddings: Tensor) -> bool:
        """Whether the first layer takes texts' embeddings as they are; some families scale them, or add positions.

        It is looked at once.
        """
        if self._plain is None:
            self._plain = torch.allclose(states.float(), embeddings.float(), rtol=1e-2, atol=1e-4)
        return self._plain

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Text tokens, and visual tokens as the processor counts them (of the first image's kind, if it cannot)."""
        with self._backbone.processor_lock:
            tokens, _ = self.text_tokens(demonstrations, prompt_format)
            visual = self._backbone.visual.quick([image_size(item.image) for item in demonstrations])
        return [len(t.unexpanded) + count for t, count in zip(tokens, visual, strict=True)]

    def _hidden(self, inputs: dict[str, Tensor], layers: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """The chosen layers of every position, the last one as it stands before the LM head; and what the first layer
        took in, if other layers than the last are asked for."""
        only_last = tuple(layers) == LAST
        with recording() as record:
            outputs = self._backbone.forward(**inputs, use_cache=False, output_hidden_states=not only_last)
        last = record.hidden
        assert last is not None
        if only_last:
            return last, None
        states = getattr(outputs, "language_model_outputs", outputs).hidden_states  # BLIP-2 keeps its LM's apart
        if not states or any(state.shape != last.shape for state in states):
            raise CapabilityError(
                f"layers {tuple(layers)}: {type(self._backbone.model).__name__} does not show its layers' hidden "
                "states in one shape. Next: use a projector whose layers are (-1,)."
            )
        return side_by_side([*states[:-1], last], layers), states[0]

    def text_ids(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[Tensor]:
        """The token ids of each demonstration's text."""
        with self._backbone.processor_lock:
            tokens, _ = self.text_tokens(demonstrations, prompt_format)
        return [torch.tensor(found.ids) for found in tokens]

    @torch.no_grad()
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        backbone = self._backbone
        with backbone.processor_lock:
            tokens, _ = self.text_tokens(demonstrations, prompt_format)
        with backbone.lock:
            return [FusedTokens(backbone.embed(t.ids), token_ids=torch.tensor(t.ids)) for t in tokens]

    def text_tokens(
        self, demonstrations: Sequence[Demonstration], prompt_format: PromptFormat
    ) -> tuple[list[TextTokens], list[str]]:
        """The text tokens of each demonstration, and the prompts that they are read in.

        Raises:
            InputError: a text adds or takes a special token, or does not fit into the context.
        """
        backbone = self._backbone
        prompts = backbone.prompts(prompt_format)
        backbone.check_text([text for d in demonstrations for text in (d.text, d.answer)])
        pieces = [prompts.demonstration(d.text, d.answer) for d in demonstrations]
        tokens = [backbone.tokens.demonstration(prompts, piece) for piece in pieces]
        for item, found in zip(demonstrations, tokens, strict=True):
            backbone.roles.check_prompt(prompts, [(item.text, item.answer)], None, found.unexpanded)
        self._check_length(demonstrations, [len(found.prefix_ids) + len(found.ids) for found in tokens])
        return tokens, [prompts.prefix + piece.text for piece in pieces]

    def _check_length(self, demonstrations: Sequence[Demonstration], lengths: Sequence[int]) -> None:
        """Refuse what does not fit into the backbone's context, before a forward whose cost grows with its square."""
        limit = self._backbone.context_length
        for item, length in zip(demonstrations, lengths, strict=True):
            if limit is not None and length > limit:
                raise ContextLengthError(
                    f"{describe(item.image)} with the text {item.text[:60]!r} and the answer {item.answer[:60]!r} "
                    f"takes {length:,} tokens, but {limit:,} fit into this backbone.\n"
                    "Next: shorten the text or the answer, or scale the image down."
                )

    def _text_inputs(self, tokens: Sequence[TextTokens]) -> dict[str, Tensor]:
        rows = [torch.tensor([*t.prefix_ids, *t.ids]) for t in tokens]
        ids = pad_sequence(rows, batch_first=True, padding_value=self._backbone.pad_token_id)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        inputs = self._backbone.text_inputs(ids.to(self._backbone.device), mask.to(self._backbone.device))
        return inputs | (
            {"token_type_ids": torch.zeros_like(inputs["input_ids"])} if self._backbone.answer_type else {}
        )


def _visual(mask: Tensor, tokens: Sequence[TextTokens], places: Sequence[Sequence[int]]) -> Tensor:
    """The positions of each row that are neither text, nor before it, nor padding."""
    visual = mask.bool().cpu()
    for row, (found, where) in enumerate(zip(tokens, places, strict=True)):
        visual[row, : len(found.prefix_ids)] = False
        visual[row, where] = False
    return visual


def _sources(shown: Sequence[Demonstration]) -> list[list[ImageInput]]:
    """The image of each row, to be named in errors."""
    return [[item.image] for item in shown]
