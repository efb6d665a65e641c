"""Where the answer starts and where the image stood, exactly; and that a reading's states are what is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aim_sdk.backend.capabilities import HasVocabulary, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError
from aim_sdk.testing.compare import require, require_close, spelled, tolerance
from aim_sdk.testing.kit import CheckFailure, heart, needs
from aim_sdk.testing.layouts import IMAGE_FIRST, TEXT_FIRST
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import DEMONSTRATIONS, PICTURES, SYSTEM
from aim_sdk.types import Demonstration, Query, Reading

_ANSWERS = ("red", "Blue", "7", "it is", "No", "(x)")
"""Their first tokens differ."""
_CAPS = (30.0, 50.0)
_PLAIN = tuple(
    PromptFormat.plain(template) for template in (IMAGE_FIRST[0], TEXT_FIRST[0], "{text} {image} = {answer}\n")
)


@heart
def check_answer_start(backend: Backend) -> None:
    """`answer_start` is the first token that differs between answers which share no first token.

    Catches an answer that starts a token late or early, or at its role marker: a projector looks for the image's
    content on the token before it.
    """
    image, text = DEMONSTRATIONS[0].image, DEMONSTRATIONS[0].text
    for form in (backend.default_format, *_PLAIN[:2]):
        items = [Demonstration(image, text, answer) for answer in _ANSWERS]
        readings = backend.reader.read(items, prompt_format=form, with_images=False)
        ids = [reading.token_ids.tolist() for reading in readings]
        shared = min(_common(ids[0], other) for other in ids[1:])
        alike = Counter(row[shared] for row in ids)  # a blank that is a token of its own before some answers
        found = [reading.answer_start for reading in readings]
        require(
            all(start - shared in range(1 + (alike[row[shared]] > 1)) for start, row in zip(found, ids, strict=True)),
            f"the tokens of the answers {', '.join(_ANSWERS)} are the same before token {shared}, and `answer_start` "
            f"is {found} in {spelled(form)}: {ids[0]}, {ids[1]}",
        )


@heart
@close("states", bfloat16=0.03, float16=0.008)
def check_image_position(backend: Backend) -> None:
    """`image_position` is the first text token whose state another image changes, wherever a format puts the image.

    Catches an image that is said to stand where it does not: the carrier token is put there.
    """
    first = DEMONSTRATIONS[0]
    for form in (backend.default_format, *_PLAIN):
        one, other = (
            backend.reader.read([replace(first, image=image)], prompt_format=form)[0]
            for image in (first.image, PICTURES[0])
        )
        apart = (one.hidden.float() - other.hidden.float()).abs().amax(1)
        changed = apart > tolerance(backend, one.hidden)
        require(bool(changed.any()), f"another image changes no state of {first.text!r} in {spelled(form)}")
        place = int(changed.int().argmax())
        require(
            one.image_position == other.image_position == place,
            f"another image changes the states from token {place} on, and `image_position` is {one.image_position} "
            f"in {spelled(form)}: tokens {one.token_ids.tolist()}",
        )


@heart
@needs(HasVocabulary)
@close("log-probabilities", bfloat16=0.015, float16=0.003)
def check_reading_is_scored(backend: Backend) -> None:
    """The LM head on a reading's states gives the scores of its answer after the same image and text.

    Catches a reader that writes another prompt than the injector (no system text or BOS, another image), states of
    another layer or before the final norm, scores of other tokens, without the answer's blank, not normalised, tempered
    or in another base. A head may scale its logits, or cap them as Gemma does.
    """
    plain = _PLAIN[0]
    _require_scores(backend, [plain, plain.model_copy(update={"system": SYSTEM})])


@heart
@needs(HasVocabulary)
@close("log-probabilities", bfloat16=0.015, float16=0.003)
def check_reading_is_scored_in_chat(backend: Backend) -> None:
    """The same in the default format, alone and with a system text.

    Catches a reader that leaves the chat template's system text out, or writes its turns in another way than a query's.
    A template may do that itself: a thought or a blank that opens the last answer of a conversation alone.
    """
    _require_scores(backend, list(_with_system(backend)))


def _require_scores(backend: Backend, forms: Sequence[PromptFormat]) -> None:
    """Compare in every format, and say in which it fails and in which it does not."""
    item = replace(DEMONSTRATIONS[2], image=PICTURES[1])
    failures: dict[str, CheckFailure] = {}
    agreed = []
    for form in forms:
        (reading,) = backend.reader.read([item], prompt_format=form)
        (scores,) = backend.injector.score(Query(item.image, item.text), [], [item.answer], prompt_format=form)
        name = f"the {form.kind} format {'with' if form.system else 'without'} a system text"
        try:
            _require_scored(backend, reading, torch.tensor(scores), form)
        except CheckFailure as failure:
            failures[name] = failure
        else:
            agreed.append(name)
    if failures:
        raise CheckFailure(
            f"it fails in {' and in '.join(failures)}; it holds in {' and in '.join(agreed) or 'no format'}.\n"
            + "\n".join(map(str, failures.values()))
        )


def _require_scored(backend: Backend, reading: Reading, scores: Tensor, form: PromptFormat) -> None:
    failures, outputs = [], capability(backend, HasVocabulary).vocabulary.outputs
    for start in (reading.answer_start, reading.answer_start - 1):  # a format's blank may be a token of its own
        ids = reading.token_ids[start : start + len(scores)].to(reading.hidden.device)
        states = reading.hidden[start - 1 : start - 1 + len(ids)].float()
        for logits in _heads(states @ outputs.detach().float().T.to(states.device), states.shape[-1]):
            found = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0].cpu()
            try:
                what = (
                    f"after {DEMONSTRATIONS[2].text!r} the LM head on the reading's states gives the answer's tokens "
                    f"{ids.tolist()} the log-probabilities {_short(found)}, `score` gives {_short(scores)}, in "
                    f"{spelled(form)}"
                )
                require_close(found, scores, backend, what)
            except CheckFailure as failure:
                failures.append(failure)
            else:
                return
    raise failures[0]


def _short(numbers: Tensor) -> list[float]:
    return [round(number, 3) for number in numbers.tolist()[:8]]


def _heads(logits: Tensor, width: int) -> Iterator[Tensor]:
    """Logits as they are, and as some families change them."""
    yield logits
    for cap in _CAPS:
        yield cap * torch.tanh(logits / cap)
    yield logits / 8  # HyperCLOVA X
    yield logits / 16  # Cohere
    yield 20 * torch.tanh(logits * (256 / width) ** 0.5 / 20)  # Muse


def _with_system(backend: Backend) -> Iterator[PromptFormat]:
    form = backend.default_format
    yield form
    other = form.model_copy(update={"system": SYSTEM})
    try:
        backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=other)
    except FormatError:  # a template that knows no system text
        return
    yield other


def _common(one: list[int], other: list[int]) -> int:
    """How many first tokens two texts share."""
    return next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
