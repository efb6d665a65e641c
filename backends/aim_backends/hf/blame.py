"""Finds the image of a batch that makes a processor or a model fail: each is tried alone, next to a plain picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from aim_backends.hf.tap import injected
from aim_sdk.errors import AIMError, CorruptArtifactError, ImageError, InputError
from aim_sdk.files.images import describe, load_image
from aim_sdk.types import ImageInput

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


class RefusedInputError(InputError):
    """A processor refuses a batch."""


@contextmanager
def naming_the_image(backbone: Backbone, rows: Sequence[Sequence[ImageInput]]) -> Iterator[None]:
    """Inside the block, an error that one of the images causes by itself becomes one that names it.

    Any other error passes as it is. No lock but the backbone's may be held around the block.

    Args:
        backbone: what runs.
        rows: the images of each prompt.

    Raises:
        ImageError: naming the image; its ``query`` is the row.
        CorruptArtifactError: the backbone takes text, and no image.
    """
    try:
        yield
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        if isinstance(error, AIMError) and not isinstance(error, RefusedInputError):
            raise
        if (cause := _failure(backbone, Image.new("RGB", (336, 336)))) is not None:
            if isinstance(cause, InputError):  # of the processor
                raise
            with backbone.lock, torch.no_grad(), injected(None):
                if fails(lambda: backbone.forward(**any_text(backbone), use_cache=False)):
                    raise
            raise CorruptArtifactError(
                f"{backbone.source}: the model cannot take what the processor makes of any image "
                f"({type(cause).__name__}: {cause}).\n"
                "Next: take config.json and the processor's files from the same checkpoint."
            ) from cause
        for place, row in enumerate(rows):
            for image in row:
                if (cause := _failure(backbone, image)) is not None:
                    named = ImageError(_message(backbone, image, cause))
                    named.query = place
                    raise named from cause
        raise


@contextmanager
def of_query(place: int) -> Iterator[None]:
    """Inside the block, an `InputError` says which query of a batch it is about."""
    try:
        yield
    except InputError as error:
        error.query = place
        raise


def _failure(backbone: Backbone, image: ImageInput) -> Exception | None:
    """What goes wrong with one image alone, with a harmless text."""
    prompt = backbone.prompts(backbone.default_format).whole([], "What is it?")
    try:
        with backbone.processor_lock:
            inputs = backbone.process([prompt], [[load_image(image)]], padding_side="left")
        with backbone.lock, torch.no_grad():
            backbone.forward(**inputs, use_cache=False)
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        return error
    return None


def any_text(backbone: Backbone, rows: int = 1) -> dict[str, Tensor]:
    """The inputs of a text that no model fails at."""
    ids = torch.full((rows, 2), backbone.pad_token_id, device=backbone.device)
    return backbone.text_inputs(ids, torch.ones_like(ids))


def fails(run: Callable[[], object]) -> bool:
    """Whether something raises, besides for want of memory."""
    try:
        run()
    except OUT_OF_MEMORY:
        raise
    except Exception:
        return True
    return False


def _message(backbone: Backbone, image: ImageInput, cause: Exception) -> str:
    width, height = load_image(image).size
    reason = str(cause) if isinstance(cause, InputError) else f"{type(cause).__name__}: {cause}"
    return (
        f"{describe(image)}: {backbone.model.config.model_type!r} cannot take this image of {width} x {height} pixels "
        f"({reason}).\nNext: leave it out, or bring it nearer to the usual sizes and proportions (scale, crop, pad)."
    )
