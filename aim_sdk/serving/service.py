"""What all routes of a service share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from aim_sdk.backend.capabilities import ReusesPrefixes, find
from aim_sdk.errors import did_you_mean
from aim_sdk.serving.banks import Banks
from aim_sdk.serving.keys import Caller, Keys
from aim_sdk.serving.metrics import Metrics
from aim_sdk.serving.published import Refreshing
from aim_sdk.serving.refusals import Refusal
from aim_sdk.serving.settings import ServeSettings
from aim_sdk.serving.worker import Call, Job, Worker

if TYPE_CHECKING:
    from aim_sdk.bank.bank import DiskBank
    from aim_sdk.pipeline import AIMPipeline

T = TypeVar("T")

log = logging.getLogger("aim_sdk.serving")


class Service:
    """A loaded pipeline, its banks, and the thread that answers.

    Args:
        pipe: answers; its own bank is not used.
        settings: how.
        keys: who may ask.
    """

    def __init__(self, pipe: AIMPipeline, settings: ServeSettings, keys: Keys) -> None:
        self.pipe, self.settings, self.keys = pipe, settings, keys
        self.model = pipe.backend.name
        self.banks = Banks(settings.banks, pipe.encoder, pipe.selector)
        self.published = Refreshing(
            self.banks,
            settings.published,
            settings.banks,
            pipe.encoder,
            settings.refresh,
            settings.limits.answer_seconds,
        )
        self.worker = Worker(settings.batch, settings.queue, lambda size: self.metrics.batches.observe(size))
        reusing = find(pipe.backend, ReusesPrefixes)

        def prefixes() -> tuple[int, int]:
            assert reusing is not None
            info = reusing.prefixes.info()
            return info["hits"], info["misses"]

        self.metrics = Metrics(lambda: self.worker.waiting, None if reusing is None else prefixes)

    def visible(self, caller: Caller) -> list[str]:
        """The banks that somebody may ask."""
        return [name for name in self.banks.names() if caller.sees(name)]

    def bank(self, name: str, caller: Caller, *, write: bool = False) -> DiskBank:
        """A bank that somebody may ask or change.

        Raises:
            Refusal: there is none for them, or they may not change it.
        """
        self.check_sees(name, caller)
        if write:
            self.check_changes(name, caller)
        return self.banks.bank(name)

    def check_changes(self, name: str, caller: Caller) -> None:
        """Refuse those who may not change a bank, and a bank that nobody may change here.

        Raises:
            Refusal: it is so.
        """
        self.check_sees(name, caller)
        self.check_writes(caller)
        self.banks.check_writable(name)

    def check_makes(self, name: str, caller: Caller) -> None:
        """Refuse those who may not make a bank of that name.

        Raises:
            Refusal: they may not.
        """
        self.check_writes(caller)
        if not caller.sees(name):
            raise Refusal(HTTPStatus.FORBIDDEN, "may_not_write", f"this key may not make a bank named {name[:80]!r}.")

    def check_sees(self, name: str, caller: Caller) -> None:
        """Refuse a bank that is not there for somebody.

        Raises:
            Refusal: it is not.
        """
        if not caller.sees(name):
            near = did_you_mean(name, self.visible(caller))
            raise Refusal(HTTPStatus.NOT_FOUND, "bank_not_found", f"no bank named {name[:80]!r}.{near}")

    def check_writes(self, caller: Caller) -> None:
        """Refuse those who may only ask.

        Raises:
            Refusal: it is one of them.
        """
        if not caller.writes:
            raise Refusal(HTTPStatus.FORBIDDEN, "may_not_write", "this key may ask, but not change banks.")

    def bank_of_model(self, model: str, bank: str | None, caller: Caller) -> tuple[str | None, DiskBank | None]:
        """The bank that a request names, in its field or after its model's name.

        Raises:
            Refusal: there is no such model or bank, or two banks are named.
        """
        own, colon, named = model.partition(":")
        if own != self.model:
            known = [self.model, *(f"{self.model}:{name}" for name in self.visible(caller))]
            near = did_you_mean(model, known) or f" Expected {self.model!r}, or {self.model}:BANK."
            raise Refusal(HTTPStatus.NOT_FOUND, "model_not_found", f"no model named {model[:80]!r}.{near}", "model")
        if colon and bank is not None and named != bank:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "two_banks", f"the model names bank {named!r}, and bank is {bank!r}.", "bank"
            )
        name = named if colon else bank
        return (None, None) if name is None else (name, self.bank(name, caller))

    async def result(self, job: Job) -> Any:
        """Wait for a job.

        Raises:
            Refusal: too many wait, or it takes too long.
        """
        self.worker.submit(job)
        return await self.done(job)

    async def done(self, job: Job) -> Any:
        """Wait for a job that was submitted.

        Raises:
            Refusal: it takes too long.
        """
        done: Future[Any] = job.done
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), self.settings.limits.answer_seconds)
        except TimeoutError as error:
            seconds = self.settings.limits.answer_seconds
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT, "too_slow", f"no answer within {seconds:g} seconds.", retry_after=30
            ) from error

    async def call(self, function: Callable[[], T]) -> T:
        """Run something in the thread that uses the backbone."""
        found: T = await self.result(Call(function))
        return found

    def close(self) -> None:
        """Finish what waits, and close the banks."""
        self.published.close()
        self.worker.close()
        self.banks.close()
