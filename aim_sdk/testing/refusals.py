"""What cannot be taken is refused by name: texts that do not fit, and images that are not images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from aim_sdk.backend.capabilities import Interleaves, Trainable, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import ContextLengthError, ImageError, InputError
from aim_sdk.testing.compare import log_probs, require
from aim_sdk.testing.kit import CheckFailure, NotApplicable, check
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES, picture
from aim_sdk.types import Demonstration, ImageInput, Query

_WORDS = tuple(40 * 2**n for n in range(12))
_RUN = 2600
"""Tokens of prompts that are answered; of longer ones a forward may only begin."""
_PART = 0.8
"""Of what each word added before, a word of a longer text adds to the prompt at least."""


class _Begun(Exception):
    """The backbone was given a sequence that was expected to be refused before."""


@check
def check_too_long_is_refused(backend: Backend) -> None:
    """A prompt grows with its text, until it is refused with a `ContextLengthError` before a forward.

    Tried with queries, alone and in a batch, with fused tokens, with choices and with a demonstration that is read.
    Catches prompts that are cut silently, limits that no one checks, and errors of another type or query.
    """
    form, image = backend.default_format, QUERIES[0].image
    (fused,) = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=form)
    asked = QUERIES[0]

    def generate(queries: list[Query], shots: int = 0) -> Callable[[], Any]:
        contexts = [[fused] * shots for _ in queries]
        return lambda: backend.injector.generate(queries, contexts, prompt_format=form, max_new_tokens=1)

    words, tokens = _first_refused(backend)
    if not words:
        raise NotApplicable(f"a prompt of {_WORDS[-1]} words is answered: no limit of the context was met")
    text = _text(words)
    query, shot, shots = Query(image, text), Demonstration(image, text, "red"), 1 + tokens // len(fused)
    for what, call in {
        "a demonstration that is read": lambda: backend.reader.read([shot], prompt_format=form),
        "a query with choices": lambda: backend.injector.score(query, [], ["Yes", "No"], prompt_format=form),
        "a query, streamed": lambda: list(backend.injector.stream(query, [], prompt_format=form, max_new_tokens=1)),
    }.items():
        require(
            not _accepted(call, words, what), f"{what}, of {words} words, was given to the backbone; {_LONG_ADVICE}"
        )
    what = f"a context of up to {16 * shots} demonstrations' fused tokens"  # a text may have a limit of its own
    taken = all(_accepted(generate([asked], shots * times), words, what) for times in (1, 4, 16))
    require(
        not taken,
        f"{what} was given to the backbone, or a part of it: if no check of the length is missing, demonstrations are "
        f"dropped silently; {_LONG_ADVICE}",
    )
    for place in (1, 2):
        queries = [asked] * 3
        queries[place] = query
        _require_place(generate(queries), place, ContextLengthError, words)


@check
def check_bad_image_is_refused(backend: Backend) -> None:
    """What is not an image is refused with an `ImageError`, by reader and injector, and in a batch the query is named.

    Catches errors of the library that decodes, which end a whole run, and images that are replaced silently.
    """
    for what, image in {"bytes that are not images": b"no image", "half a file": _half()}.items():
        for name, call in _looks(backend, image):
            _require_image_error(call, f"{name}: {what}")
    bad = Query(b"no image", "What?")
    for place in (1, 2):
        queries = list(QUERIES)
        queries[place] = bad
        _require_place(partial(_generate, backend, queries), place, ImageError)


_LONG_ADVICE = "expected a ContextLengthError before that, because its cost grows with the square of the length"


def _looks(backend: Backend, image: ImageInput) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All calls that look at an image."""
    form, reader, injector = backend.default_format, backend.reader, backend.injector
    shot, query = Demonstration(image, "What?", "red"), Query(image, "What?")
    yield "read", lambda: reader.read([DEMONSTRATIONS[0], shot], prompt_format=form)
    yield "prepare", lambda: reader.run(reader.prepare([shot], prompt_format=form))
    yield "generate", lambda: _generate(backend, [query])
    yield "stream", lambda: list(injector.stream(query, [], prompt_format=form, max_new_tokens=1))
    yield "score", lambda: injector.score(query, [], ["Yes"], prompt_format=form)
    if find(backend, Trainable) is not None:
        yield "log_probs", lambda: log_probs(backend, [query], [[]], ["Yes"], prompt_format=form)
    if find(backend, Interleaves) is not None:
        yield (
            "generate after a demonstration",
            lambda: injector.generate(QUERIES[:1], [[shot]], prompt_format=form, max_new_tokens=1),
        )


def _generate(backend: Backend, queries: list[Query]) -> Any:
    return backend.injector.generate(
        queries, [[]] * len(queries), prompt_format=backend.default_format, max_new_tokens=1
    )


def _first_refused(backend: Backend) -> tuple[int, int]:
    """Words of the first text that does not fit, and about how many tokens they are; 0 if all fit."""
    before, count, each = 0, 0, 0.0
    for words in _WORDS:
        query = Query(QUERIES[0].image, _text(words))
        made: list[Any] = []

        def ask(query: Query = query, made: list[Any] = made) -> None:
            made += _generate(backend, [query])

        if not _accepted(ask, words if each * words > _RUN else 1 << 30, f"a query of {words} words"):
            return words, int(each * words)
        if not made:
            continue
        more = (made[0].prompt_tokens - count) / (words - before)
        require(
            more >= (_PART * each or 0.5) or not before,
            f"a query of {words} words makes a prompt of {made[0].prompt_tokens} tokens, one of {before} words a "
            f"prompt of {count}: is a text cut silently?",
        )
        before, count, each = words, made[0].prompt_tokens, more if before else 0.0
    return 0, 0


def _accepted(call: Callable[[], Any], words: int, what: str) -> bool:
    """Whether the backbone is given that many words; False if they are refused as they should be."""
    try:
        with _before_long_forwards(words):
            call()
    except ContextLengthError:
        return False
    except _Begun:
        return True
    except Exception as error:
        raise CheckFailure(
            f"{what} raises {type(error).__name__}: {str(error)[:300]}\nExpected a ContextLengthError, or an answer"
        ) from error
    return True


def _require_image_error(call: Callable[[], Any], what: str) -> None:
    try:
        found = call()
    except ImageError:
        return
    except Exception as error:
        raise CheckFailure(
            f"{what}: it raises {type(error).__name__}: {str(error)[:300]}\nExpected an ImageError"
        ) from error
    raise CheckFailure(f"{what}: it gives {str(found)[:200]}; expected an ImageError")


def _require_place(call: Callable[[], Any], place: int, kind: type[InputError], words: int = 0) -> None:
    """Require the error of a batch to name the query that it is about."""
    try:
        with _before_long_forwards(words or 1 << 30):
            call()
    except kind as error:
        found = error.query
        require(
            found == place,
            f"query {place} of a batch of 3 raises {kind.__name__}, and its `query` is {found}; expected {place}",
        )
    except Exception as error:
        raise CheckFailure(
            f"query {place} of a batch of 3 raises {type(error).__name__}: {str(error)[:300]}\n"
            f"Expected {kind.__name__} with `query` {place}"
        ) from error
    else:
        raise CheckFailure(f"query {place} of a batch of 3 raises nothing; expected {kind.__name__}")


@contextmanager
def _before_long_forwards(tokens: int) -> Iterator[None]:
    """Raise `_Begun` before a torch module is given that many vectors: the refusal must come earlier."""

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        given = [value for value in args if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1]
        if any(tokens <= side for value in given for side in value.shape[:-1]):
            raise _Begun

    handle = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _text(words: int) -> str:
    """A text of that many words, in an order that repeats late."""
    some = ("the", "red", "fox", "sees", "a", "cat", "and", "one", "dog", "in", "it")
    return " ".join(some[n * n % len(some)] for n in range(words))


def _half() -> ImageInput:
    """The first half of a picture's file."""
    file = io.BytesIO()
    picture(64, 64, 30).save(file, "PNG")
    return file.getvalue()[: file.tell() // 2]
