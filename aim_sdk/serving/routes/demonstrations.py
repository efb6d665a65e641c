"""``/v1/banks/{bank}/demonstrations``: look at what a bank shows, find, tag and remove it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from aim_sdk.bank import BankEntry
from aim_sdk.bank.bank import DiskBank
from aim_sdk.chat.messages import image_of_url
from aim_sdk.errors import InputError
from aim_sdk.selection.builtin import ReadingSelector
from aim_sdk.serving import pictures
from aim_sdk.serving.pictures import Picture
from aim_sdk.serving.requests import TheCaller, TheService
from aim_sdk.types import Query as ImageQuery

router = APIRouter(prefix="/v1/banks/{bank}", tags=["demonstrations"])

Value = str | int | float | bool


class Wanted(BaseModel):
    """A picture to find similar ones of."""

    model_config = ConfigDict(extra="forbid", strict=True)
    image: Annotated[str, Field(description="a data URI")]
    text: str = ""
    limit: Annotated[int, Field(ge=1, le=200)] = 8


class Tags(BaseModel):
    """Fields of metadata to set; null drops one."""

    model_config = ConfigDict(extra="forbid")
    metadata: dict[str, Value | None]


@router.get("/demonstrations")
async def listed(
    bank: str,
    service: TheService,
    caller: TheCaller,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, description="at most as many as the answer's own limit says")] = 50,
    contains: Annotated[str, Query(description="only those whose text or answer holds this")] = "",
    where: Annotated[
        list[str] | None, Query(description="field:value of their metadata; several must all hold")
    ] = None,
) -> dict[str, Any]:
    """A page of demonstrations, in the order of their addition. `total` is how many there are with these filters."""
    most = min(limit, service.settings.limits.page)

    def page() -> dict[str, Any]:
        held = service.bank(bank, caller)
        keys = _matching(held, where or [], contains)
        found = [entry for key in keys[offset : offset + most] if (entry := held.get(key)) is not None]
        return {
            "object": "list",
            "total": len(keys),
            "offset": offset,
            "limit": most,
            "data": [described(bank, entry) for entry in found],
        }

    return await run_in_threadpool(page)


@router.get("/demonstrations/{key}")
async def one(bank: str, key: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """One demonstration."""
    return await run_in_threadpool(lambda: described(bank, service.bank(bank, caller)[key]))


@router.get("/demonstrations/{key}/image", response_class=Response)
async def image(bank: str, key: str, service: TheService, caller: TheCaller) -> Response:
    """Its image file."""
    return _sent(await run_in_threadpool(lambda: pictures.whole(service.bank(bank, caller)[key].checked().image)))


@router.get("/demonstrations/{key}/thumbnail", response_class=Response)
async def small(
    bank: str,
    key: str,
    service: TheService,
    caller: TheCaller,
    pixels: Annotated[int, Query(ge=16, le=1024)] = 256,
) -> Response:
    """Its image, small."""
    return _sent(
        await run_in_threadpool(lambda: pictures.thumbnail(service.bank(bank, caller)[key].checked().image, pixels))
    )


@router.patch("/demonstrations/{key}")
async def tag(bank: str, key: str, given: Tags, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Set fields of its metadata."""

    def tagged() -> dict[str, Any]:
        held = service.bank(bank, caller, write=True)
        held.tag(key, **given.metadata)
        return described(bank, held[key])

    return await run_in_threadpool(tagged)


@router.delete("/demonstrations/{key}")
async def remove(bank: str, key: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Remove it."""
    await run_in_threadpool(lambda: service.bank(bank, caller, write=True).remove(key))
    return {"key": key, "deleted": True}


@router.post("/search")
async def search(bank: str, given: Wanted, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """The demonstrations that are most like a picture, by their readings; the most similar first."""
    sought = ImageQuery(image_of_url(given.image, "image", service.settings.image_hosts), given.text)

    def found() -> list[dict[str, Any]]:
        held = service.bank(bank, caller)
        view = held.view()
        if not len(view):
            return []
        # `ranked` would leave out the picture's own demonstration, which is what is sought here
        (scores,) = ReadingSelector().scores(view, [sought], np.arange(len(view)))
        best = [(view.entries[place].key, scores[place]) for place in np.argsort(-scores, kind="stable")]
        return [{**described(bank, held[key]), "similarity": round(float(s), 4)} for key, s in best[: given.limit]]

    return {"object": "list", "data": await service.call(found)}


def described(bank: str, entry: BankEntry) -> dict[str, Any]:
    """A demonstration, with the addresses of its image."""
    held, at = entry.demonstration, f"/v1/banks/{bank}/demonstrations/{entry.key}"
    return {
        "key": entry.key,
        "text": held.text,
        "answer": held.answer,
        "metadata": dict(held.metadata),
        "image": f"{at}/image",
        "thumbnail": f"{at}/thumbnail",
    }


def _matching(held: DiskBank, where: list[str], contains: str) -> list[str]:
    keys = held.matching(_filter(held, where)) if where else list(held)
    if not contains:
        return keys
    sought, allowed = contains.casefold(), set(keys)
    return [
        entry.key
        for entry in held.values()
        if entry.key in allowed
        and (sought in entry.demonstration.text.casefold() or sought in entry.demonstration.answer.casefold())
    ]


def _filter(held: DiskBank, where: list[str]) -> Mapping[str, Any]:
    """The values that texts stand for: metadata holds numbers and truths, too."""
    made: dict[str, list[Any]] = {}
    fields = {field for entry in held.view().entries for field in entry.metadata}
    for pair in where:
        split = [(pair[:at], pair[at + 1 :]) for at, letter in enumerate(pair) if letter == ":" and at]
        if not split:
            raise InputError(f"where={pair[:80]!r}; expected field:value.")
        field, text = next((one for one in split if one[0] in fields), split[0])
        values = {entry.metadata[field] for entry in held.view().entries if field in entry.metadata}
        made[field] = [value for value in values if _is(value, text)] or [text]
    return made


def _is(value: Value, text: str) -> bool:
    """Whether a text is a value, as JSON or as people write it."""
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return value == text


def _sent(picture: Picture) -> Response:
    """What never changes: its key is its content."""
    return Response(picture.data, media_type=picture.kind, headers={"Cache-Control": "private, max-age=31536000"})
