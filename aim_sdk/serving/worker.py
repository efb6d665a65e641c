"""The one thread that uses the backbone: it takes what waits, and answers together what can be."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aim_sdk.bank import DemonstrationBank
from aim_sdk.chat.chat import Asked, Chat
from aim_sdk.chat.completion import ChatCompletion
from aim_sdk.chat.prompts import ChatPrompt, answered
from aim_sdk.chat.stream import ChatStream, streamed
from aim_sdk.errors import InputError
from aim_sdk.serving.refusals import Refusal
from aim_sdk.support.cores import hand_over_cores
from aim_sdk.types import Demonstration

WAIT: Final = 0.004
"""Seconds that the first request waits for others that may come, to be answered with them."""
WAIT_COMING: Final = 0.05
"""Seconds that it waits for those that have come and are being checked."""

log = logging.getLogger("aim_sdk.serving")


@dataclass(frozen=True, eq=False)
class Ask:
    """A conversation to answer."""

    chat: Chat
    asked: Asked
    done: Future[ChatCompletion] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Added:
    """A demonstration that is in its bank now."""

    key: str
    new: bool
    """Whether it was not there before."""


@dataclass(frozen=True, eq=False)
class Add:
    """Demonstrations for a bank. Each is told its key or its error, in its place."""

    bank: DemonstrationBank
    demonstrations: Sequence[Demonstration]
    done: Future[list[Added | InputError]] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class Call:
    """Something else that needs the backbone or must not happen next to it."""

    function: Callable[[], Any]
    done: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class Stream:
    """A conversation to answer piece by piece."""

    chat: Chat
    asked: Asked
    piece: Callable[[str], None]
    """Called with each piece, from the worker's thread."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when nobody listens any more."""
    done: Future[ChatCompletion] = field(default_factory=Future)


Job = Ask | Add | Call | Stream


class Worker:
    """Runs jobs. Requests that wait are answered in batches; streams get a piece each in turn.

    Args:
        batch: prompts per forward.
        capacity: jobs that may wait.
        batches: called with the size of each batch of conversations.
    """

    def __init__(self, batch: int, capacity: int, batches: Callable[[int], None] = lambda _: None) -> None:
        self._batch, self._capacity, self._batches = batch, capacity, batches
        self._waiting: deque[Job] = deque()
        self._streams: list[tuple[Stream, ChatStream]] = []
        self._changed, self._closed, self._aborted = threading.Condition(), False, False
        self._coming = 0
        self._seconds = 1.0
        """Of a round, on average."""
        self._thread = threading.Thread(target=self._work, name="aim-serving", daemon=True)
        hand_over_cores()  # this thread has loaded the backbone
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            Refusal: too many wait, or the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise _stopping()
            if len(self._waiting) >= self._capacity:
                seconds = 1 + int(self._seconds * len(self._waiting) / self._batch)
                raise Refusal(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "queue_full",
                    f"{len(self._waiting)} requests wait, as many as may. Next: ask again in {seconds} seconds.",
                    retry_after=seconds,
                )
            self._waiting.append(job)
            self._changed.notify()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Inside the block, a request is checked and submitted; a batch waits for it a little."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether jobs are done."""
        return self._thread.is_alive() and not self._closed

    def abort(self) -> None:
        """Give up what waits and the streams; what is being computed ends first."""
        with self._changed:
            self._closed, self._aborted = True, True
            waiting, streams = list(self._waiting), [job for job, _ in self._streams]
            self._waiting.clear()
            self._changed.notify()
        for job in (*waiting, *streams):
            if not job.done.done():
                job.done.set_exception(_stopping())

    def close(self) -> None:
        """Finish what waits, and take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (jobs := self._taken()) is not None:
            began = time.monotonic()
            try:
                self._run(jobs)
            except BaseException as error:  # a mistake of ours: those who wait are told, and the next are served
                log.exception("a batch failed")
                for job in jobs:
                    if not job.done.done():
                        job.done.set_exception(error)
            if jobs:
                self._seconds += 0.2 * (time.monotonic() - began - self._seconds)

    def _taken(self) -> list[Job] | None:
        """What is done next, up to a batch; None: the end. It waits for work unless there are streams."""
        with self._changed:
            if self._aborted:
                return None
            while not self._waiting and not self._streams:
                if self._closed:
                    return None
                self._changed.wait()
            began = time.monotonic()
            while not self._streams and len(self._waiting) < self._batch and not self._closed:
                left = began + (WAIT_COMING if self._coming else WAIT) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]

    def _run(self, jobs: Sequence[Job]) -> None:
        """Do jobs that were taken together, then give each stream its next piece."""
        wanted = [job for job in jobs if job.done.set_running_or_notify_cancel()]
        for bank in dict.fromkeys(job.bank for job in wanted if isinstance(job, Add)):
            self._add(bank, [job for job in wanted if isinstance(job, Add) and job.bank is bank])
        for job in wanted:
            if isinstance(job, Call):
                _finish(job.done, job.function)
        asked = [job for job in wanted if isinstance(job, Ask | Stream)]
        prompts = [pair for chat in dict.fromkeys(job.chat for job in asked) for pair in _prompts(chat, asked)]
        self._answer([(job, prompt) for job, prompt in prompts if isinstance(job, Ask)])
        self._begin([(job, prompt) for job, prompt in prompts if isinstance(job, Stream)])
        self._streams = [(job, stream) for job, stream in self._streams if _advanced(job, stream)]

    def _add(self, bank: DemonstrationBank, jobs: Sequence[Add]) -> None:
        """Add what several requests bring for one bank, and tell each about its own."""
        errors: dict[int, InputError] = {}
        everything = [item for job in jobs for item in job.demonstrations]
        try:
            before = {id(item) for item in everything if _held(bank, item)}
            bank.add(everything, on_error=lambda item, error: errors.update({id(item): error}))
            keys = {id(item): bank.key(item) for item in everything if id(item) not in errors}
        except Exception as error:
            for job in jobs:
                job.done.set_exception(error)
            return
        for job in jobs:
            job.done.set_result(
                [errors.get(id(item)) or Added(keys[id(item)], id(item) not in before) for item in job.demonstrations]
            )

    def _answer(self, prompts: Sequence[tuple[Ask, ChatPrompt]]) -> None:
        """Answer conversations, those of different banks in one batch."""
        if not prompts:
            return
        self._batches(len(prompts))
        found = answered([prompt for _, prompt in prompts], self._batch)
        for (job, _), one in zip(prompts, found, strict=True):
            job.done.set_exception(one) if isinstance(one, Exception) else job.done.set_result(one)

    def _begin(self, prompts: Sequence[tuple[Stream, ChatPrompt]]) -> None:
        for job, prompt in prompts:
            try:
                self._streams.append((job, streamed(prompt)))
            except Exception as error:
                job.done.set_exception(error)


def _prompts(chat: Chat, asked: Sequence[Ask | Stream]) -> list[tuple[Ask | Stream, ChatPrompt]]:
    """The prompts of one model's conversations; those that have none are told why."""
    jobs = [job for job in asked if job.chat is chat]
    try:
        return list(zip(jobs, chat.prompts([job.asked for job in jobs]), strict=True))
    except Exception as error:
        if len(jobs) > 1:
            return [pair for job in jobs for pair in _prompts(chat, [job])]
        jobs[0].done.set_exception(error)
        return []


def _advanced(job: Stream, stream: ChatStream) -> bool:
    """Give a stream its next piece; return whether there may be more."""
    if job.left.is_set() or job.done.done():  # nobody listens any more, or the service stops
        stream.close()
        if not job.done.done():
            job.done.set_exception(Refusal(HTTPStatus.GONE, "left", "nobody listens any more."))
        return False
    try:
        job.piece(next(stream))
        return True
    except StopIteration:
        assert stream.completion is not None  # it came to its end
        if not job.done.done():  # nor did the service stop meanwhile
            job.done.set_result(stream.completion)
    except Exception as error:
        job.done.set_exception(error)
    return False


def _stopping() -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "the service is stopping.", retry_after=10)


def _held(bank: DemonstrationBank, item: Demonstration) -> bool:
    try:
        return bank.holds(item)
    except InputError:  # `add` says so
        return False


def _finish(done: Future[Any], function: Callable[[], Any]) -> None:
    try:
        done.set_result(function())
    except Exception as error:
        done.set_exception(error)
