"""``POST /v1/chat/completions`` and ``GET /v1/models``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from aim_sdk.chat.chat import Asked, Chat
from aim_sdk.chat.completion import ChatCompletion
from aim_sdk.chat.messages import ImageSources
from aim_sdk.errors import InputError
from aim_sdk.serving.keys import Caller
from aim_sdk.serving.openai import ChatRequest, Identity, refused
from aim_sdk.serving.reference import CHUNK, COMPLETION, REFERENCE, described
from aim_sdk.serving.refusals import answer_to
from aim_sdk.serving.requests import TheCaller, TheService, json_body
from aim_sdk.serving.service import Service
from aim_sdk.serving.worker import Ask, Stream

router = APIRouter(tags=["chat"])

_BODY: Final = described(
    ChatRequest.model_json_schema(ref_template=REFERENCE), {"application/json": COMPLETION, "text/event-stream": CHUNK}
)


@router.get("/v1/models")
async def models(service: TheService, caller: TheCaller) -> dict[str, Any]:
    """The model, alone and with each bank: `model:bank`."""
    names = [service.model, *(f"{service.model}:{bank}" for bank in service.visible(caller))]
    return {"object": "list", "data": [{"id": n, "object": "model", "created": 0, "owned_by": "aim"} for n in names]}


@router.get("/v1/models/{model}")
async def model(model: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """One of them."""
    await run_in_threadpool(service.bank_of_model, model, None, caller)
    return {"id": model, "object": "model", "created": 0, "owned_by": "aim"}


@router.post("/v1/chat/completions", openapi_extra=_BODY)
async def completions(request: Request, service: TheService, caller: TheCaller) -> Response:
    """Answer a conversation. Pairs of turns are demonstrations, the last turn, with an image, is the query.

    A conversation without demonstrations is answered with those of the bank that the model's name (`model:bank`) or
    the field `bank` names.
    """
    began = time.monotonic()
    await request.body()  # which may take its time
    with service.worker.coming():
        wanted = ChatRequest.of(await json_body(request))
        named, chat, asked = await run_in_threadpool(_asked, service, wanted, caller)
        if wanted.stream:
            asked.options.check_streams()
        pieces = _Pieces(asyncio.get_running_loop())
        job = Stream(chat, asked, pieces) if wanted.stream else Ask(chat, asked)
        service.worker.submit(job)
    identity, extra = Identity(wanted.model), {"bank": named, "mode": asked.shots.mode}
    if isinstance(job, Stream):
        events = _events(service, job, pieces, identity, wanted, request.state.request, began, extra)
        first = await anext(events)  # what cannot be answered is refused with a status of its own
        return StreamingResponse(_after(first, events), media_type="text/event-stream", headers=_UNBUFFERED)
    made: ChatCompletion = await service.done(job)
    _count(service, made)
    return JSONResponse(identity.whole(made, {**extra, "milliseconds": _since(began)}))


_END: Final = b"data: [DONE]\n\n"
_UNBUFFERED: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def _asked(service: Service, wanted: ChatRequest, caller: Caller) -> tuple[str | None, Chat, Asked]:
    """The conversation, checked, and who answers it."""
    bank_name, bank = service.bank_of_model(wanted.model, wanted.bank, caller)
    contents = [message.get("content") for message in wanted.messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    images = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    if images > service.settings.limits.images:
        raise InputError(f"{images} images; a conversation may have {service.settings.limits.images}.")
    chat = service.banks.chat(bank, caller.name)
    sources = ImageSources(hosts=service.settings.image_hosts)
    asked = chat.asked(wanted.messages, wanted.options(service.settings.limits.max_tokens), sources)
    if bank is None and not asked.chat.demonstrations:
        for field in ("shots", "selector", "mode"):
            if (value := getattr(wanted, field)) not in (None, 0, "zero-shot"):
                raise refused(
                    f"{field}={value!r}: the messages bring no demonstrations, and no bank is named.\n"
                    f"Next: model={service.model + ':BANK'!r}, or the field bank.",
                    field,
                )
    if bank is not None and asked.chat.demonstrations:
        raise InputError(
            f"bank {bank_name!r}: the messages bring demonstrations of their own, and those are shown. "
            "Next: leave out the bank, or all turns before the last one."
        )
    return bank_name, chat, asked


class _Pieces:
    """Hands pieces from the worker's thread to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    def __call__(self, piece: str | None) -> None:
        self._loop.call_soon_threadsafe(self.queue.put_nowait, piece)


async def _events(
    service: Service,
    job: Stream,
    pieces: _Pieces,
    identity: Identity,
    wanted: ChatRequest,
    request: str,
    began: float,
    extra: dict[str, Any],
) -> AsyncIterator[bytes]:
    """The parts of a streamed answer, as server-sent events."""
    job.done.add_done_callback(lambda _: pieces(None))
    sent = False
    try:
        while (piece := await pieces.queue.get()) is not None:
            if not sent:
                service.metrics.first_piece.observe(time.monotonic() - began)
                yield _event(identity.chunk({"role": "assistant", "content": ""}))
            sent = True
            yield _event(identity.chunk({"content": piece}))
        try:
            made = job.done.result()
        except Exception as error:
            if not sent:
                raise
            answer = answer_to(error, request)
            service.metrics.errors.labels(answer.code).inc()
            yield _event(answer.body)
            yield _END
            return
        if not sent:
            yield _event(identity.chunk({"role": "assistant", "content": ""}))
        _count(service, made)
        aim = identity.about(made, {**extra, "milliseconds": _since(began)})
        yield _event(identity.chunk({}, made.answers[0].finish_reason, aim=aim))
        if wanted.stream_options is not None and wanted.stream_options.include_usage:
            yield _event(identity.usage_chunk(made))
        yield _END
    finally:
        job.left.set()


def _since(began: float) -> int:
    """Milliseconds."""
    return round(1000 * (time.monotonic() - began))


async def _after(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        yield event


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def _count(service: Service, made: ChatCompletion) -> None:
    service.metrics.reads.inc(made.read)
    for kind, count in (("prompt", made.prompt_tokens), ("answer", made.completion_tokens)):
        if count is not None:
            service.metrics.tokens.labels(kind).inc(count)
