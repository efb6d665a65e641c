"""``POST /v1/banks/{bank}/demonstrations``: add one or many, as JSON or as a form with files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from aim_sdk.bank.bank import DiskBank
from aim_sdk.chat.messages import image_of_url
from aim_sdk.errors import InputError, problem, unknown
from aim_sdk.files.json_lines import parse_object
from aim_sdk.serving.reference import LINE, LINES
from aim_sdk.serving.refusals import Answer, answer_to
from aim_sdk.serving.requests import TheCaller, TheService, json_body
from aim_sdk.serving.service import Service
from aim_sdk.serving.worker import Add, Added
from aim_sdk.types import Demonstration

router = APIRouter(prefix="/v1/banks/{bank}", tags=["demonstrations"])

GROUP: Final = 16
"""Demonstrations that are read together; other requests are answered between two groups."""


_FIELDS: Final = ("demonstrations", "text", "answer", "metadata")
"""Of a form, besides its files."""
_MOST_FIELDS: Final = 64
_LONGEST: Final = 2000
"""Characters of a value of metadata."""


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    if len(given) > _MOST_FIELDS:
        raise ValueError(f"{len(given)} fields; at most {_MOST_FIELDS}")
    for name, value in given.items():
        if not name or len(name) > 80 or not isinstance(value, str | int | float):
            raise ValueError(f"{name[:80]!r} is {type(value).__name__}; expected a string, a number, true or false")
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise ValueError(f"{name!r} is a number of more than 64 bits")
        if len(str(value)) > _LONGEST:
            raise ValueError(f"{name!r} is longer than {_LONGEST} characters")
    return given


class NewDemonstration(BaseModel):
    """A demonstration to add."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    image: str
    """A data URI or, in a form, the name of one of its files."""
    text: str = ""
    answer: str
    metadata: Annotated[dict[str, Any], AfterValidator(_checked)] = {}
    """Strings, numbers, true and false by field."""


_SCHEMA: Final = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"demonstrations": {"type": "array", "items": NewDemonstration.model_json_schema()}},
                    "required": ["demonstrations"],
                }
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "demonstrations": {"type": "string", "description": "JSON, images by file name"},
                        "text": {"type": "string"},
                        "answer": {"type": "string", "description": "of all files, instead of demonstrations"},
                        "metadata": {"type": "string", "description": "JSON, of all files"},
                    },
                    "required": ["files"],
                }
            },
        },
    },
    "responses": {
        "200": {
            "description": "OK",
            "content": {"application/json": {"schema": LINES}, "text/event-stream": {"schema": LINE}},
        }
    },
}


@dataclass(frozen=True)
class Item:
    """One of those that were given: a demonstration, or why it is none."""

    place: int
    made: Demonstration | InputError


@router.post("/demonstrations", openapi_extra=_SCHEMA)
async def add(bank: str, request: Request, service: TheService, caller: TheCaller) -> Response:
    """Add demonstrations: `{"demonstrations": [{"image": "data:...", "text", "answer", "metadata"}]}`, or a form.

    What is answered as `added` or `here` stays, whatever happens to the machine. One that cannot be used is `refused`
    with its error, and the others are added. With the header `Accept: text/event-stream` every demonstration is told
    about as soon as it is there.
    """
    held = await run_in_threadpool(lambda: service.bank(bank, caller, write=True))
    items = await _items(request, service)
    if len(items) > (most := service.settings.limits.images):
        raise InputError(f"{len(items)} demonstrations in one call; at most {most}. Next: several calls.")
    lines = _added(service, held, items, request.state.request)
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(lines, len(items)), media_type="text/event-stream")
    data, refused = [], None
    async for line, answer in lines:
        data.append(line)
        refused = refused or answer
    data.sort(key=lambda line: line["index"])
    if refused is not None and all(line["status"] == "refused" for line in data):
        return JSONResponse({**refused.body, "data": data}, refused.status, refused.headers)
    return JSONResponse({"object": "list", "data": data})


async def _added(
    service: Service, bank: DiskBank, items: Sequence[Item], request: str
) -> AsyncIterator[tuple[dict[str, Any], Answer | None]]:
    """What became of each, in groups; with the answer to its error."""
    usable = [(item.place, item.made) for item in items if isinstance(item.made, Demonstration)]
    for item in items:
        if isinstance(item.made, InputError):
            yield _line(item.place, item.made, request)
    for start in range(0, len(usable), GROUP):
        group = usable[start : start + GROUP]
        try:
            found: Sequence[Added | Exception] = await service.result(Add(bank, [made for _, made in group]))
        except Exception as error:  # of all of them: the disk is full, say
            if not start and len(usable) == len(items):
                raise
            found = [error] * len(group)
        for (place, _), one in zip(group, found, strict=True):
            if isinstance(one, Added) and one.new:
                service.metrics.reads.inc()
            yield _line(place, one, request)


def _line(place: int, one: Added | Exception, request: str) -> tuple[dict[str, Any], Answer | None]:
    if isinstance(one, Added):
        return {"index": place, "status": "added" if one.new else "here", "key": one.key}, None
    answer = answer_to(one, request)
    return {"index": place, "status": "refused", **answer.body}, answer


async def _events(lines: AsyncIterator[tuple[dict[str, Any], Answer | None]], total: int) -> AsyncIterator[bytes]:
    done = 0
    async for line, _ in lines:
        done += 1
        yield b"data: " + json.dumps({**line, "done": done, "total": total}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _items(request: Request, service: Service) -> list[Item]:
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _of_form(request, service)
    body = await json_body(request)
    return await run_in_threadpool(_of_json, body.get("demonstrations"), {}, service)


async def _of_form(request: Request, service: Service) -> list[Item]:
    limits, files, fields = service.settings.limits, list[tuple[str, bytes]](), dict[str, str]()
    try:
        async with request.form(max_files=limits.images, max_fields=8, max_part_size=limits.body_bytes) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "files":
                        raise InputError(f"the form's file {name[:80]!r}: expected files under the name 'files'.")
                    files.append((value.filename or f"file {len(files)}", await value.read()))
                elif name not in _FIELDS:
                    raise InputError(unknown("field of the form", name[:80], _FIELDS))
                else:
                    fields[name] = value
    except MultiPartException as error:
        raise InputError(f"the form cannot be read: {error.message}.") from error
    if "demonstrations" not in fields:
        shared: dict[str, Any] = {name: fields[name] for name in ("text", "answer") if name in fields}
        if "metadata" in fields:
            shared["metadata"] = parse_object(fields["metadata"].encode())
        numbered = {f"{place}": data for place, (_, data) in enumerate(files)}
        return await run_in_threadpool(_of_json, [{"image": n, **shared} for n in numbered], numbered, service)
    if len(fields) > 1:
        raise InputError(f"{', '.join(sorted(fields))}: with demonstrations, the others stand in each of them.")
    by_name = dict(files)
    if len(by_name) < len(files):
        raise InputError("two files of the form have one name, so demonstrations cannot tell them apart.")
    listed = parse_object(b'{"all":' + fields["demonstrations"].encode() + b"}", limits.body_bytes)["all"]
    named = {one.get("image") for one in listed if isinstance(one, dict)} if isinstance(listed, list) else set()
    if unused := [name for name in by_name if name not in named]:
        raise InputError(f"no demonstration names the file {', '.join(unused)[:400]}.")
    return await run_in_threadpool(_of_json, listed, by_name, service)


def _of_json(listed: object, files: dict[str, bytes], service: Service) -> list[Item]:
    if not isinstance(listed, list) or not listed:
        raise InputError("demonstrations: expected a list with at least one.")
    found = []
    for place, given in enumerate(listed):
        try:
            found.append(Item(place, _demonstration(given, place, files, service)))
        except InputError as error:
            found.append(Item(place, error))
    return found


def _demonstration(given: object, place: int, files: dict[str, bytes], service: Service) -> Demonstration:
    where = f"demonstrations[{place}]"
    try:
        made = NewDemonstration.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{where}: {problem(error)}.") from error
    if made.image in files:
        image = files[made.image]
    elif files:
        raise InputError(f"{where}.image: the form has no file {made.image[:80]!r}; it has {', '.join(files)[:400]}.")
    else:
        image = image_of_url(made.image, f"{where}.image", service.settings.image_hosts)
    return Demonstration(image, made.text, made.answer, made.metadata)
