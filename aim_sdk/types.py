"""The values that flow through the SDK: frozen, validated where a user makes them, with named axes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from aim_sdk.errors import ImageError, InputError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from aim_sdk.config import Fingerprint


@runtime_checkable
class LazyImage(Protocol):
    """An image that is made when it is needed: always the same one, and picklable if worker processes read it."""

    def image_file(self) -> bytes:
        """The bytes of its image file."""


ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | Image | LazyImage"
"""A path, the bytes of an image file, a PIL image, or one that is made when it is needed."""

Matrix: TypeAlias = "NDArray[np.float32]"
"""Vectors as rows."""

Metadata: TypeAlias = "Mapping[str, str | int | float | bool]"
"""Values by field name; what filters and class balance look at."""

Mode = Literal["aim", "text-only", "interleaved", "zero-shot", "no-image", "nearest"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
"""How demonstrations are used; everything but ``"aim"`` is a baseline or a control."""

TokenKind = Literal[
    "first", "prefix", "demonstration visual", "demonstration text", "query visual", "query text", "answer"
]
"""What a position of an interleaved prompt holds.

``first`` is the first position, whatever it holds (BOS, if the family has one): most LLMs use it as an attention
sink. ``prefix`` is the rest of what comes before the demonstrations (the system prompt). ``visual`` is all that the
family writes for an image, its frame tokens included; ``text`` is the rest, with the template's role markers and
separators. ``answer`` is the part of the answer that stands before the token to be predicted.
"""


def is_image(value: object) -> bool:
    """Whether a value is of a type that images come in (`ImageInput`); nothing is opened."""
    is_pil = any(f"{cls.__module__}.{cls.__name__}" == "PIL.Image.Image" for cls in type(value).__mro__)
    return is_pil or isinstance(value, str | os.PathLike | bytes | LazyImage)


def _check_image(image: object, owner: str) -> None:
    if not is_image(image):
        raise ImageError(
            f"{owner}: `image` is {type(image).__name__}; expected a path, the bytes of an image file or a PIL image."
        )


def check_text(text: object, owner: str, field: str) -> None:
    """Refuse what is no text.

    Raises:
        InputError: it is not a string, or holds half of a character.
    """
    if not isinstance(text, str):
        raise InputError(f"{owner}: `{field}` is {type(text).__name__}; expected a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{owner}: `{field}` holds {text[error.start]!r} at {error.start}, half of a character: it is not text. "
            "Next: decode it with errors='replace', or leave it out."
        ) from None


def plain_metadata(metadata: Metadata | None) -> dict[str, str | int | float | bool]:
    """Metadata as it is kept and compared: numpy's numbers become Python's, and None becomes empty.

    Raises:
        InputError: it is not a mapping, or a field is not a string or finite number.
    """
    if not isinstance(metadata, Mapping | None):
        raise InputError(f"Demonstration: `metadata` is {type(metadata).__name__}; expected a dict of fields.")
    plain = {name: _plain(value) for name, value in (metadata or {}).items()}
    _check_metadata(plain)
    return plain


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _check_metadata(metadata: Metadata) -> None:
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool):
            raise InputError(
                f"Demonstration: metadata {name!r} is {type(value).__name__}; expected a string or a number."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"Demonstration: metadata {name!r} is {value}; expected a finite number.")
        for text in (name, value):
            if isinstance(text, str):
                check_text(text, "Demonstration", f"metadata {name!r}")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One worked example: an image, the text next to it, and the response.

    Args:
        image: a path, the bytes of an image file, or a PIL image.
        text: a question, an instruction, or nothing.
        answer: the response; never blank.
        metadata: what else is known about it, by field; ``"id"`` names it (see `Query`).

    Raises:
        InputError: a field has the wrong type, or the answer is blank.
    """

    image: ImageInput
    text: str
    answer: str
    metadata: Metadata = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_image(self.image, "Demonstration")
        check_text(self.text, "Demonstration", "text")
        check_text(self.answer, "Demonstration", "answer")
        if not self.answer.strip():
            raise InputError("Demonstration: `answer` is blank; a demonstration shows the response to its image.")
        object.__setattr__(self, "metadata", plain_metadata(self.metadata))


@dataclass(frozen=True, slots=True)
class Query:
    """What the backbone is asked: an image and the text next to it (which may be empty).

    ``id`` names it; a whole number becomes a string. A selector never chooses the demonstration whose
    ``metadata["id"]`` is the same, nor one with the same image and text. Images are the same if their files hold the
    same bytes, or both are PIL images of the same pixels.

    Raises:
        InputError: a field has the wrong type.
    """

    image: ImageInput
    text: str = ""
    id: str | None = None

    def __post_init__(self) -> None:
        _check_image(self.image, "Query")
        check_text(self.text, "Query", "text")
        if self.id is not None:
            name = _plain(self.id)
            name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
            check_text(name, "Query", "id")
            object.__setattr__(self, "id", name)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the frozen backbone says on top of one demonstration's text tokens.

    The tokens are the demonstration's text with its role markers and separators, without BOS, system prompt and image
    tokens: exactly those of the same demonstration in a text-only few-shot prompt.
    """

    token_ids: Int[Tensor, " tokens"]
    hidden: Float[Tensor, "tokens hidden"]
    """Last hidden states, after the final norm; or, side by side, those of the layers that were asked for."""
    embeddings: Float[Tensor, "tokens embed"]
    """Input embeddings of ``token_ids``."""
    image_position: int
    """Index of the first text token after the place where the image stood."""
    answer_start: int
    """Index of the answer's first token; the token before it is the last one that has not seen the answer."""
    visual: Float[Tensor, " embed"] | None = None
    """Mean of the image's visual tokens, as the inner LM takes them in; None if they were not looked at, or are no
    embeddings of its own."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def kept(self) -> KeptReading:
        """The part that is kept: everything that cannot be looked up again."""
        return KeptReading(self.token_ids, self.hidden, self.image_position, self.answer_start)


@dataclass(frozen=True, slots=True)
class KeptReading:
    """A reading as it is stored: on any device, and without its tokens' embeddings, which the backbone has."""

    token_ids: Int[Tensor, " tokens"]
    hidden: Float[Tensor, "tokens hidden"]
    image_position: int
    answer_start: int

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class FusedTokens:
    """The virtual tokens that stand for one demonstration in a prompt."""

    embeddings: Float[Tensor, "tokens embed"]
    key: str | None = None
    """Names the embeddings: equal keys, equal tensors. What was computed of tokens without one is not kept."""
    token_ids: Int[Tensor, " tokens"] | None = None
    """The text tokens that they stand for, on the CPU. Some backbones look ids up a second time (embeddings of each
    layer's own, n-grams): there they read these; without them, a token that means nothing."""

    def __len__(self) -> int:
        return len(self.embeddings)


Context: TypeAlias = "Sequence[FusedTokens] | Sequence[Demonstration]"
"""What comes before a query: fused tokens to inject, or demonstrations to interleave with their images."""


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """How the answer to one query attends to the interleaved prompt before it.

    ``weights[l, p]`` is the attention weight (after the softmax) that the inner LLM's layer ``layers[l]`` puts on
    position ``p``, averaged over all heads and over the answer-predicting positions: those whose next token is a token
    of the answer, from the prompt's last position to the answer's last but one. Positions are the prompt's and the
    answer's without its last token. Every layer sums to 1.
    """

    weights: Float[Tensor, "layers positions"]
    """In float32, on the CPU."""
    layers: tuple[int, ...]
    """The layer of each row, counted from 0; layers without attention (linear attention, convolutions) are left out."""
    kinds: tuple[TokenKind, ...]
    """The kind of each position."""
    answer_tokens: int
    """Tokens of the answer: over how many positions the average was taken."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer."""

    text: str
    """The answer without surrounding blanks, cut before the first stop string."""
    token_ids: tuple[int, ...]
    """The generated token ids, with the end-of-text token if one was generated."""
    prompt_tokens: int
    """Positions of the prompt in the backbone's context: text, visual and fused tokens together."""
    log_probs: tuple[float, ...] | None = None
    """The natural-log probability of each generated token, if it was asked for."""
    demonstrations: tuple[str, ...] = ()
    """What was shown, in the order of the prompt: the keys in the bank (`pipe.bank[key]`). Of demonstrations that a
    call brings itself, the keys that they would have there; in the modes that show texts alone, a hash of those."""
    ended: bool | None = None
    """Whether the answer came to its end; False if the limit of new tokens cut it, None if the backend does not say."""


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """How likely each choice is as the answer to one query."""

    log_probs: tuple[tuple[float, ...], ...]
    """Of each choice, the natural-log probability of each of its tokens."""
    prompt_tokens: int | None = None
    """As `Generation.prompt_tokens`; None if the backend does not say."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything that a projector may take from its backbone besides readings."""

    inputs: Float[Tensor, "vocabulary embed"]
    """The inner LLM's input embeddings."""
    outputs: Float[Tensor, "vocabulary hidden"]
    """The LM head's matrix; the same tensor if it is tied. Either may have spare rows."""
    fingerprint: Fingerprint
    """Whose they are; it holds the RMS of the input embeddings, too."""
    decoder_layers: int | None = None
    """How many decoder layers the inner LLM has; None if that is not known before they are read."""
