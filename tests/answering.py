"""A pipeline that answers without a model: slow, deterministic, and with its own opinion of some texts.

As a script it answers a file of queries: ``python -m tests.answering QUERIES OUT SECONDS_PER_BATCH``.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aim_sdk.answering.jobs import AnswerJob
from aim_sdk.answering.queries import read_queries
from aim_sdk.errors import AIMError, ContextLengthError, FormatError, InputError
from aim_sdk.injection.shots import Shots
from aim_sdk.selection.builtin import FirstSelector
from aim_sdk.types import Demonstration, Generation, Query

SETTINGS: dict[str, Any] = {"backend": "echo", "mode": "aim", "shots": None}


class Held(dict[str, Demonstration]):
    """A bank whose keys are texts; it refuses those of over 100 letters."""

    def add(
        self,
        items: Sequence[Demonstration],
        *,
        progress: bool,
        on_error: Callable[[Demonstration, InputError], None],
    ) -> None:
        for item in items:
            if len(item.text) > 100:
                on_error(item, ContextLengthError("does not fit"))
            else:
                self[item.text] = item

    def key(self, item: Demonstration) -> str:
        return item.text


class Pipe:
    """Refuses texts with ``<image>`` in them, whoever brings them, and queries of over 100 letters."""

    def __init__(self, seconds: float = 0, scope: str = "scope") -> None:
        self.seconds, self.asked = seconds, list[str]()
        self.encoder = SimpleNamespace(binding=SimpleNamespace(scope=scope), lengths_by_place=self._lengths)
        self.bank, self.selector = Held(), FirstSelector()

    def generate(self, queries: Sequence[Query], *, shots: Shots, **_: object) -> list[Generation]:
        time.sleep(self.seconds)
        demonstrations: Any = shots.demonstrations
        for item in [*queries, *(demonstrations or ())]:
            if "<image>" in item.text:
                raise FormatError(f"{item.text!r} holds an image token")
        if any(len(query.text) > 100 for query in queries):
            raise ContextLengthError("does not fit")
        self.asked += [query.text for query in queries]
        shown = "".join(item.answer for item in demonstrations or ())
        return [Generation(f"{shown}: {query.text[::-1]}", (), 7) for query in queries]

    def _lengths(self, items: Sequence[Demonstration], on_error: Callable[[int, InputError], None]) -> dict[int, int]:
        for place, item in enumerate(items):
            if "<image>" in item.text:
                on_error(place, FormatError(f"{item.text!r} holds an image token"))
        return {}


def answer(queries: Path, out: Path, pipe: Any = None, demonstrations: Any = (), **settings: Any) -> tuple[Any, Any]:
    """Run a job; return it and the problems."""
    asked, _ = read_queries(queries)
    with AnswerJob.claimed(out, asked, SETTINGS | settings) as job:
        pipe = pipe or Pipe()
        shown = list(demonstrations) or None
        return job, job.run(pipe, shown, mode="aim", shots=None, max_new_tokens=4, batch_size=3) if job.left else []


if __name__ == "__main__":
    try:
        answer(Path(sys.argv[1]), Path(sys.argv[2]), Pipe(float(sys.argv[3])))
    except AIMError as error:
        sys.exit(f"{type(error).__name__}: {error}")
