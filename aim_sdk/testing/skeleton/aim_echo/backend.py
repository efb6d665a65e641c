"""The adapter: how the toy model reads demonstrations, and how fused tokens are put into its prompt."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from aim_echo.model import BOS, CONTEXT, EOS, PRINTABLE, EchoModel, decode, encode
from aim_sdk import (
    Backend,
    CarrierProjector,
    Demonstration,
    DemoReader,
    Fingerprint,
    FusedTokens,
    Generation,
    Injector,
    Projector,
    PromptFormat,
    Query,
    Reading,
    load_image,
)
from aim_sdk.answers import clean_answer, stream_answer
from aim_sdk.devices import resolve_device, resolve_dtype
from aim_sdk.errors import ContextLengthError, FormatError, InputError, ModelNotFoundError
from aim_sdk.fingerprint import rms, tensor_hash
from aim_sdk.layers import LAST, side_by_side
from aim_sdk.types import Context


def split(prompt_format: PromptFormat, text: str) -> tuple[str, str, str, str]:
    """What stands before the image, between image and answer, and the blanks and suffix round the answer."""
    if prompt_format.kind != "plain":
        raise FormatError("backend 'echo' has no chat template; pass prompt_format=PromptFormat.plain(...).")
    query, blanks, suffix = prompt_format.pieces()
    before, after = query.split("{image}")
    return before.format(text=text), after.format(text=text), blanks, suffix


class EchoReader(DemoReader):
    def __init__(self, model: EchoModel) -> None:
        self.model = model

    @torch.no_grad()
    def read(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> list[Reading]:
        return [self._read(item, prompt_format, with_images, layers) for item in demonstrations]

    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        return [FusedTokens(self.model.embed(tokens_of(item, prompt_format)[0])) for item in demonstrations]

    def _read(
        self, item: Demonstration, prompt_format: PromptFormat, with_image: bool, layers: Sequence[int]
    ) -> Reading:
        ids, place, answer_start = tokens_of(item, prompt_format)
        embeddings = self.model.embed(ids)
        image = self.model.see(load_image(item.image)) if with_image else embeddings[:0]
        start = opening(self.model, prompt_format)
        states: list[Tensor] = []
        self.model(torch.cat([start, embeddings[:place], image, embeddings[place:]]), layers=states)
        hidden = side_by_side(states, layers)
        text = torch.cat([hidden[len(start) :][:place], hidden[len(start) + place + len(image) :]])
        return Reading(torch.tensor(ids), text, embeddings, image_position=place, answer_start=answer_start)


class EchoInjector(Injector):
    def __init__(self, model: EchoModel) -> None:
        self.model = model

    def generate(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        log_probs: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        answers = []
        for query, context in zip(queries, contexts, strict=True):
            prompt = self._prompt(query, context, prompt_format, max_new_tokens, generation)
            steps = list(self._continue(prompt, prompt_format.stop, max_new_tokens))
            ids, logs = [token for token, _ in steps], tuple(log for _, log in steps)
            answer = clean_answer(decode(ids), prompt_format.stop)
            answers.append(Generation(answer, tuple(ids), len(prompt), logs if log_probs else None))
        return answers

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        prompt = self._prompt(query, context, prompt_format, max_new_tokens, generation)
        tokens = self._continue(prompt, prompt_format.stop, max_new_tokens)
        return stream_answer((decode([token]) for token, _ in tokens), prompt_format.stop)

    @torch.no_grad()
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        ids = [encode(split(prompt_format, "")[2] + choice) for choice in choices]
        hidden, cache = self.model(self._prompt(query, context, prompt_format, max(map(len, ids)), {}))
        scores = []
        for choice in ids:
            states = torch.cat([hidden[-1:], self.model(self.model.embed(choice), cache)[0][:-1]])
            logs = self.model.logits(states).float().log_softmax(-1)
            scores.append(logs[range(len(choice)), choice].tolist())
        return scores

    def log_probs(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
    ) -> list[Tensor]:
        found = []
        for query, context, answer in zip(queries, contexts, answers, strict=True):
            _, _, lead, suffix = split(prompt_format, "")
            ids = encode(lead + answer + (suffix[:1] if ended else ""))
            prompt = self._prompt(query, context, prompt_format, len(ids), {})
            hidden, _ = self.model(torch.cat([prompt, self.model.embed(ids[:-1])]))
            found.append(self.model.logits(hidden[-len(ids) :]).float().log_softmax(-1)[range(len(ids)), ids])
        return found

    @torch.no_grad()
    def _continue(self, prompt: Tensor, stop: str | None, limit: int) -> Iterator[tuple[int, float]]:
        hidden, cache = self.model(prompt)
        ids: list[int] = []
        while len(ids) < limit and not (ids and ids[-1] == EOS) and not (stop and stop in decode(ids).lstrip()):
            logs = self.model.logits(hidden[-1]).float().log_softmax(-1)
            ids.append(PRINTABLE[int(logs[PRINTABLE].argmax())])
            yield ids[-1], float(logs[ids[-1]])
            hidden, cache = self.model(self.model.embed(ids[-1:]), cache)

    def _prompt(
        self, query: Query, context: Context, prompt_format: PromptFormat, room: int, generation: dict[str, Any]
    ) -> Tensor:
        if generation:
            raise InputError(f"backend 'echo' is greedy and takes no generation options; got {', '.join(generation)}.")
        shots = [
            item.embeddings if isinstance(item, FusedTokens) else self._interleaved(item, prompt_format)
            for item in context
        ]
        before, after, *_ = split(prompt_format, query.text)
        image = self.model.see(load_image(query.image))
        asked = [self.model.embed(encode(before)), image, self.model.embed(encode(after))]
        prompt = torch.cat([opening(self.model, prompt_format), *shots, *asked])
        if len(prompt) + room > CONTEXT:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens and {room} are to follow; backend 'echo' takes {CONTEXT} in all."
            )
        return prompt

    def _interleaved(self, item: Demonstration, prompt_format: PromptFormat) -> Tensor:
        ids, place, _ = tokens_of(item, prompt_format)
        embeddings = self.model.embed(ids)
        return torch.cat([embeddings[:place], self.model.see(load_image(item.image)), embeddings[place:]])


def tokens_of(item: Demonstration, prompt_format: PromptFormat) -> tuple[list[int], int, int]:
    """A demonstration's text tokens, where its image stood, and where its answer starts."""
    before, after, blanks, suffix = split(prompt_format, item.text)
    head, lead = encode(before), encode(before + after + blanks)
    return [*lead, *encode(item.answer + suffix)], len(head), len(lead)


def opening(model: EchoModel, prompt_format: PromptFormat) -> Tensor:
    return model.embed([BOS, *encode(prompt_format.system or "")])


class EchoBackend(Backend):
    name = "echo"
    default_format = PromptFormat.plain("Q: {text}\n{image}A: {answer}\n")

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
        table = self.input_embeddings
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

    @property
    def modules(self) -> tuple[EchoModel]:
        return (self.model,)

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
        """As the model's own documentation would have it: one prompt, one whole forward a token."""
        parts = [opening(self.model, prompt_format)]
        for item in (*demonstrations, query):
            before, after, blanks, suffix = split(prompt_format, item.text)
            if isinstance(item, Demonstration):
                after += blanks + item.answer + suffix
            if with_images or item is query:
                parts += [self.model.embed(encode(before)), self.model.see(load_image(item.image))]
                parts += [self.model.embed(encode(after))]
            else:
                parts += [self.model.embed(encode(before + after))]
        ids: list[int] = []
        while len(ids) < max_new_tokens and EOS not in ids:
            logits = self.model.logits(self.model(torch.cat([*parts, self.model.embed(ids)]))[0][-1])
            ids.append(PRINTABLE[int(logits[PRINTABLE].argmax())])
        return ids

    def default_projector(self) -> Projector:
        return CarrierProjector.training_free(self)

    @property
    def input_embeddings(self) -> Tensor:
        return self.model.tokens.weight

    @property
    def output_embeddings(self) -> Tensor:
        return self.model.tokens.weight
