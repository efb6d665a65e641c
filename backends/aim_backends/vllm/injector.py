"""Answers queries by a vLLM server: the queries of a batch at once, each after its own context."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Thread
from typing import Any, Final

from aim_backends.hf.decoding import Decoding, Generated
from aim_backends.shared.scoring import ScoresTogether
from aim_backends.vllm.answering import Answering
from aim_backends.vllm.client import VllmClient
from aim_backends.vllm.prompts import ServerPrompt, ServerPrompts
from aim_sdk.backend.answers import stream_answer
from aim_sdk.config import PromptFormat
from aim_sdk.errors import BackendError, InputError
from aim_sdk.types import ChoiceScores, Context, FusedTokens, Generation, Query

_END: Final = object()
_EVERY: Final = 8
"""Tokens of each piece in which an answer comes that nobody reads while it comes."""


class VllmInjector(ScoresTogether):
    """Sends requests from threads of its own.

    Args:
        prompts: writes what is sent.
        client: the server.
        at_once: requests that it is sent at the same time; it batches them.
    """

    def __init__(self, prompts: ServerPrompts, client: VllmClient, at_once: int) -> None:
        self._prompts, self._client = prompts, client
        self._answering = Answering(prompts.backbone)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="aim-vllm")

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
        prompts = self.requests(queries, contexts, prompt_format, max_new_tokens, generation)
        more = {"logprobs": bool(log_probs), "stream_interval": _EVERY}
        decoding = self.decoding(prompt_format)
        futures = [self._pool.submit(self.answer, prompt.asked(**more), decoding) for prompt in prompts]
        try:
            made = []
            for place, future in enumerate(futures):
                try:
                    made.append(future.result())
                except InputError as error:
                    error.query = place
                    raise
            return made
        finally:
            for future in futures:
                future.cancel()

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        """The request is sent at once, so that streams which are read in turns are answered together."""
        (prompt,) = self.requests([query], [context], prompt_format, max_new_tokens, generation)
        decoding = self.decoding(prompt_format)
        heard, left = queue.SimpleQueue[Any](), Event()

        def listen() -> None:
            try:
                for ids, _ in self._pieces(prompt):
                    heard.put(ids)
                    if left.is_set():
                        break
                heard.put(_END)
            except BaseException as error:
                heard.put(error)

        Thread(target=listen, name="aim-vllm-stream", daemon=True).start()
        return _streamed(heard, left, decoding, len(prompt.ids))

    def score_each(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[Sequence[str]],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """All choices of all queries at once: each is a prompt of its own, which ends in the choice."""
        prompts = self._prompts.write(queries, contexts, prompt_format, 0)
        found = []
        for place, (query, context, prompt, own) in enumerate(zip(queries, contexts, prompts, choices, strict=True)):
            try:
                whole = self._prompts.answered(prompt, query, context, own, prompt_format)
            except InputError as error:
                error.query = place
                raise
            found.append([self._pool.submit(self._log_probs, one, len(prompt.ids)) for one in whole])
        return [
            ChoiceScores(tuple(future.result() for future in row), len(prompt.ids))
            for row, prompt in zip(found, prompts, strict=True)
        ]

    def requests(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        max_new_tokens: int,
        generation: dict[str, Any],
    ) -> list[ServerPrompt]:
        """What the server is sent for each query of a batch."""
        any_fused = any(isinstance(item, FusedTokens) for context in contexts for item in context)
        options = self._answering.options(generation, max_new_tokens, fused=any_fused)
        if not queries:
            return []
        prompts = self._prompts.write(queries, contexts, prompt_format, max_new_tokens)
        seed = options.pop("seed", None)  # the same one for all would draw the same answer again and again
        seeds = [{} if seed is None else {"seed": (seed + place) % 2**63} for place in range(len(prompts))]
        return [prompt.asked(**options, **own) for prompt, own in zip(prompts, seeds, strict=True)]

    def decoding(self, prompt_format: PromptFormat) -> Decoding:
        """What an answer is made of its tokens."""
        return self._answering.decoding(prompt_format.stop)

    def answer(self, prompt: ServerPrompt, decoding: Decoding) -> Generation:
        """Send one request, and listen until its answer has ended."""
        ids, logs = list[int](), list[float]()
        for more, log_probs in self._pieces(prompt):
            ids += more
            logs += log_probs
            if decoding.over([ids])[0]:
                break  # which ends it on the server
        cut = decoding.cut(ids, None)
        found = Generated(cut, tuple(logs[: len(cut)]) if logs else None)
        return decoding.generation(found, len(prompt.ids))

    def _pieces(self, prompt: ServerPrompt) -> Iterator[tuple[list[int], list[float]]]:
        """The tokens of an answer as they come, with their log-probabilities if they were asked for."""
        checked = False
        for event in self._client.stream(prompt.body | {"return_token_ids": True}):
            if (ids := event.get("prompt_token_ids")) is not None:
                self._check(prompt, ids)
                checked = True
            for choice in event["choices"]:
                logs = choice.get("logprobs") or {}
                yield choice.get("token_ids") or [], [one["logprob"] for one in logs.get("content") or ()]
        if not checked:
            raise BackendError(f"{self._client.url} does not say which tokens it made of a prompt: another vLLM?")

    def _log_probs(self, prompt: ServerPrompt, start: int) -> tuple[float, ...]:
        """Of the tokens of a prompt from a position on."""
        body = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "return_token_ids": True}
        found = self._client.complete(prompt.body | body)
        self._check(prompt, found["prompt_token_ids"])
        rows = found["prompt_logprobs"][start:]
        return tuple(float(row[str(index)]["logprob"]) for index, row in zip(prompt.ids[start:], rows, strict=True))

    def _check(self, prompt: ServerPrompt, ids: Sequence[int]) -> None:
        """Refuse an answer to another prompt than the one that was meant."""
        if tuple(ids) == prompt.ids:
            return
        same = next((n for n, (a, b) in enumerate(zip(ids, prompt.ids, strict=False)) if a != b), len(ids))
        raise BackendError(
            f"{self._client.url} made {len(ids)} tokens of a prompt that has {len(prompt.ids)}; they differ from token "
            f"{same} on: {list(ids[same : same + 8])}, expected {list(prompt.ids[same : same + 8])}.\n"
            "Next: check that the server runs the same checkpoint, without options for its processor."
        )


def _streamed(
    heard: queue.SimpleQueue[Any], left: Event, decoding: Decoding, prompt_tokens: int
) -> Generator[str, None, Generation]:
    """Yield an answer's text while it is heard; leaving it early lets the server stop."""
    ids: list[int] = []

    def pieces() -> Iterator[str]:
        text = ""
        for more in _heard(heard):
            ids.extend(more)
            if ids and decoding.settled(ids):
                yield decoding.text(ids)[len(text) :]
                text = decoding.text(ids)
        yield decoding.text(ids)[len(text) :]

    try:
        yield from stream_answer(pieces(), decoding.stop)
    finally:
        left.set()
    return decoding.generation(Generated(decoding.cut(ids, None)), prompt_tokens)


def _heard(events: queue.SimpleQueue[Any]) -> Iterable[list[int]]:
    for event in iter(partial(events.get), _END):
        if isinstance(event, BaseException):
            raise event
        yield event
