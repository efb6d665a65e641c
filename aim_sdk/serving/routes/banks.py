"""``/v1/banks``: make banks, look at them as a whole, move and delete them."""

from __future__ import annotations

import os
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from aim_sdk.bank.bank import DiskBank
from aim_sdk.errors import AIMError, CorruptArtifactError
from aim_sdk.serving.refusals import Refusal, for_clients
from aim_sdk.serving.requests import TheCaller, TheService
from aim_sdk.serving.service import Service

router = APIRouter(prefix="/v1/banks", tags=["banks"])


class NewBank(BaseModel):
    """A bank to make."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    keep_readings: Annotated[bool, Field(description="so that another projector needs nothing read again")] = False


@router.get("")
async def banks(service: TheService, caller: TheCaller) -> dict[str, Any]:
    """All banks, with the number of their demonstrations."""
    return {"object": "list", "data": await run_in_threadpool(_listed, service, service.visible(caller))}


@router.post("", status_code=201)
async def create(given: NewBank, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Make an empty bank. It keeps the images that are added."""
    service.check_makes(given.name, caller)
    await run_in_threadpool(lambda: service.banks.create(given.name, keep_readings=given.keep_readings))
    return {"name": given.name, "demonstrations": 0, "read_only": False}


@router.get("/{bank}")
async def bank(bank: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """What a bank holds, the space that it takes, and its verdict: whether its demonstrations help."""
    return await run_in_threadpool(lambda: _described(service, bank, service.bank(bank, caller)))


@router.delete("/{bank}")
async def delete(bank: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Delete a bank and all that it holds."""
    service.check_changes(bank, caller)
    await service.call(lambda: service.banks.delete(bank))  # nothing is answered with it meanwhile
    return {"name": bank, "deleted": True}


@router.post("/{bank}/verify")
async def verify(bank: str, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Read every byte; say what is damaged, and which images are missing."""

    def problems() -> list[str]:
        held = service.bank(bank, caller)
        return [for_clients(line) for line in (*held.verify(), *held.check_images())]

    return {"name": bank, "problems": await run_in_threadpool(problems)}


@router.get("/{bank}/export", response_class=FileResponse)
async def export(bank: str, service: TheService, caller: TheCaller) -> FileResponse:
    """The whole bank as one file, as `aim-icl bank export` writes it."""

    def exported() -> Path:
        held = service.bank(bank, caller)
        descriptor, name = tempfile.mkstemp(suffix=".aimbank")
        os.close(descriptor)
        try:
            held.export(name)
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    path = await run_in_threadpool(exported)
    return FileResponse(
        path,
        media_type="application/octet-stream",
        filename=f"{bank}.aimbank",
        background=BackgroundTask(path.unlink, missing_ok=True),
    )


@router.post("/{bank}/import", status_code=201)
async def import_file(bank: str, request: Request, service: TheService, caller: TheCaller) -> dict[str, Any]:
    """Make a bank out of an exported one: the body is the file. All of it is checked before the bank is there."""
    service.check_makes(bank, caller)
    service.banks.free(bank)
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "form", "the body is a form; expected the file itself.")
    with tempfile.NamedTemporaryFile(suffix=".aimbank") as file:
        async for part in request.stream():
            await run_in_threadpool(file.write, part)
        file.flush()
        try:
            made = await run_in_threadpool(service.banks.import_file, bank, Path(file.name))
        except CorruptArtifactError as error:
            what = for_clients(str(error)).replace(Path(file.name).name, "the body")
            raise Refusal(HTTPStatus.BAD_REQUEST, "not_an_exported_bank", what) from error
    return {"name": bank, "demonstrations": len(made), "read_only": False}


def _listed(service: Service, names: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            found.append(
                {
                    "name": name,
                    "demonstrations": len(service.banks.bank(name)),
                    "read_only": service.banks.is_published(name),
                }
            )
        except (AIMError, Refusal) as error:  # the others are there
            found.append({"name": name, "error": for_clients(str(error))})
    return found


def _described(service: Service, name: str, held: DiskBank) -> dict[str, Any]:
    stats, verdict = held.stats(), held.verdict
    return {
        "name": name,
        "demonstrations": stats.demonstrations,
        "fused_tokens": stats.fused_tokens,
        "bytes": stats.bytes,
        "reclaimable": stats.reclaimable,
        "keeps_readings": held.keeps_readings,
        "read_only": service.banks.is_published(name),
        "fields": sorted({field for entry in held.view().entries for field in entry.metadata}),
        "verdict": None if verdict is None else verdict.sentence,
    }
