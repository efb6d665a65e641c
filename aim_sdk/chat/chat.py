"""Answers conversations: what `AIMPipeline.chat` and `chat_stream` do."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.chat.completion import ChatAnswer, ChatCompletion, FinishReason
from aim_sdk.chat.few_shot import check_texts_are_shown, few_shot_of
from aim_sdk.chat.messages import Messages, Turn, naming_the_image, turns_of
from aim_sdk.chat.options import ChatOptions
from aim_sdk.chat.tokens import KeptTokens
from aim_sdk.errors import ContextLengthError, InputError
from aim_sdk.injection.contexts import Contexts, NamedContext
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.prompting import fitting, generated
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import chosen
from aim_sdk.types import Context, Demonstration, Generation, Mode, Query

_SYSTEMS = 64
"""System messages whose encoders are kept."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A conversation's query, and what comes before it."""

    query: Query
    context: NamedContext
    shots: Shots
    encoder: Encoder
    read: int


@contextmanager
def _named(turns: Sequence[Turn]) -> Iterator[None]:
    """Inside the block, errors speak of messages."""
    try:
        with naming_the_image(turns):
            yield
    except ContextLengthError as error:
        if not any(turn.role == "assistant" for turn in turns):
            raise
        raise ContextLengthError(f"{error}\nIn a conversation, leave pairs of turns out.") from error


class Chat:
    """Conversations with one few-shot model.

    Demonstrations of a conversation are kept by content in memory, apart from the model's bank, which only answers
    conversations that bring none.
    """

    def __init__(self, model: FewShotModel) -> None:
        self._model, self._kept = model, KeptTokens()
        self._encoder_of = lru_cache(_SYSTEMS)(self._encoder)

    def complete(self, messages: Messages, options: ChatOptions) -> ChatCompletion:
        """Answer; see `AIMPipeline.chat`."""
        turns = turns_of(messages, options.history)
        with _named(turns):
            prompt = self._prompt(turns, options)
            made = generated(
                self._model.backend.injector,
                [prompt.query] * options.n,
                [prompt.context] * options.n,
                prompt.shots,
                prompt_format=prompt.encoder.prompt_format,
                max_new_tokens=options.max_tokens,
                batch_size=options.n,
                generation={**options.generation, **({"log_probs": True} if options.logprobs else {})},
                advance=lambda _: None,
            )
        return _completion(made, prompt, options)

    def stream(self, messages: Messages, options: ChatOptions) -> ChatStream:
        """Answer piece by piece; see `AIMPipeline.chat_stream`."""
        if options.n > 1 or options.logprobs:
            raise InputError("a stream has one answer and no log-probabilities; leave n and logprobs out.")
        turns = turns_of(messages, options.history)

        def begun(contexts: list[Context]) -> Iterator[str]:
            return self._model.backend.injector.stream(
                prompt.query,
                contexts[0],
                prompt_format=prompt.encoder.prompt_format,
                max_new_tokens=options.max_tokens,
                **options.generation,
            )

        with _named(turns):
            prompt = self._prompt(turns, options)
            pieces, (context,) = fitting([prompt.context], prompt.shots, begun)
        return ChatStream(pieces, replace(prompt, context=context), options)

    def _encoder(self, system: str | None) -> Encoder:
        """The encoder under a conversation's system message, whose text is checked as a demonstration's is."""
        own = self._model.encoder
        if system is None:
            return own
        if system.strip():
            as_text = [Demonstration(b"", "", system)]
            own.backend.reader.text_only(as_text, prompt_format=own.prompt_format)
        changed = own.prompt_format.model_copy(update={"system": system or None})
        return Encoder(own.backend, own.projector, changed)

    def _prompt(self, turns: Sequence[Turn], options: ChatOptions) -> _Prompt:
        chat = few_shot_of(turns)
        model, encoder, query = self._model, self._encoder_of(chat.system), chat.query
        check_texts_are_shown(chat, encoder.prompt_format)
        if chat.demonstrations:
            for name in ("shots", "selector"):
                if getattr(options, name) is not None:
                    raise InputError(f"{name}: the messages bring their demonstrations; all are shown. Leave it out.")
            return self._given(query, chat.demonstrations, encoder, options.mode)
        asked = options.mode != "aim" or options.shots or options.selector is not None
        if options.mode == "zero-shot" or not (asked or len(model.bank)):
            return self._shown(query, Shots(0, mode="zero-shot"), encoder)
        shots = Shots(options.shots, mode=options.mode, selector=options.selector)
        if encoder.binding.scope == model.bank.binding.scope:
            return self._shown(query, shots, encoder)
        (entries,) = chosen(model.bank, shots.selector or model.selector, [query], shots.count)
        return self._given(query, [entry.checked() for entry in entries], encoder, options.mode)

    def _given(self, query: Query, shown: Sequence[Demonstration], encoder: Encoder, mode: Mode) -> _Prompt:
        """The prompt of a query after given demonstrations."""
        shots = Shots(mode=mode, demonstrations=shown)
        if mode != "aim":
            return self._shown(query, shots, encoder)
        tokens, read = self._kept.of(encoder, shown, self._model.bank)
        return _Prompt(query, (tokens, tuple(str(one.key) for one in tokens)), shots, encoder, read)

    def _shown(self, query: Query, shots: Shots, encoder: Encoder) -> _Prompt:
        """The prompt of a query as `generate` makes it."""
        (context,) = Contexts(encoder, self._model.bank, self._model.selector).of([query], shots)
        return _Prompt(query, context, shots, encoder, 0)


class ChatStream(Iterator[str]):
    """The pieces of an answer; afterwards, `completion`.

    Joined, the pieces are the text of `AIMPipeline.chat`. Leaving early stops the backbone. Several threads may take
    pieces of one stream; each piece comes once.
    """

    def __init__(self, pieces: Iterator[str], prompt: _Prompt, options: ChatOptions) -> None:
        self._prompt, self._options, self._source = prompt, options, pieces
        self._whole: Generation | None = None
        self._pieces: Iterator[str] = self._watched(pieces)
        for stop in options.stop:
            self._pieces = stream_answer(self._pieces, stop)
        self._text, self._left, self._lock = "", False, threading.Lock()
        self.completion: ChatCompletion | None = None
        """The whole answer, once the stream has ended; None before, and of a stream that was closed before its end."""

    def __next__(self) -> str:
        with self._lock:
            try:
                piece = next(self._pieces)
            except StopIteration:
                if self.completion is None and not self._left:
                    self._stop()  # a stop string may have come before the backbone's end
                    self.completion = self._completed()
                raise
            self._text += piece
            return piece

    def close(self) -> None:
        """Stop the backbone: no piece comes any more."""
        with self._lock:
            self._left = True
            self._stop()

    def _stop(self) -> None:
        if isinstance(self._source, Generator):
            self._source.close()

    def _watched(self, pieces: Iterator[str]) -> Generator[str, None, None]:
        self._whole = yield from pieces  # type: ignore[func-returns-value]

    def _completed(self) -> ChatCompletion:
        if self._whole is not None:
            return _completion(
                [replace(self._whole, demonstrations=self._prompt.context[1])], self._prompt, self._options
            )
        answer = ChatAnswer(self._text, "stop", None)
        return ChatCompletion((answer,), None, self._prompt.context[1], self._prompt.read)


def _completion(made: Sequence[Generation], prompt: _Prompt, options: ChatOptions) -> ChatCompletion:
    answers = tuple(_answer(one, options) for one in made)
    return ChatCompletion(answers, made[0].prompt_tokens, made[0].demonstrations, prompt.read)


def _answer(made: Generation, options: ChatOptions) -> ChatAnswer:
    text = reduce(clean_answer, options.stop, made.text)
    ended = made.ended if made.ended is not None else len(made.token_ids) < options.max_tokens
    reason: FinishReason = "stop" if ended or text != made.text else "length"
    return ChatAnswer(text, reason, made.token_ids, made.log_probs)
