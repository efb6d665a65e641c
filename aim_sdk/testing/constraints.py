"""Constrained answers are what was asked for, and what the model would have said if that is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final

import torch

from aim_sdk.backend.capabilities import ConstrainsAnswers, HasVocabulary, capability
from aim_sdk.backend.constraints import Constraint, JsonSchema, OneOf
from aim_sdk.backend.injector import Injector
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CutAnswerError, InputError, MissingDependencyError
from aim_sdk.testing.compare import require, require_close, spelled
from aim_sdk.testing.kit import NotApplicable, check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES
from aim_sdk.testing.steering import saying
from aim_sdk.testing.ties import is_tie
from aim_sdk.types import Demonstration, Generation

_PLAIN = PromptFormat.plain("{image}Q: {text}\nA: {answer}\n")
_CHOICES: Final = ("a catfish", "a cat", "a", "Gr\u00fc\u00dfe \u2603 \u732b", "no\nline", " 7 of them ")
"""Beginnings of one another, letters of several bytes, two lines, blanks around one."""
_SAID = "a catfish"
_KINDS = ("lynx", "owl \u732b")
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"kind": {"$ref": "#/$defs/kind"}},
    "required": ["kind"],
    "additionalProperties": False,
    "$defs": {"kind": {"enum": list(_KINDS)}},
}
_LONG = 400
"""More tokens than any JSON of the schema has."""


@check
@needs(ConstrainsAnswers)
@close("tokens", float32=0, bfloat16=0.03, float16=0.008)
def check_choices_are_kept(backend: Backend) -> None:
    """With choices, each answer is one of them: in a batch, alone, streamed, after fused tokens, at any limit.

    Catches choices that are cut by `max_new_tokens` or by a stop string inside them, answers that end after the
    beginning of a choice, blanks that tokenizers put before a word, and rows of a batch that share one state.
    """
    fused = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=backend.default_format)
    plain = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=_PLAIN)
    for choices, form, context in (
        (_CHOICES, backend.default_format, fused),
        (_CHOICES, _PLAIN, plain),
        (_CHOICES[:1], _PLAIN, []),
    ):
        injector = _constrained(backend, OneOf(choices))
        options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": 1}
        batch = injector.generate(QUERIES[:2], [context, []], **options)
        for made in batch:
            require(made.text in choices, f"the answer is {made.text!r}, none of {list(choices)}, in {spelled(form)}")
        (alone,) = injector.generate(QUERIES[:1], [context], **options)
        require(
            batch[0].text == alone.text or is_tie(backend, QUERIES[0], context, batch[0], alone, prompt_format=form),
            f"a batch gives the choice {batch[0].text!r}, alone it is {alone.text!r}",
        )
        streamed = "".join(injector.stream(QUERIES[0], context, **options))
        require(streamed == alone.text, f"the stream gives {streamed!r}, generate {alone.text!r}")


@check
@needs(ConstrainsAnswers)
def check_schema_is_kept(backend: Backend) -> None:
    """With a schema, each answer is JSON of it, whole or refused; a schema that is not valid is refused at once.

    Catches JSON that is cut by `max_new_tokens` or by the format's stop string and returned all the same, and
    constraints that are left for the next call.
    """
    injector, form = _constrained(backend, JsonSchema.of(_SCHEMA)), backend.default_format
    context = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    before = _answers(backend.injector, form, context, 4)
    for one in (*_answers(injector, form, context, _LONG), *_answers(injector, _PLAIN, [], _LONG)[:1]):
        _require_json(one.text)
    (alone,) = injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=_LONG)
    options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": len(alone.token_ids)}
    streamed = "".join(injector.stream(QUERIES[0], context, **options))
    require(streamed == alone.text, f"the stream gives {streamed!r}, generate {alone.text!r}")
    options["max_new_tokens"] = 2
    _require_cut(lambda: _answers(injector, form, context, 2))
    _require_cut(lambda: list(injector.stream(QUERIES[0], context, **options)))
    after = _answers(backend.injector, form, context, 4)
    require(
        [one.token_ids for one in before] == [one.token_ids for one in after],
        "after constrained answers, the unconstrained ones are others",
    )
    try:
        capability(backend, ConstrainsAnswers).constrained(JsonSchema('{"type": "no such type"}'))
    except InputError:
        return
    require(False, "a schema of the type 'no such type' is accepted; expected an InputError")


@check
@needs(ConstrainsAnswers, HasVocabulary)
@close("log-probabilities", bfloat16=0.004, float16=0.0005)
def check_constrained_is_free(backend: Backend) -> None:
    """What the model says, if it is allowed, it says in the same tokens, of the same probabilities, as unconstrained.

    Catches constraints that force another spelling in tokens, another blank before the answer, or the shortest choice.
    The model is made to say one of the choices (its LM head's output is changed), which another one begins with.
    """
    seen: list[str] = []
    for form in (_PLAIN, backend.default_format):
        item = Demonstration(QUERIES[0].image, QUERIES[0].text, _SAID)
        (reading,) = backend.reader.read([item], prompt_format=form, with_images=False)
        ids = reading.token_ids[reading.answer_start :].tolist()
        options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": len(ids), "log_probs": True}
        with saying(backend, ids):
            (free,) = backend.injector.generate(QUERIES[:1], [[]], **options)
        seen.append(free.text)
        if free.text != _SAID:
            continue
        with saying(backend, ids):
            (made,) = _constrained(backend, OneOf(_CHOICES[:3])).generate([*QUERIES[:1]], [[]], **options)
        _require_free(backend, made, free)
    if _SAID not in seen:
        raise NotApplicable(f"the model cannot be made to say {_SAID!r} by its LM head's output; it said {seen}")


def _require_free(backend: Backend, made: Generation, free: Generation) -> None:
    require(made.text == _SAID, f"made to say {_SAID!r}, it says {made.text!r} out of {list(_CHOICES[:3])}")
    same = sum(one == other for one, other in zip_longest(made.token_ids, free.token_ids))
    require(
        same >= min(len(made.token_ids), len(free.token_ids)),
        f"made to say {_SAID!r}, it says the tokens {free.token_ids}, with choices {made.token_ids}",
    )
    if made.log_probs is None or free.log_probs is None:
        require(False, "log_probs=True gives no log-probabilities")
        return
    found, expected = torch.tensor(made.log_probs)[:same], torch.tensor(free.log_probs)[:same]
    require_close(found, expected, backend, "log-probabilities with choices, and without")


def _constrained(backend: Backend, constraint: Constraint) -> Injector:
    try:
        return capability(backend, ConstrainsAnswers).constrained(constraint)
    except MissingDependencyError as error:
        raise NotApplicable(str(error)) from error


def _answers(injector: Injector, form: PromptFormat, context: Sequence[Any], limit: int) -> list[Generation]:
    return injector.generate(QUERIES[:2], [context, []], prompt_format=form, max_new_tokens=limit)


def _require_cut(call: Callable[[], object]) -> None:
    try:
        made = call()
    except CutAnswerError:
        return
    require(False, f"2 tokens are not JSON of the schema, but the answer is {made}; expected a CutAnswerError")


def _require_json(text: str) -> None:
    try:
        found = json.loads(text)
    except ValueError as error:
        require(False, f"the answer {text!r} is not JSON: {error}")
        return
    require(
        found in [{"kind": kind} for kind in _KINDS] and text == text.strip(),
        f"the answer {text!r} is not of the schema {_SCHEMA}, or has blanks around it",
    )
