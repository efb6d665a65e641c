"""Asks a pipeline the queries of a job, batch after batch; a query that is refused loses only itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aim_sdk.answering.queries import NumberedQuery, failed_line
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.files.images import describe
from aim_sdk.injection.choices import Normalization
from aim_sdk.injection.classification import Classification, Classifier
from aim_sdk.injection.contexts import Contexts, text_key
from aim_sdk.injection.label_notes import note
from aim_sdk.injection.shots import Shots
from aim_sdk.support.modes import PROMPTED, READ, SEEN
from aim_sdk.support.terminal import Problems
from aim_sdk.types import Demonstration, Generation, Mode

if TYPE_CHECKING:
    from aim_sdk.pipeline import AIMPipeline


@dataclass(frozen=True)
class Asking:
    """What stays the same for all queries of a job."""

    pipe: AIMPipeline
    shots: Shots
    max_new_tokens: int
    choices: Sequence[str] | None
    schema: Mapping[str, Any] | None
    normalize: Normalization
    problems: Problems
    failed: list[dict[str, Any]] = field(default_factory=list)
    """Each query without an answer: its image, its text, its line, and why."""
    voteless: list[str] = field(default_factory=list)
    """Why a query that has an answer has no vote."""
    short: list[int] = field(default_factory=list)
    """The line of each query that was shown fewer demonstrations than asked."""

    def conclude(self) -> None:
        """Report once what was noticed about the labels."""
        if self.choices is not None:
            self._classifier.conclude()
        if count := len(self.short):
            who = "1 query was" if count == 1 else f"{count} queries were"
            note(
                f"{who} shown fewer demonstrations than asked: there are no more, as no query is shown itself; the "
                f"first: line {self.short[0]}"
            )
        if count := len(self.voteless):
            who = "1 query has" if count == 1 else f"{count} queries have"
            note(
                f"{who} an answer, but no vote of the nearest demonstrations, so the report does not compare the two; "
                f"the first: {self.voteless[0]}"
            )

    @cached_property
    def _classifier(self) -> Classifier:
        made = self._made(self.shots)
        made.announce()
        return made

    @cached_property
    def _voters(self) -> Classifier:
        """The nearest demonstrations, the baseline of a report; they are read only in mode "aim"."""
        return self._made(Shots(self.shots.count, mode="nearest"))

    def _made(self, shots: Shots) -> Classifier:
        assert self.choices
        contexts = Contexts(self.pipe.encoder, self.pipe.bank, self.pipe.selector, labels=True)
        return Classifier(contexts, self.choices, shots, self.normalize)

    def batch(self, items: Sequence[NumberedQuery]) -> list[str]:
        """The lines of those queries that are answered, each with its line feed; the others become problems.

        Raises:
            ShotsError: the queries are not the cause.
        """
        if self.choices is None:
            return [self._told(item, _answer(answer)) for item, answer in self._generated(items)]
        found = self._labelled(items, self._classifier, self._refuse)
        votes = self._votes([item for item in items if item.key in found])
        kept = [item for item in items if item.key in found]
        return [self._told(item, _label(found[item.key]) | votes.get(item.key, {})) for item in kept]

    def _told(self, item: NumberedQuery, made: Mapping[str, Any]) -> str:
        """An answer's line."""
        asked = self.shots.count if self.shots.count is not None else 1  # by default as many as there are, up to 8
        shows = self.shots.mode in PROMPTED - {"zero-shot"}
        if shows and len(made["demonstrations"]) < asked:
            self.short.append(item.number)
        return _line(item, made)

    def _generated(self, items: Sequence[NumberedQuery]) -> list[tuple[NumberedQuery, Generation]]:
        """If a batch is refused, its queries are asked one by one, to find the one that causes it."""
        try:
            answers = self.pipe.generate(
                [item.query for item in items],
                shots=self.shots,
                schema=self.schema,
                max_new_tokens=self.max_new_tokens,
                batch_size=len(items),
            )
            return list(zip(items, answers, strict=True))
        except ShotsError:
            raise
        except InputError as error:
            if len(items) > 1:
                return [pair for item in items for pair in self._generated([item])]
            self._refuse(items[0], error)
            return []

    def _labelled(
        self,
        items: Sequence[NumberedQuery],
        classifier: Classifier,
        on_error: Callable[[NumberedQuery, InputError], None],
    ) -> dict[str, Classification]:
        """The labels by the queries' keys; `on_error` is called with the others."""
        found = classifier.those_that_can(
            [item.query for item in items],
            range(len(items)),
            lambda place, error: on_error(items[place], error),
        )
        return {items[place].key: label for place, label in found.items() if label.label is not None}

    def _votes(self, items: Sequence[NumberedQuery]) -> dict[str, dict[str, Any]]:
        """What the nearest demonstrations say, if the right label is known: the baseline of a report."""
        known = [item for item in items if item.reference is not None]
        if self.shots.mode != "aim" or self.shots.count == 0 or not known:
            return {}
        found = self._labelled(known, self._voters, lambda item, error: self.voteless.append(item.problem(error)))
        return {key: {"nearest": vote.label} for key, vote in found.items()}

    def _refuse(self, item: NumberedQuery, error: InputError) -> None:
        said = item.problem(error)
        self.problems.add(said)
        self.failed.append(failed_line(item.line.image, item.query.text, item.number, said, item.reference))


def usable_demonstrations(
    pipe: AIMPipeline, demonstrations: Sequence[Demonstration], mode: Mode, similar: bool, problems: Problems
) -> list[Demonstration]:
    """The demonstrations that the model accepts, read into the bank if their images are used.

    Args:
        pipe: its bank takes them in.
        demonstrations: the given demonstrations.
        mode: `"aim"` and `"nearest"` look at the images.
        similar: whether each query's are chosen by their likeness.
        problems: gets a message for each of the others.

    Raises:
        InputError: none can be used.
    """
    refused: dict[int, InputError] = {}

    def refuse(place: int, error: InputError) -> None:
        refused[place] = error

    if mode == "zero-shot":
        return list(demonstrations)
    pipe.encoder.lengths_by_place(demonstrations, refuse)
    taken = [item for place, item in enumerate(demonstrations) if place not in refused]
    for place, error in refused.items():
        problems.add(f"demonstration {describe(demonstrations[place].image)}: {error}")
    if mode in READ or similar:
        pipe.bank.add(
            taken,
            progress=True,
            on_error=lambda item, error: problems.add(f"demonstration {describe(item.image)}: {error}"),
        )
        kept = set(pipe.bank.keys())
        taken = [item for item in taken if pipe.bank.key(item) in kept]
    if not taken:
        raise InputError("no demonstration can be used:" + "".join(f"\n  {problem}" for problem in problems))
    return taken


def _answer(answer: Generation) -> dict[str, Any]:
    shown = {"demonstrations": list(answer.demonstrations)}
    return {"answer": answer.text, **shown, "prompt_tokens": answer.prompt_tokens}


def _label(label: Classification) -> dict[str, Any]:
    return {
        "answer": label.label,
        "probability": label.probability,
        "probabilities": dict(label.probabilities),
        "demonstrations": list(label.demonstrations),
        "prompt_tokens": label.prompt_tokens,
    }


def _line(item: NumberedQuery, made: Mapping[str, Any]) -> str:
    fields = item.fields() | dict(made) | {"line": item.number, "key": item.key}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def shown_as(
    pipe: AIMPipeline, demonstrations: Sequence[Demonstration], mode: Mode, similar: bool
) -> list[dict[str, str]]:
    """Which demonstration each key in the answers is: its image, text and answer."""
    looked_at = similar or mode in SEEN
    made = dict[str, dict[str, str]]()
    for item in demonstrations:
        key = pipe.bank.key(item) if looked_at else text_key(item, mode, pipe.encoder.binding.scope)
        image = os.fspath(item.image) if isinstance(item.image, str | os.PathLike) else describe(item.image)
        made.setdefault(key, {"key": key, "image": image, "text": item.text, "answer": item.answer})
    return list(made.values())
