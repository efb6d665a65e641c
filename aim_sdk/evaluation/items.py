"""What datasets hold and what metrics see."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aim_sdk.types import ImageInput


@dataclass(frozen=True, slots=True)
class Item:
    """One annotated example of a dataset; usable as a query and as a demonstration.

    Images are paths: nothing is decoded before it is needed.
    """

    id: str
    """The dataset's own; unique within its split."""
    image: ImageInput
    text: str
    """A question, the words on a meme, ...; empty for captions."""
    answers: tuple[str, ...]
    """All references, in the file's order: captions, annotators' answers (equal ones repeated), a label; never
    empty."""
    choices: tuple[str, ...] = ()
    """The possible answers, if they are scored by their log-probabilities instead of generated."""
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict, hash=False)
    named: bool = False
    """Whether the source gives the id: then a query and a demonstration with the same id are the same example."""
    demonstrations: tuple[str, ...] = ()
    """Ids of the support: a query's own demonstrations, in the order of the prompt, if its file names them."""


Draw = Callable[[Item, int, random.Random], Sequence[Item]]
"""A query's k demonstrations, in the order of the prompt; the same random state gives the same ones."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The two parts of a task's data."""

    queries: Sequence[Item]
    support: Sequence[Item]
    """What demonstrations are drawn from; a query's own example may be among them, and is not shown to it."""
    draw: Draw | None = None
    """How the benchmark's own code chooses demonstrations, where each query brings candidates of its own."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A query with what was answered."""

    item: Item
    text: str
    """Cut as the protocol says; the most probable choice, if choices were scored."""
    log_probs: tuple[float, ...] | None = None
    """Of each of the item's choices (natural log, normalised as the protocol says), if they were scored."""
