"""The adapter: loads the toy model, hands out its reader and its injector, and lists its optional capabilities."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch

from aim_echo.injector import EchoInjector
from aim_echo.model import EOS, PRINTABLE, Cache, EchoModel
from aim_echo.reader import EchoReader
from aim_echo.template import opening, turn
from aim_sdk.backend import (
    AnswerLogits,
    Backend,
    CarrierProjector,
    Context,
    Demonstration,
    Fingerprint,
    InputError,
    ModelNotFoundError,
    PrefixCache,
    PreparedAnswers,
    Projector,
    PromptFormat,
    Query,
    Vocabulary,
    load_image,
    resolve_device,
    resolve_dtype,
    rms,
    tensor_hash,
)


class EchoBackend(Backend):
    name = "echo"
    default_format = PromptFormat.chat()

    def __init__(self, model: EchoModel) -> None:
        self.model = model
        self._reader, self._injector = EchoReader(model), EchoInjector(model)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        if model is not None:
            raise ModelNotFoundError(f"backend 'echo' has one built-in model; leave `model` out (got {model!r}).")
        if options:
            raise InputError(f"backend 'echo' takes no options; got {', '.join(options)}.")
        place, precision = resolve_device(device), resolve_dtype(dtype, torch.float32)
        return cls(EchoModel().to(place, precision).eval())

    @property
    def reader(self) -> EchoReader:
        return self._reader

    @property
    def injector(self) -> EchoInjector:
        return self._injector

    @cached_property
    def fingerprint(self) -> Fingerprint:
        table = self.model.tokens.weight
        return Fingerprint(
            backend=self.name,
            model="echo",
            weights_hash=tensor_hash(self.model.state_dict().items()),
            embedding_hash=str(tensor_hash([("embeddings", table)])),
            tokenizer_hash="utf-8 bytes",
            hidden_size=table.shape[1],
            embedding_size=table.shape[1],
            embedding_rms=rms(table),
        )

    def default_projector(self) -> Projector:
        return CarrierProjector.untrained(self.vocabulary)

    @property
    def device(self) -> torch.device:
        return self.model.tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.tokens.weight.dtype

    # What it can do besides: each of the Protocols of aim_sdk.backend.capabilities is optional. Leave out what yours
    # cannot do; where only some of your models can, name it in `lacks`.

    @property
    def vocabulary(self) -> Vocabulary:
        tied = self.model.tokens.weight
        return Vocabulary(tied, tied, self.fingerprint, self.decoder_layers)

    @property
    def modules(self) -> tuple[EchoModel]:
        return (self.model,)

    @property
    def decoder_layers(self) -> int:
        return len(self.model.blocks)

    @property
    def most_images(self) -> None:
        return None

    @property
    def prefixes(self) -> PrefixCache[Cache]:
        return self._injector.prefixes

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        ids = tuple(tuple(self._injector.answer_ids(answer, prompt_format, ended)) for answer in answers)
        return PreparedAnswers(tuple(queries), tuple(answers), ids, prompt_format, ended)

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        return self._injector.answer_logits(prepared, contexts)

    @torch.no_grad()
    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """As the model's own documentation would have it: one prompt, one full forward per token."""
        parts = [self.model.embed(opening(prompt_format))]
        for item in (*demonstrations, query):
            shown = isinstance(item, Demonstration)
            said = turn(prompt_format, item.text, item.answer if shown else "")
            parts.append(self.model.embed(said.before))
            if with_images or not shown:
                parts.append(self.model.see(load_image(item.image)))
            parts.append(self.model.embed(said.after + (said.blanks + said.answer + said.end if shown else [])))
        ids: list[int] = []
        while len(ids) < max_new_tokens and EOS not in ids:
            logits = self.model.logits(self.model(torch.cat([*parts, self.model.embed(ids)]))[0][-1])
            ids.append(PRINTABLE[int(logits[PRINTABLE].argmax())])
        return ids
