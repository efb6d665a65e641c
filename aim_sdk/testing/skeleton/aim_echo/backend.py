"""The adapter: how the toy model reads demonstrations, and how fused tokens are put into its prompt."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from aim_echo.model import CONTEXT, EOS, PRINTABLE, Cache, EchoModel, decode
from aim_echo.template import opening, turn
from aim_sdk.backend import (
    Backend,
    CarrierProjector,
    Context,
    ContextLengthError,
    Demonstration,
    DemoReader,
    Fingerprint,
    FusedTokens,
    Generation,
    Injector,
    InputError,
    ModelNotFoundError,
    PrefixCache,
    PreparedAnswers,
    PreparedReadings,
    Projector,
    PromptFormat,
    Query,
    Reading,
    Vocabulary,
    clean_answer,
    load_image,
    resolve_device,
    resolve_dtype,
    rms,
    side_by_side,
    stream_answer,
    tensor_hash,
)


def _check_length(tokens: int, room: int) -> None:
    if tokens + room > CONTEXT:
        raise ContextLengthError(
            f"the prompt has {tokens} tokens and {room} are to follow; backend 'echo' takes {CONTEXT} in all."
        )


class EchoReader(DemoReader):
    def __init__(self, model: EchoModel) -> None:
        self.model = model

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        return [
            self._read(item, prepared.prompt_format, prepared.with_images, prepared.layers)
            for item in prepared.demonstrations
        ]

    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        turns = [turn(prompt_format, item.text, item.answer) for item in demonstrations]
        return [FusedTokens(self.model.embed(turn.text)) for turn in turns]

    def _read(
        self, item: Demonstration, prompt_format: PromptFormat, with_image: bool, layers: Sequence[int]
    ) -> Reading:
        shown = turn(prompt_format, item.text, item.answer)
        ids, place = shown.text, len(shown.before)
        answer_start = place + len(shown.after) + len(shown.blanks)
        embeddings = self.model.embed(ids)
        image = self.model.see(load_image(item.image)) if with_image else embeddings[:0]
        start = self.model.embed(opening(prompt_format))
        _check_length(len(start) + len(ids) + len(image), 0)
        states: list[Tensor] = []
        self.model(torch.cat([start, embeddings[:place], image, embeddings[place:]]), layers=states)
        hidden = side_by_side(states, layers)  # of a model that shows its last states alone: only_last(layers)
        text = torch.cat([hidden[len(start) :][:place], hidden[len(start) + place + len(image) :]])
        return Reading(torch.tensor(ids), text, embeddings, image_position=place, answer_start=answer_start)


class EchoInjector(Injector):
    def __init__(self, model: EchoModel) -> None:
        self.model = model
        self.prefixes: PrefixCache[Cache] = PrefixCache()

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
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            try:
                parts = self._prompt(query, context, prompt_format, max_new_tokens, generation)
            except InputError as error:
                error.query = place  # which of the batch it is about
                raise
            steps = list(self._continue(parts, context, prompt_format, max_new_tokens))
            ids, logs = [token for token, _ in steps], tuple(log for _, log in steps)
            answer = clean_answer(decode(ids), prompt_format.stop)
            answers.append(Generation(answer, tuple(ids), sum(map(len, parts)), logs if log_probs else None))
        return answers

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        parts = self._prompt(query, context, prompt_format, max_new_tokens, generation)
        tokens = self._continue(parts, context, prompt_format, max_new_tokens)
        return stream_answer((decode([token]) for token, _ in tokens), prompt_format.stop)

    @torch.no_grad()
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        ids = [self._answer(choice, prompt_format) for choice in choices]
        parts = self._prompt(query, context, prompt_format, max(map(len, ids)), {})
        hidden, cache = self._prefill(parts, context, prompt_format)
        scores = []
        for choice in ids:
            states = torch.cat([hidden[-1:], self.model(self.model.embed(choice), cache)[0][:-1]])
            logs = self.model.logits(states).float().log_softmax(-1)
            scores.append(logs[range(len(choice)), choice].tolist())
        return scores

    def log_probs(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[Tensor]:
        found = []
        for query, context, answer in zip(prepared.queries, contexts, prepared.answers, strict=True):
            ids = self._answer(answer, prepared.prompt_format, prepared.ended)
            parts = self._prompt(query, context, prepared.prompt_format, len(ids), {})
            hidden, _ = self.model(torch.cat([*parts, self.model.embed(ids[:-1])]))
            found.append(self.model.logits(hidden[-len(ids) :]).float().log_softmax(-1)[range(len(ids)), ids])
        return found

    @torch.no_grad()
    def _continue(
        self, parts: list[Tensor], context: Context, prompt_format: PromptFormat, limit: int
    ) -> Iterator[tuple[int, float]]:
        hidden, cache = self._prefill(parts, context, prompt_format)
        ids: list[int] = []
        stop = prompt_format.stop
        while len(ids) < limit and not (ids and ids[-1] == EOS) and not (stop and stop in decode(ids).lstrip()):
            logs = self.model.logits(hidden[-1]).float().log_softmax(-1)
            ids.append(PRINTABLE[int(logs[PRINTABLE].argmax())])
            yield ids[-1], float(logs[ids[-1]])
            hidden, cache = self.model(self.model.embed(ids[-1:]), cache)

    def _prefill(self, parts: list[Tensor], context: Context, prompt_format: PromptFormat) -> tuple[Tensor, Cache]:
        """Run a prompt; demonstrations that come again with the same opening are not run again."""
        shared = self.prefixes.shared(prompt_format, [context])
        if shared is None:
            return self.model(torch.cat(parts))
        cache, count = shared.state, 1 + len(shared.keys)  # 1: the opening
        if shared.done < len(shared.keys):
            missing = parts[1 + shared.done if shared.done else 0 : count]
            _, cache = self.model(torch.cat(missing), cache)
            self.prefixes.put(prompt_format, shared.keys, cache, sum(k.nbytes + v.nbytes for k, v in cache))
        return self.model(torch.cat(parts[count:]), cache)  # the model copies a cache as it grows

    def _prompt(
        self, query: Query, context: Context, prompt_format: PromptFormat, room: int, generation: dict[str, Any]
    ) -> list[Tensor]:
        """The opening, each demonstration, and the query."""
        if generation:
            raise InputError(f"backend 'echo' is greedy and takes no generation options; got {', '.join(generation)}.")
        shots = [
            item.embeddings if isinstance(item, FusedTokens) else self._interleaved(item, prompt_format)
            for item in context
        ]
        asked = turn(prompt_format, query.text)
        image = self.model.see(load_image(query.image))
        last = torch.cat([self.model.embed(asked.before), image, self.model.embed(asked.after)])
        parts = [self.model.embed(opening(prompt_format)), *shots, last]
        _check_length(sum(map(len, parts)), room)
        return parts

    def _interleaved(self, item: Demonstration, prompt_format: PromptFormat) -> Tensor:
        shown = turn(prompt_format, item.text, item.answer)
        embeddings, place = self.model.embed(shown.text), len(shown.before)
        return torch.cat([embeddings[:place], self.model.see(load_image(item.image)), embeddings[place:]])

    def _answer(self, answer: str, prompt_format: PromptFormat, ended: bool = False) -> list[int]:
        asked = turn(prompt_format, "", answer)
        return [*asked.blanks, *asked.answer, *(asked.end[:1] if ended else [])]


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

    def prepare_log_probs(
        self, queries: Sequence[Query], answers: Sequence[str], *, prompt_format: PromptFormat, ended: bool = False
    ) -> PreparedAnswers:
        return PreparedAnswers(tuple(queries), tuple(answers), prompt_format, ended)

    def log_probs(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[Tensor]:
        return self._injector.log_probs(prepared, contexts)

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
