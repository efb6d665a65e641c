"""An answer that comes piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import replace

from aim_sdk.backend.answers import stream_answer
from aim_sdk.chat.completion import ChatAnswer, ChatCompletion
from aim_sdk.chat.prompts import ChatPrompt, completion_of, speaking_of_messages
from aim_sdk.injection.prompting import fitting
from aim_sdk.types import Context, Generation


class ChatStream(Iterator[str]):
    """The pieces of an answer; afterwards, `completion`.

    Joined, the pieces are the text of `AIMPipeline.chat`. Leaving early stops the backbone. Several threads may take
    pieces of one stream; each piece comes once.
    """

    def __init__(self, pieces: Iterator[str], prompt: ChatPrompt) -> None:
        self._prompt, self._source = prompt, pieces
        self._whole: Generation | None = None
        self._pieces: Iterator[str] = self._watched(pieces)
        for stop in prompt.options.stop:
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
            return completion_of([replace(self._whole, demonstrations=self._prompt.context[1])], self._prompt)
        answer = ChatAnswer(self._text, "stop", None)
        return ChatCompletion((answer,), None, self._prompt.context[1], self._prompt.read)


def streamed(prompt: ChatPrompt) -> ChatStream:
    """Begin an answer that comes piece by piece.

    Raises:
        InputError: the prompt cannot be answered.
    """

    def begun(contexts: list[Context]) -> Iterator[str]:
        return prompt.injector.stream(
            prompt.query,
            contexts[0],
            prompt_format=prompt.encoder.prompt_format,
            max_new_tokens=prompt.options.max_tokens,
            **prompt.generation,
        )

    with speaking_of_messages(prompt.turns):
        pieces, (context,) = fitting([prompt.context], prompt.shots, begun)
    return ChatStream(pieces, replace(prompt, context=context))
