"""The format of the VQA challenge, a file of questions and one of annotations: VQAv2, OK-VQA."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Dataset, Item
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.evaluation.tasks.files import Id, Options, TaskFiles, TaskRecord, Text


class _VqaOptions(Options):
    query_image: str
    support_image: str


@dataclass(frozen=True, slots=True)  # there are millions: a record of pydantic's takes ten times the memory
class _VqaQuestion:
    question_id: Id
    image_id: int
    question: str


class _Questions(TaskRecord):
    questions: list[_VqaQuestion]


@dataclass(frozen=True, slots=True)
class _VqaAnswer:
    answer: Text


@dataclass(frozen=True, slots=True)
class _Annotation:
    question_id: Id
    answers: Annotated[list[_VqaAnswer], Field(min_length=1)]


class _VqaAnnotations(TaskRecord):
    annotations: list[_Annotation]


def load(config: TaskConfig, folder: Path) -> Dataset:
    """Read ``query_questions``, ``query_annotations``, ``query_images`` and the same three of the support.

    Options: ``query_image`` and ``support_image``, the format of an image's name from its number.

    Raises:
        InputError: besides what damage raises, a question has no annotation.
    """
    files = TaskFiles(config, folder)
    options = files.options(_VqaOptions)
    queries = _items(files, "query", options.query_image)
    return files.dataset(queries, _items(files, "support", options.support_image))


def _items(files: TaskFiles, part: str, name: str) -> list[Item]:
    questions = files.read(f"{part}_questions", _Questions).questions
    answers = _answers(files, f"{part}_annotations")
    if unasked := answers.keys() - {question.question_id for question in questions}:
        some = sorted(unasked)
        files.warn(
            f"{len(some):,} of {len(answers):,} annotations in {files.path(f'{part}_annotations')} have no question in "
            f"{files.path(f'{part}_questions').name} and are left out: {', '.join(some[:3])}"
            f"{', ...' if len(some) > 3 else ''}."
        )
    images = files.path(f"{part}_images")
    for question in questions:
        if question.question_id not in answers:
            raise InputError(
                f"task {files.config.name!r}: {files.path(f'{part}_annotations')} has no annotation of question "
                f"{question.question_id}; does it belong to {files.path(f'{part}_questions').name}?"
            )
    return [
        Item(q.question_id, files.image(images, name.format(q.image_id)), q.question, answers[q.question_id])
        for q in questions
    ]


def _answers(files: TaskFiles, name: str) -> dict[str, tuple[str, ...]]:
    """The annotators' answers by question. Most of VQAv2's six million are a few words: each is kept once."""
    return {
        annotation.question_id: tuple(sys.intern(answer.answer) for answer in annotation.answers)
        for annotation in files.read(name, _VqaAnnotations).annotations
    }
