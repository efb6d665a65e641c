"""The adapter of Kite, in small steps: each one is a place where such an adapter goes wrong."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.backend.hashing import rms, tensor_hash
from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers, PreparedReadings
from aim_sdk.errors import ContextLengthError, InputError
from aim_sdk.layers import side_by_side
from aim_sdk.types import ChoiceScores, Context, Vocabulary
from tests.conformance.third_party.model import (
    ASSISTANT,
    BOS,
    CONTEXT,
    END,
    SYSTEM,
    USER,
    Cache,
    KiteModel,
    decode,
    encode,
)

OPTIONS = {"num_beams": 1}


@dataclass(frozen=True)
class Turn:
    """A demonstration or query as tokens: before the image, between image and answer, the answer, after it."""

    before: list[int]
    after: list[int]
    answer: list[int]
    end: list[int]

    @property
    def text(self) -> list[int]:
        return self.before + self.after + self.answer + self.end


class Template:
    """Writes prompts as tokens."""

    def opening(self, form: PromptFormat) -> list[int]:
        if form.kind == "plain":
            return [BOS, *encode(form.system or "")]
        return [BOS, SYSTEM, *encode(form.system or "You are Kite."), END]

    def turn(self, form: PromptFormat, text: str, answer: str = "") -> Turn:
        if form.kind == "chat":
            return Turn([USER], [*encode(text), END, ASSISTANT], encode(answer), [END])
        asked, lead, end = form.pieces()
        before, after = asked.split("{image}")
        return Turn(
            encode(before.format(text=text)), encode(after.format(text=text)), encode(lead + answer), encode(end)
        )

    def lead(self, form: PromptFormat) -> int:
        """How many of an answer's first tokens are the format's blanks."""
        return 0 if form.kind == "chat" else len(encode(form.pieces()[1]))


class KiteReader(DemoReader):
    def __init__(self, backend: "KiteBackend") -> None:
        self.backend, self.model, self.template = backend, backend.model, backend.template

    def opening(self, form: PromptFormat) -> list[int]:
        return self.template.opening(form)

    def see(self, item: Demonstration) -> Tensor:
        return self.model.see(load_image(item.image))

    @torch.no_grad()
    def run(self, prepared: PreparedReadings) -> list[Reading]:
        demonstrations, prompt_format = prepared.demonstrations, prepared.prompt_format
        start = self.model.embed(self.opening(prompt_format))
        turns = [self.template.turn(prompt_format, item.text, item.answer.strip()) for item in demonstrations]
        texts = [self.model.embed(turn.text) for turn in turns]
        images = [self.see(item) if prepared.with_images else start[:0] for item in demonstrations]
        rows = [
            torch.cat([start, text[: len(turn.before)], image, text[len(turn.before) :]])
            for turn, text, image in zip(turns, texts, images, strict=True)
        ]
        for row in rows:
            _check_length(len(row))
        states: list[Tensor] = []
        self.model(pad_sequence(rows, batch_first=True), self.mask(rows), states=states)
        hidden = self.layers(states, prepared.layers)
        return [
            self.reading(prompt_format, turn, text, found[len(start) : len(row)], len(image))
            for turn, text, found, row, image in zip(turns, texts, hidden, rows, images, strict=True)
        ]

    def mask(self, rows: Sequence[Tensor]) -> Tensor:
        return pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)

    def layers(self, states: list[Tensor], layers: Sequence[int]) -> Tensor:
        return side_by_side(states, layers)

    def reading(self, form: PromptFormat, turn: Turn, text: Tensor, hidden: Tensor, visual: int) -> Reading:
        place = len(turn.before)
        return Reading(
            torch.tensor(turn.text),
            torch.cat([hidden[:place], hidden[place + visual :]]),
            text,
            image_position=place,
            answer_start=place + len(turn.after) + self.template.lead(form),
        )

    @torch.no_grad()
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        turns = [self.template.turn(prompt_format, item.text, item.answer.strip()) for item in demonstrations]
        return [FusedTokens(self.model.embed(turn.text)) for turn in turns]


class KiteInjector(Injector):
    def __init__(self, backend: "KiteBackend") -> None:
        self.backend, self.model, self.template = backend, backend.model, backend.template
        self.prefixes: PrefixCache[Cache] = PrefixCache()

    # The prompt

    def opening(self, form: PromptFormat) -> list[int]:
        return self.template.opening(form)

    def see(self, queries: Sequence[Query]) -> list[Tensor]:
        images = []
        for place, query in enumerate(queries):
            with _about(place):
                images.append(self.model.see(load_image(query.image)))
        return images

    def context(self, context: Context, form: PromptFormat) -> list[Tensor]:
        return [i.embeddings if isinstance(i, FusedTokens) else self.interleaved(i, form) for i in context]

    def interleaved(self, item: Demonstration, form: PromptFormat) -> Tensor:
        turn = self.template.turn(form, item.text, item.answer.strip())
        text, place = self.model.embed(turn.text), len(turn.before)
        return torch.cat([text[:place], self.model.see(load_image(item.image)), text[place:]])

    def query(self, query: Query, form: PromptFormat, image: Tensor) -> list[Tensor]:
        turn = self.template.turn(form, query.text)
        return [self.model.embed(turn.before), image, self.model.embed(turn.after)]

    def join(self, opening: Tensor, context: list[Tensor], query: list[Tensor]) -> Tensor:
        return torch.cat([opening, *context, *query])

    def prompts(self, queries: Sequence[Query], contexts: Sequence[Context], form: PromptFormat) -> list[Tensor]:
        opening = self.model.embed(self.opening(form))
        return [
            self.join(opening, self.context(context, form), self.query(query, form, image))
            for query, context, image in zip(queries, contexts, self.see(queries), strict=True)
        ]

    def answer(self, form: PromptFormat, answer: str, ended: bool = False) -> list[int]:
        turn = self.template.turn(form, "", answer)
        return turn.answer + (turn.end[:1] if ended else [])

    # The model

    def mask(self, rows: Sequence[Tensor]) -> Tensor:
        width = max(map(len, rows))
        return torch.stack([torch.arange(width) >= width - len(row) for row in rows])

    def pad(self, rows: Sequence[Tensor]) -> Tensor:
        width = max(map(len, rows))
        return torch.stack([torch.cat([row.new_zeros(width - len(row), row.shape[1]), row]) for row in rows])

    def prefill(
        self, queries: Sequence[Query], contexts: Sequence[Context], form: PromptFormat, room: int
    ) -> tuple[Tensor, Tensor, Cache, list[int]]:
        """Last hidden states ``(rows, width)``, mask and cache of a batch of prompts, and the prompts' lengths."""
        rows = self.prompts(queries, contexts, form)
        for place, row in enumerate(rows):
            with _about(place):
                _check_length(len(row) + room)
        lengths = [len(row) for row in rows]
        shared = self.prefixes.shared(form, contexts) if len(rows) == 1 else None
        if shared is None:
            mask = self.mask(rows)
            hidden, cache = self.model(self.pad(rows), mask)
            return hidden[:, -1], mask, cache, lengths
        opening = len(self.opening(form))
        count = opening + sum(len(item) for item in contexts[0][: len(shared.keys)])  # type: ignore[arg-type]
        done = opening + sum(len(item) for item in contexts[0][: shared.done]) if shared.done else 0  # type: ignore[arg-type]
        kept = shared.state
        if count > done:
            _, kept = self.model(rows[0][None, done:count], torch.ones(1, count, dtype=torch.bool), kept)
            self.prefixes.put(form, shared.keys, kept, sum(k.nbytes + v.nbytes for k, v in kept))
        mask = torch.ones(1, len(rows[0]), dtype=torch.bool)
        hidden, cache = self.model(rows[0][None, count:], mask, kept)
        return hidden[:, -1], mask, cache, lengths

    def logs(self, hidden: Tensor) -> Tensor:
        return self.model.head(hidden).float().log_softmax(-1)

    def options(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := set(generation) - set(OPTIONS):
            raise InputError(f"kite takes the options {', '.join(OPTIONS)}; got {', '.join(unknown)}.")
        return OPTIONS | dict(generation)

    @torch.no_grad()
    def decode(self, prefilled: Any, stop: str | None, limit: int, beams: int) -> list[tuple[list[int], list[float]]]:
        last, mask, cache, _ = prefilled
        return [
            self.search(
                last[row],
                mask[row : row + 1],
                [(k[row : row + 1], v[row : row + 1]) for k, v in cache],
                stop,
                limit,
                beams,
            )
            for row in range(len(last))
        ]

    def search(
        self, last: Tensor, mask: Tensor, cache: Cache, stop: str | None, limit: int, beams: int
    ) -> tuple[list[int], list[float]]:
        """Beam search; one beam is greedy."""
        live: list[tuple[list[int], list[float], Tensor, Cache]] = [([], [], last, cache)]
        for _ in range(limit):
            if self.done(live[0][0], stop):
                break
            longer = []
            for ids, logs, hidden, kept in live:
                found = self.logs(hidden)
                found[BOS + 2 :] = -torch.inf
                top = found.topk(beams)
                longer += [([*ids, int(i)], [*logs, float(v)], kept) for v, i in zip(*top, strict=True)]
            best = sorted(longer, key=lambda item: -sum(item[1]))[:beams]
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            live = []
            for ids, logs, kept in best:
                hidden, grown = self.model(self.model.embed(ids[-1:])[None], mask, kept)
                live.append((ids, logs, hidden[0, -1], grown))
        return live[0][0], live[0][1]

    def done(self, ids: list[int], stop: str | None) -> bool:
        return bool(ids) and (ids[-1] == END or bool(stop and stop in decode(ids).lstrip()))

    def clean(self, ids: list[int], stop: str | None) -> str:
        return clean_answer(decode(ids), stop)

    # The interface

    @torch.no_grad()
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
        beams = self.options(generation)["num_beams"]
        prefilled = self.prefill(queries, contexts, prompt_format, max_new_tokens)
        found = self.decode(prefilled, prompt_format.stop, max_new_tokens, beams)
        return [
            Generation(self.clean(ids, prompt_format.stop), tuple(ids), length, tuple(logs) if log_probs else None)
            for (ids, logs), length in zip(found, prefilled[3], strict=True)
        ]

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        (made,) = self.generate(
            [query], [context], prompt_format=prompt_format, max_new_tokens=max_new_tokens, **generation
        )
        return stream_answer((decode(list(made.token_ids)),), prompt_format.stop)

    @torch.no_grad()
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        tokens = [self.answer(prompt_format, choice) for choice in choices]
        last, mask, cache, _ = self.prefill([query], [context], prompt_format, max(map(len, tokens)))
        scores = []
        for ids in tokens:
            grown = torch.cat([mask, mask.new_ones(1, len(ids))], 1)
            states, _ = self.model(self.model.embed(ids)[None], grown, cache)
            logs = self.logs(torch.cat([last, states[0, :-1]]))
            scores.append(logs[range(len(ids)), ids].tolist())
        return scores

    @torch.no_grad()
    def score_batch(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[str],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """All queries with one choice in one forward after the cache of the prompts."""
        tokens = [self.answer(prompt_format, choice) for choice in choices]
        last, mask, cache, lengths = self.prefill(queries, contexts, prompt_format, max(map(len, tokens)))
        scores: list[list[tuple[float, ...]]] = [[] for _ in queries]
        for ids in tokens:
            grown = torch.cat([mask, mask.new_ones(len(mask), len(ids))], 1)
            states, _ = self.model(self.model.embed(ids).expand(len(mask), -1, -1), grown, cache)
            logs = self.logs(torch.cat([last[:, None], states[:, :-1]], 1))
            for row, found in enumerate(logs[:, range(len(ids)), ids].tolist()):
                scores[row].append(tuple(found))
        return [ChoiceScores(tuple(row), length) for row, length in zip(scores, lengths, strict=True)]

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        form = prepared.prompt_format
        tokens = [self.answer(form, answer, prepared.ended) for answer in prepared.answers]
        prompts = self.prompts(prepared.queries, contexts, form)
        rows = [torch.cat([row, self.model.embed(ids)]) for row, ids in zip(prompts, tokens, strict=True)]
        hidden, _ = self.model(self.pad(rows), self.mask(rows))
        return [
            AnswerLogits(torch.tensor(ids), self.model.head(row[-len(ids) - 1 : -1]))
            for row, ids in zip(hidden, tokens, strict=True)
        ]


@contextmanager
def _about(place: int) -> Iterator[None]:
    """Name the query of a batch that an error is about."""
    try:
        yield
    except InputError as error:
        error.query = place
        raise


def _check_length(tokens: int) -> None:
    if tokens > CONTEXT:
        raise ContextLengthError(f"{tokens} tokens; kite takes {CONTEXT} in all.")


class KiteBackend(Backend):
    name = "kite"
    default_format = PromptFormat.chat()
    model_class: ClassVar[type[KiteModel]] = KiteModel
    template_class: ClassVar[type[Template]] = Template
    reader_class: ClassVar[type[KiteReader]] = KiteReader
    injector_class: ClassVar[type[KiteInjector]] = KiteInjector

    def __init__(self) -> None:
        self.model, self.template = self.model_class().eval(), self.template_class()
        self._reader, self._injector = self.reader_class(self), self.injector_class(self)

    @classmethod
    def from_pretrained(cls, model: str | None = None, **options: Any) -> Self:
        return cls()

    @property
    def reader(self) -> KiteReader:
        return self._reader

    @property
    def injector(self) -> KiteInjector:
        return self._injector

    @property
    def modules(self) -> tuple[KiteModel]:
        return (self.model,)

    @property
    def device(self) -> torch.device:
        return self.input_embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.input_embeddings.dtype

    @property
    def decoder_layers(self) -> int:
        return len(self.model.blocks)

    @property
    def most_images(self) -> None:
        return None

    @property
    def prefixes(self) -> PrefixCache[Cache]:
        return self._injector.prefixes

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.input_embeddings, self.output_embeddings, self.fingerprint, self.decoder_layers)

    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        ids = tuple(tuple(self._injector.answer(prompt_format, answer, ended)) for answer in answers)
        return PreparedAnswers(tuple(queries), tuple(answers), ids, prompt_format, ended)

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        return self._injector.answer_logits(prepared, contexts)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            backend=self.name,
            model="kite",
            weights_hash=tensor_hash(self.model.state_dict().items()),
            embedding_hash=str(tensor_hash([("embeddings", self.input_embeddings)])),
            tokenizer_hash="utf-8 bytes",
            hidden_size=self.output_embeddings.shape[1],
            embedding_size=self.input_embeddings.shape[1],
            embedding_rms=rms(self.input_embeddings),
        )

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
        """Token by token, from whole forwards of the prompt as Kite's own documentation writes it."""
        model, template = KiteModel().eval(), Template()
        parts = [model.embed(template.opening(prompt_format))]
        for item in (*demonstrations, query):
            shown = isinstance(item, Demonstration)
            turn = template.turn(prompt_format, item.text, item.answer if shown else "")
            image = [model.see(load_image(item.image))] if with_images or not shown else []
            ids = turn.after + (turn.answer + turn.end if shown else [])
            parts += [model.embed(turn.before), *image, model.embed(ids)]
        prompt, answer = torch.cat(parts), list[int]()
        while len(answer) < max_new_tokens and END not in answer:
            row = torch.cat([prompt, model.embed(answer)])
            hidden, _ = model(row[None], torch.ones(1, len(row), dtype=torch.bool))
            answer.append(int(model.head(hidden[0, -1])[: BOS + 2].argmax()))
        return answer

    def default_projector(self) -> Projector:
        return CarrierProjector.untrained(self.vocabulary)

    @property
    def input_embeddings(self) -> Tensor:
        return self.model.tokens.weight

    @property
    def output_embeddings(self) -> Tensor:
        return self.model.head.weight
