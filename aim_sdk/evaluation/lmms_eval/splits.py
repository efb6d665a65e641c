"""The documents of a split of a task's data, as demonstrations."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aim_sdk.errors import ImageError, InputError, unknown
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.lmms_eval.arguments import text_of
from aim_sdk.files.images import load_image

_MEDIA: Final = ("Image(", "Audio(", "Video(")
"""What is decoded at every look at a document: left out where only its texts are needed."""
_OWN: Final = "Or bring demonstrations of your own: bank=FOLDER (`aim-icl bank add`)."


class Split(Sequence[Item]):
    """A split of a task's data: each document as an item, made when it is asked for.

    Args:
        task: lmms-eval's task, whose ``doc_to_text``, ``doc_to_target`` and ``doc_to_visual`` are used.
        name: the split's.
        answer: the column that holds the answers; None: ``doc_to_target`` gives them.

    Raises:
        InputError: nothing gives an answer.
    """

    def __init__(self, task: Any, name: str, answer: str | None = None) -> None:
        self.task, self.name, self.answer = task, name, answer
        self.documents = task.dataset[name]
        if task.config.process_docs is not None and name not in _prepared(task):
            self.documents = task.config.process_docs(self.documents)
        columns = self.documents.column_names
        if answer is not None and answer not in columns:
            raise InputError(f"task {self._task}, fewshot_answer: {unknown('column', answer, columns)}")
        if answer is None and is_constant(task.config.doc_to_target, [*columns, *task.features]):
            raise InputError(
                f"task {self._task}: doc_to_target is {task.config.doc_to_target!r} for every document, which is no "
                f"answer to show.\nNext: name the column that holds them: --model_args "
                f"...,fewshot_answer=COLUMN; the columns are {', '.join(columns)}. {_OWN}"
            )
        media = [column for column, kind in self.documents.features.items() if any(m in repr(kind) for m in _MEDIA)]
        self._texts = self.documents.remove_columns(media) if media else self.documents

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, place: Any) -> Any:
        document = self._texts[place]
        text = self._said("doc_to_text", self.task.doc_to_text, document, place)
        if not isinstance(text, str):
            raise InputError(f"{self.at(place)}: doc_to_text gives {type(text).__name__}; expected a string.")
        return Item(
            f"{self.name}/{place}",
            DocumentImage(self, place),
            text_of(text),
            self._answers(document, place),
            named=True,
        )

    def at(self, place: int) -> str:
        """What a document is called in messages."""
        return f"task {self._task}, document {place} of split {self.name!r}"

    def image(self, place: int) -> bytes:
        """A document's image, as a file.

        Raises:
            InputError: it has none, or several.
            ImageError: it cannot be decoded.
        """
        document = self.documents[place]
        return image_file(self._said("doc_to_visual", self.task.doc_to_visual, document, place), self.at(place))

    @property
    def _task(self) -> str:
        return str(self.task.config.task)

    def _answers(self, document: Any, place: int) -> tuple[str, ...]:
        column = self.answer
        if column is None:
            found = self._said("doc_to_target", self.task.doc_to_target, document, place)
        else:
            found = document[column]
        if self.task.config.doc_to_choice is not None:
            choices = self._said("doc_to_choice", self.task.doc_to_choice, document, place)
        else:
            choices = []
        answers = []
        for one in found if isinstance(found, list | tuple) else [found]:
            answer = one
            if choices and isinstance(one, int):
                answer = choices[one] if 0 <= one < len(choices) else None
            if not isinstance(answer, str | int | float) or not str(answer).strip():
                raise InputError(
                    f"{self.at(place)}: {column or 'doc_to_target'} gives {one!r}; expected an answer to show.\n"
                    f"Next: name another column, --model_args ...,fewshot_answer=COLUMN (one of "
                    f"{', '.join(self.documents.column_names)}), or another fewshot_split. {_OWN}"
                )
            answers.append(str(answer).strip())
        if not answers:
            raise InputError(f"{self.at(place)}: {column or 'doc_to_target'} gives no answer. {_OWN}")
        return tuple(answers)

    def _said(self, name: str, function: Callable[[Any], Any], document: Any, place: int) -> Any:
        """What one of the task's functions says of a document; they were written for the split that is evaluated."""
        try:
            return function(document)
        except Exception as error:
            raise InputError(
                f"{self.at(place)}: the task's {name} fails ({type(error).__name__}: {error}). {_OWN}"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class DocumentImage:
    """A document's image, decoded when it is needed (a `LazyImage`)."""

    split: Split
    place: int

    def __repr__(self) -> str:
        return f"image of {self.split.at(self.place)}"

    def image_file(self) -> bytes:
        """See `Split.image`."""
        return self.split.image(self.place)


def image_file(visuals: Any, name: str) -> bytes:
    """The one image of a document, as a file (PPM: nothing is lost, and it costs no time); equal pixels, equal bytes.

    Raises:
        InputError: there is none, or there are several.
        ImageError: it cannot be decoded.
    """
    found = list(visuals or [])
    if len(found) != 1:
        raise InputError(
            f"{name}: {len(found)} images; model aim shows one per demonstration and per query. "
            "Next: a task of single-image documents, or one of lmms-eval's own models."
        )
    try:
        image = load_image(found[0])
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    file = io.BytesIO()
    image.save(file, "PPM")
    return file.getvalue()


def evaluated(task: Any) -> str:
    """The split that lmms-eval evaluates."""
    return str(task.config.test_split or task.config.validation_split)


def split_of(task: Any, named: str | None) -> str:
    """The name of the split that demonstrations come from: the one that was named, or the task's own for it.

    Raises:
        InputError: the data has no such split, or the task names none but the one that is evaluated.
    """
    config, there = task.config, list(task.dataset)
    if named is not None:
        if named not in there:
            raise InputError(f"task {config.task}, fewshot_split: {unknown('split', named, there)}")
        return named
    for name in (config.fewshot_split, config.training_split, config.validation_split):
        if name in there and (name != evaluated(task) or name == config.fewshot_split):
            return str(name)
    others = [f"{name} ({len(task.dataset[name])} documents)" for name in there if name != evaluated(task)]
    what = f"Its data also has: {', '.join(others)}." if others else "Its data has no other split."
    raise InputError(
        f"task {config.task} has no training split: it names none but {evaluated(task)!r}, which is evaluated. {what}\n"
        f"Next: name one, --model_args ...,fewshot_split={others[0].split()[0] if others else evaluated(task)}"
        f"{'' if others else ' (a document is never shown to itself)'}. {_OWN}"
    )


def is_constant(target: Any, columns: Sequence[str]) -> bool:
    """Whether a ``doc_to_target`` says the same of every document: tasks that score otherwise often fill it in so."""
    if isinstance(target, str):
        return target not in columns and "{{" not in target and "{%" not in target
    return isinstance(target, int | list)


def _prepared(task: Any) -> list[str | None]:
    """The splits that lmms-eval has applied the task's ``process_docs`` to."""
    config = task.config
    return [config.training_split, config.validation_split, config.test_split, config.fewshot_split]
