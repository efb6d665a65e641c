"""Labels for images: which of a few choices answers each image, and how sure the backbone is."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

from aim_sdk.bank import DemonstrationBank
from aim_sdk.bank.adding import check_on_error, gave_nothing
from aim_sdk.errors import InputError, ShotsError
from aim_sdk.files.photo_folders import FolderWarning, Skipped, folder_images
from aim_sdk.injection.choices import Normalization, listed, normalized, softmax, text_of
from aim_sdk.injection.contexts import Contexts
from aim_sdk.injection.given import One, query_of
from aim_sdk.injection.label_notes import Astray, Own, bank_answers, note_alike, note_choices_without_examples
from aim_sdk.injection.prompting import fitting
from aim_sdk.injection.shots import Shots, same_for_all
from aim_sdk.selection.nearest import neighbours, vote, votes_among
from aim_sdk.types import ChoiceScores, Context, Demonstration, ImageInput, Query

Images: TypeAlias = "ImageInput | Query | Iterable[One]"
OnError = Callable[[int, InputError], None]
"""Called with the index of each image that cannot be labelled, and the reason."""


@dataclass(frozen=True, slots=True)
class Classification:
    """One image's label."""

    label: str | None
    """The likeliest choice; of equally likely ones the first. None if there is an `error`."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of each choice, in the order of the choices; they sum to 1."""
    demonstrations: tuple[str, ...] = ()
    """What was shown, as `Generation.demonstrations`; in mode `"nearest"` the neighbours, the nearest first."""
    prompt_tokens: int | None = None
    """Positions of the prompt; None in mode `"nearest"`, and if the backend does not say."""
    error: str | None = None
    """Why the image has no label, if `on_error` was given."""
    image: ImageInput | None = field(default=None, compare=False)
    """The image as it was given; of a folder, its path."""

    @property
    def probability(self) -> float:
        """The label's; NaN without a label."""
        return math.nan if self.label is None else self.probabilities[self.label]


@dataclass(frozen=True)
class Classifier:
    """Labels batches of queries of one pipeline; what stays the same for all of them."""

    contexts: Contexts
    choices: Sequence[str]
    shots: Shots
    normalize: Normalization
    astray: Astray = field(default_factory=Astray)

    @cached_property
    def own(self) -> Own:
        """Queries that are demonstrations themselves."""
        given = self._given
        if self.shots.mode == "nearest":  # whose own never votes
            return Own(self.contexts.bank, given, shown=False)
        return Own(self.contexts.bank, None if given is None else given[: self.shots.count], shown=given is not None)

    def announce(self) -> None:
        """Report what is known before anything is labelled."""
        answers: Collection[str] = ()
        if self.shots.mode != "zero-shot" and self.shots.count != 0:
            given = self._given
            answers = bank_answers(self.contexts.bank) if given is None else {item.answer.strip() for item in given}
        note_choices_without_examples(self.choices, answers, votes=self.shots.mode == "nearest")
        note_alike(self.choices, answers)

    def conclude(self) -> None:
        """Report what was noticed."""
        self.astray.tell()
        self.own.tell()

    def batch(self, queries: Sequence[Query]) -> list[Classification]:
        """Label queries in one forward, if the backend can.

        Raises:
            InputError: its `query` is the index of the query that cannot be labelled, if it is about one query.
        """
        made = self._voted(queries) if self.shots.mode == "nearest" else self._scored(queries)
        if self.shots.mode != "zero-shot" and self.shots.count != 0:
            self.own.add(queries)
        return [replace(label, image=query.image) for label, query in zip(made, queries, strict=True)]

    def those_that_can(
        self, queries: Sequence[Query], places: Sequence[int], on_error: OnError
    ) -> dict[int, Classification]:
        """Label those that can be labelled, by index; `on_error` is called with the others."""
        if not queries:
            return {}
        try:
            return dict(zip(places, self.batch(queries), strict=True))
        except ShotsError:  # no single image is the cause
            raise
        except InputError as error:
            if len(queries) == 1:
                on_error(places[0], error)
                return {places[0]: Classification(None, error=str(error), image=queries[0].image)}
            row = error.query
        if row is None:  # which one?
            parts = [slice(i, i + 1) for i in range(len(queries))]
        else:
            parts = [slice(row), slice(row, row + 1), slice(row + 1, None)]
        return {k: v for p in parts for k, v in self.those_that_can(queries[p], places[p], on_error).items()}

    def _scored(self, queries: Sequence[Query]) -> list[Classification]:
        def score(prompts: list[Context]) -> list[ChoiceScores]:
            return self.contexts.backend.injector.score_batch(
                queries, prompts, self.choices, prompt_format=self.contexts.encoder.prompt_format
            )

        scores, named = fitting(self.contexts.of(queries, self.shots), self.shots, score)
        made = []
        for one, (_, keys) in zip(scores, named, strict=True):
            values = normalized(one, self.choices, self.normalize)
            label = self.choices[values.index(max(values))]
            made.append(
                Classification(label, dict(zip(self.choices, softmax(values), strict=True)), keys, one.prompt_tokens)
            )
        return made

    def _voted(self, queries: Sequence[Query]) -> list[Classification]:
        made, voted = [], list(self._shares(queries))
        for place, (shares, keys) in enumerate(voted):
            kept = {choice: shares.get(choice.strip(), 0.0) for choice in self.choices}
            if not (total := math.fsum(kept.values())):
                found = listed(list(shares)) or "none: there are no demonstrations"
                error = InputError(
                    f"none of the nearest demonstrations' answers ({found}) is a choice: {listed(self.choices)}.\n"
                    "Next: pass the answers of the demonstrations as choices, or more shots."
                )
                error.query = place
                raise error
            label = max(self.choices, key=kept.__getitem__)
            made.append(Classification(label, {choice: share / total for choice, share in kept.items()}, keys))
        names = {choice.strip() for choice in self.choices}
        for shares, _ in voted:
            self.astray.add(shares, names)
        return made

    def _shares(self, queries: Sequence[Query]) -> Iterator[tuple[dict[str, float], tuple[str, ...]]]:
        """Each query's votes, and the keys of the voters if they are the bank's."""
        bank, count = self.contexts.bank, self.shots.count
        if (given := self._given) is not None:
            apart = DemonstrationBank.in_memory(self.contexts.encoder)
            yield from ((shares, ()) for shares in votes_among(apart, queries, [given] * len(queries), count))
            return
        rule = self.shots.selector or self.contexts.selector
        for near in neighbours(bank, queries, count, where=rule.where, balance=rule.balance):
            yield vote([one.similarity for one in near], [one.answer for one in near]), tuple(one.key for one in near)

    @cached_property
    def _given(self) -> list[Demonstration] | None:
        """What every query is shown; None: a selector chooses from the bank."""
        return same_for_all(self.shots)


def classify(
    classifier: Classifier,
    images: Iterator[One],
    text: str | None,
    *,
    held: Sequence[Demonstration],
    batch_size: int,
    done: Callable[[int], None],
    on_error: OnError | None,
) -> list[Classification]:
    """Label images as they come, batch after batch; `done` is called with each batch's size.

    Without a `text`, an image that is not a query or a pair is asked with the text of the demonstrations `held`.
    """
    made: dict[int, Classification] = {}
    start = 0
    check_on_error(on_error)
    classifier.announce()
    while batch := list(islice(images, batch_size)):
        queries: list[Query] = []
        places: list[int] = []
        if text is None and not all(isinstance(image, Query | tuple) for image in batch):
            text = text_of(held)
        for place, image in enumerate(batch, start):
            try:
                queries.append(query_of(image) if isinstance(image, Query | tuple) else Query(image, text or ""))
                places.append(place)
            except InputError as error:
                error.query = place
                if on_error is None:
                    raise
                on_error(place, error)
                made[place] = Classification(None, error=str(error), image=image_of(image))
        if on_error is not None:
            made |= classifier.those_that_can(queries, places, on_error)
        else:
            try:
                made |= zip(places, classifier.batch(queries), strict=True)
            except InputError as error:
                if error.query is not None:  # its place in the batch
                    error.query = places[error.query]
                raise
        start += len(batch)
        done(len(batch))
    classifier.conclude()
    return [made[place] for place in range(start)]


def images_of(images: Images) -> tuple[Iterator[One], int | None]:
    """One image, all images of a folder, or any iterable of images; and how many there are, if known.

    Raises:
        InputError: it is a table or a mapping instead of a column, or an iterator gave nothing.
    """
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        skipped = Skipped(Path(images))
        found: list[One] = [str(image) for image in folder_images(Path(images), skipped)]
        if not found:
            raise InputError(f"{images}: no images in this folder or below it.{_next_line(skipped.images)}")
        if skipped.images:
            warnings.warn(skipped.images, FolderWarning, stacklevel=3)
        return iter(found), len(found)
    if isinstance(images, str | os.PathLike | bytes | bytearray | Query) or not isinstance(images, Iterable):
        return iter([images]), 1  # a PIL image is not iterable
    if isinstance(images, Mapping) or hasattr(images, "columns"):
        columns = ", ".join(map(str, getattr(images, "columns", images)))
        raise InputError(f"classify: expected one column of images, not a table; pass table[...], of: {columns}.")
    if isinstance(images, Sized):
        return iter(images), len(images)
    given = iter(images)
    if not (first := list(islice(given, 1))):
        raise gave_nothing("images", images)
    return chain(first, given), None


def image_of(given: One) -> ImageInput:
    """The image of a query, of a pair, or itself."""
    return given.image if isinstance(given, Query) else given[0] if isinstance(given, tuple) else given


def _next_line(text: str | None) -> str:
    return f"\n{text}" if text else ""
