"""A reading belongs to its demonstration alone, covers its text tokens, and has seen its image."""

from __future__ import annotations

import torch

from aim_sdk.backend.capabilities import HasVocabulary, ReadsLayers, find, why_not
from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.layers import LAST
from aim_sdk.testing.compare import require, require_close
from aim_sdk.testing.kit import Refused, check, heart
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import DEMONSTRATIONS, PICTURES, SHOTS
from aim_sdk.types import Demonstration


@heart
@close("states", bfloat16=0.06, float16=0.01)
def check_reading_alone(backend: Backend) -> None:
    """A demonstration reads the same alone and in a batch of unlike ones.

    Catches padding that shifts positions or is attended to, and rows that see each other.
    """
    form = backend.default_format
    unequal = [
        Demonstration(image, item.text, item.answer) for image, item in zip(PICTURES, DEMONSTRATIONS, strict=False)
    ]
    batches = [SHOTS, unequal]  # small pictures; a large, an oblong and an upright one
    pairs = [pair for b in batches for pair in zip(b, backend.reader.read(b, prompt_format=form), strict=True)]
    for demonstration, found in pairs:
        (alone,) = backend.reader.read([demonstration], prompt_format=form)
        require(torch.equal(alone.token_ids, found.token_ids), f"{demonstration.text!r}: other tokens in a batch")
        what = f"hidden states of {demonstration.text!r} in a batch and alone"
        require_close(found.hidden, alone.hidden, backend, what)


@heart
def check_reading_is_the_text(backend: Backend) -> None:
    """A reading covers exactly the tokens of its text-only demonstration, with their true embeddings.

    Catches image tokens, BOS or a system prompt that are counted as text, and texts that are cut: the control would be
    another prompt.
    """
    form = backend.default_format
    seen = backend.reader.read(SHOTS, prompt_format=form)
    blind = backend.reader.read(SHOTS, prompt_format=form, with_images=False)
    text = backend.reader.text_only(SHOTS, prompt_format=form)
    showing = find(backend, HasVocabulary)
    for demonstration, reading, without, tokens in zip(SHOTS, seen, blind, text, strict=True):
        what = repr(demonstration.text)
        require(torch.equal(reading.token_ids, without.token_ids), f"{what}: other tokens without its image")
        require(torch.equal(reading.embeddings, tokens.embeddings), f"{what}: embeddings are not its text's")
        require(len(reading.hidden) == len(reading), f"{what}: {len(reading.hidden)} states, {len(reading)} tokens")
        image, answer = reading.image_position, reading.answer_start
        ordered = 0 <= image <= answer < len(reading)
        require(ordered, f"{what}: image at {image}, answer at {answer} of {len(reading)} tokens")
        if showing is not None:
            table = showing.vocabulary.inputs
            rows = table[reading.token_ids.to(table.device)]
            require(
                torch.equal(rows, reading.embeddings), f"{what}: embeddings are not the rows of `vocabulary.inputs`"
            )


@heart
@close("states", bfloat16=0.02, float16=0.004)
def check_reading_before_the_answer(backend: Backend) -> None:
    """What is read before ``answer_start`` does not depend on the rest of the answer.

    Catches an answer that starts too late, and backbones whose text sees what comes after it (prefix LMs): a projector
    would learn to copy the answer from a position where a query has none.
    """
    first = DEMONSTRATIONS[0]
    other = Demonstration(first.image, first.text, f"{first.answer} and quite another thing")
    readings = [backend.reader.read([item], prompt_format=backend.default_format)[0] for item in (first, other)]
    starts = [reading.answer_start for reading in readings]
    require(starts[0] == starts[1], f"the answers start at {starts[0]} and {starts[1]}; expected the same place")
    require_close(
        readings[0].hidden[: starts[0]], readings[1].hidden[: starts[0]], backend, "states before two different answers"
    )


@heart
def check_image_reaches_the_reading(backend: Backend) -> None:
    """The state before the answer has seen the image, and the text-only control has not.

    Catches an image that is dropped, or read into the control.
    """
    form, first = backend.default_format, DEMONSTRATIONS[0]
    turned = Demonstration(DEMONSTRATIONS[1].image, first.text, first.answer)
    for with_images in (True, False):
        one, other = (
            backend.reader.read([item], prompt_format=form, with_images=with_images)[0] for item in (first, turned)
        )
        last = one.answer_start - 1
        apart = float((one.hidden[last] - other.hidden[last]).abs().max())
        message = "has not seen the image" if with_images else "has seen an image that was not to be read"
        require((apart > 1e-3) == with_images, f"the state before the answer {message} (difference {apart:.2g})")


@check
@close("states", bfloat16=0.004, float16=0.0005)
def check_reading_layers(backend: Backend) -> None:
    """Layers are those that are asked for: the last is the usual reading, and layer 0 has seen no other text token.

    Catches layers that are off by one or in another order, a last layer before the final norm, and layers that are cut
    at other tokens than the last one. A family may add positions to layer 0, or look at the image before it. A reader
    that gives the last layer alone refuses others.
    """
    reader, form = backend.reader, backend.default_format
    reason = why_not(backend, ReadsLayers)
    try:
        both = reader.read(DEMONSTRATIONS, prompt_format=form, layers=(0, -1))
    except CapabilityError as error:
        raise Refused(str(error)) from error
    require(reason is None, f"it says that it cannot read other layers ({reason}), and did")
    usual = reader.read(DEMONSTRATIONS, prompt_format=form)
    last = reader.read(DEMONSTRATIONS, prompt_format=form, layers=LAST)
    for two, one, named in zip(both, usual, last, strict=True):
        width = one.hidden.shape[1]
        require(two.hidden.shape[1] == 2 * width, f"two layers are {two.hidden.shape[1]} wide, one {width}")
        require_close(named.hidden, one.hidden, backend, "the last layer, and what is read by default")
        require_close(two.hidden[:, width:], one.hidden, backend, "the last layer after layer 0, and alone")
    _require_unmixed(backend)
    try:
        reader.read(DEMONSTRATIONS[:1], prompt_format=form, layers=(10_000,))
    except InputError:
        return
    require(False, "layer 10000 was read; expected an InputError")


def _require_unmixed(backend: Backend) -> None:
    """Where two answers have the same token, layer 0 has the same state, whatever comes before it."""
    image, text = DEMONSTRATIONS[0].image, DEMONSTRATIONS[0].text
    pair = [Demonstration(image, text, answer) for answer in ("red and big", "big and red")]
    one, other = (backend.reader.read([item], prompt_format=backend.default_format, layers=(0,))[0] for item in pair)
    shared = min(len(one), len(other))
    same = one.token_ids[:shared] == other.token_ids[:shared]
    require_close(one.hidden[:shared][same], other.hidden[:shared][same], backend, "layer 0 after two texts")
