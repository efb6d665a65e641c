"""Answers queries by an unmodified llama-server: fused tokens from slot files, images and texts as it takes them."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from aim_backends.llamacpp.loaded import LoadedModel
from aim_backends.llamacpp.server_client import ServerClient, sent
from aim_backends.llamacpp.slots import SlotFile, SlotFiles
from aim_backends.shared.decoding import Sampling
from aim_backends.shared.rows import PromptRows
from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.backend.injector import Injector
from aim_sdk.config import PromptFormat
from aim_sdk.errors import BackendError, CapabilityError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.types import Context, Demonstration, FusedTokens, Generation, Query

_TRIES: Final = 3
"""How often a prompt is sent whose slot somebody else has used in between."""
_ELSEWHERE: Final = "Next: the backend 'llama.cpp' on the same files, in this process."
_PLAIN: Final = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "cache_prompt": True}
"""Nothing but the options that are named changes what is drawn."""


@dataclass(frozen=True)
class _Request:
    """A prompt, and what it begins with."""

    body: dict[str, Any]
    file: SlotFile | None
    """None: it begins with no fused tokens."""


class ServerInjector(Injector):
    """Each query has a slot of the server for itself while it is answered."""

    def __init__(self, model: LoadedModel, rows: PromptRows, client: ServerClient, files: SlotFiles) -> None:
        self._model, self._rows, self._client, self._files = model, rows, client, files
        self._free: queue.Queue[int] = queue.Queue()
        for slot in range(client.slots):
            self._free.put(slot)

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
        options = _options(generation, self._model.title, prompt_format, max_new_tokens)
        if log_probs:
            raise CapabilityError(f"llama-server leaves out some tokens' log-probabilities.\n{_ELSEWHERE}")
        requests = self._requests(queries, contexts, prompt_format, options)

        def answered(request: _Request) -> Generation:
            with self._slot() as slot:
                return self._generation(self._whole(request, slot), prompt_format)

        with ThreadPoolExecutor(self._client.slots, thread_name_prefix="aim-llama-server") as pool:
            return list(pool.map(answered, requests))

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        options = _options(generation, self._model.title, prompt_format, max_new_tokens)
        (request,) = self._requests([query], [context], prompt_format, options)
        return self._streamed(request, prompt_format)

    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        """Raises: CapabilityError: a server tells the log-probabilities of its own answers alone."""
        raise CapabilityError(f"llama-server does not tell how likely given answers are.\n{_ELSEWHERE}")

    def _streamed(self, request: _Request, prompt_format: PromptFormat) -> Iterator[str]:
        """No `Generation` at its end: a server leaves out the ids of tokens that are part of a character."""

        def pieces(slot: int) -> Iterator[str]:
            for event in self._client.stream({**request.body, "id_slot": slot, "return_progress": True}):
                if (progress := event.get("prompt_progress")) is not None:
                    self._check(request, slot, progress["cache"], slot)
                if "timings" in event:
                    self._check(request, slot, event["timings"]["cache_n"], event["id_slot"])
                yield event.get("content", "")

        with self._slot() as slot:
            self._restore(request, slot)
            yield from stream_answer(pieces(slot), prompt_format.stop)

    @contextmanager
    def _slot(self) -> Iterator[int]:
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def _restore(self, request: _Request, slot: int) -> None:
        if request.file is not None:
            self._files.write(request.file)
            self._client.restore(slot, request.file.name)

    def _whole(self, request: _Request, slot: int) -> dict[str, Any]:
        for left in range(_TRIES - 1, -1, -1):
            self._restore(request, slot)
            found = self._client.complete({**request.body, "id_slot": slot})
            try:
                self._check(request, slot, found["timings"]["cache_n"], found["id_slot"])
            except BackendError:
                if not left:
                    raise
            else:
                return found
        raise AssertionError

    def _check(self, request: _Request, slot: int, kept: int, used: int) -> None:
        """Refuse an answer that did not continue from the fused tokens: it took their labels for words."""
        wanted = 0 if request.file is None else len(request.file.rows)
        if used != slot or kept < wanted:
            raise BackendError(
                f"{self._client.url}: slot {slot} did not hold the fused tokens any more ({kept} of "
                f"{wanted} positions, in slot {used}): somebody else uses the server's slots.\n"
                "Next: a llama-server of one's own, or the backend 'llama.cpp'."
            )

    def _requests(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        prompt_format: PromptFormat,
        options: dict[str, Any],
    ) -> list[_Request]:
        """Raises: InputError: a query or a context cannot be sent; its ``query`` is the place."""
        made = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            try:
                made.append(self._request(query, context, prompt_format, options))
            except InputError as error:
                error.query = place
                raise
        return made

    def _request(
        self, query: Query, context: Context, prompt_format: PromptFormat, options: dict[str, Any]
    ) -> _Request:
        writer = self._rows.prompts
        writer.query(query, prompt_format)  # which refuses special tokens
        fused = [item for item in context if isinstance(item, FusedTokens)]
        shown = [item for item in context if isinstance(item, Demonstration)]
        if list(context[: len(fused)]) != fused:
            raise InputError("llama-server: fused tokens come before demonstrations with images; these are mixed.")
        opening, text, file = writer.opening(prompt_format), prompt_format.system or "", None
        if fused:
            rows = torch.cat([item.embeddings.detach().to("cpu", torch.float32) for item in fused])
            file = self._files.of(opening, rows)
            text = file.text
        before, blanks, suffix = prompt_format.pieces()
        for item in shown:
            writer.demonstration(item, prompt_format)
            text += before.format(image=self._client.marker, text=item.text) + blanks + item.answer + suffix
        text += before.format(image=self._client.marker, text=query.text)
        images = [load_image(image) for image in [*(item.image for item in shown), query.image]]
        prompt = {"prompt_string": text, "multimodal_data": sent(images)}
        return _Request({**_PLAIN, **options, "prompt": prompt, "return_tokens": True}, file)

    def _generation(self, found: dict[str, Any], prompt_format: PromptFormat) -> Generation:
        ids = tuple(map(int, found["tokens"]))
        text = clean_answer(self._model.tokens.decode(ids), prompt_format.stop)
        prompt_tokens = found["timings"]["cache_n"] + found["timings"]["prompt_n"]
        return Generation(text, ids, prompt_tokens, ended=found["stop_type"] != "limit")


def _options(
    generation: dict[str, Any], title: str, prompt_format: PromptFormat, max_new_tokens: int
) -> dict[str, Any]:
    sampling = Sampling.parse(generation, title)
    made: dict[str, Any] = {
        "n_predict": max_new_tokens,
        "temperature": sampling.temperature if sampling.do_sample else 0.0,
        "top_p": sampling.top_p,
        "stop": [prompt_format.stop] if prompt_format.stop else [],
    }
    if sampling.seed is not None:
        made["seed"] = sampling.seed
    return made
