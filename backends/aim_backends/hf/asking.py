"""What a processor writes for an image, learned by asking it with small, large and oblong pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from PIL import Image
from torch import Tensor

from aim_backends.hf.slots import IMAGE_MASKS, per_token
from aim_sdk.errors import CorruptArtifactError, FormatError, UnsupportedModelError

_SIZES: Final = ((64, 64), (1600, 1200), (120, 900), (1000, 200))
"""Widths and heights: an icon, a photo, a receipt and a banner."""
_LETTER: Final = "a"

Ask = Callable[[str, Image.Image], Mapping[str, Any]]
"""The processor: a prompt with one placeholder, and its image."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a processor writes."""

    start: str
    """Before every prompt."""
    expansion: str
    """For an image, whatever its size; the first and the last of its tokens stand for those between."""
    ids: frozenset[int]
    """The special tokens of an image."""


def placeholder_of(processor: Any, ask: Ask) -> str:
    """What stands for an image in a prompt: its image token, or that token as the chat template writes it.

    Raises:
        UnsupportedModelError: neither is there, or the processor takes none of them.
    """
    token, errors = getattr(processor, "image_token", None), []
    for mark in filter(None, (token, _of_template(processor))):
        try:
            ask(mark, Image.new("RGB", _SIZES[0]))
        except Exception as error:  # processors refuse what they are given in many ways
            errors.append(error)
        else:
            return str(mark)
    if token:  # what it refuses is not the mark
        return str(token)
    raise UnsupportedModelError(
        f"{type(processor).__name__} names no image token, and its chat template writes none that it takes"
        f"{''.join(f' ({error})' for error in errors)}.\n"
        "Next: write a backend for this model (see 'Write a backend' in the documentation)."
    )


def written(tokenizer: Any, image_ids: Iterable[int], placeholder: str, ask: Ask) -> Written:
    """Ask what the processor writes for a placeholder.

    Args:
        tokenizer: its tokenizer.
        image_ids: tokens that are known to stand for an image.
        placeholder: what stands for an image in a prompt.
        ask: runs it.

    Raises:
        CorruptArtifactError: it refuses every image.
        FormatError: it writes no image token.
        UnsupportedModelError: it writes something for each token that cannot be continued in text.
    """
    rows, errors = [], list[Exception]()
    for size in _SIZES:
        try:
            outputs = ask(placeholder, Image.new("RGB", size))
        except Exception as error:  # a size that it refuses is refused later, too
            errors.append(error)
        else:
            rows.append(outputs["input_ids"][0].tolist())
    if not rows:
        raise CorruptArtifactError(f"the processor cannot write an image: {errors[0]}.") from errors[0]
    start = _start(tokenizer, placeholder, ask)
    rows = [row[len(start) :] if row[: len(start)] == start else row for row in rows]
    learned = _special(tokenizer, rows) - set(start)
    known = learned | set(image_ids)
    spans = [[place for place, index in enumerate(row) if index in known] for row in rows]
    if not all(spans):
        raise FormatError(f"the processor writes no image token for {placeholder!r}.")
    leads = [row[: span[0]] for row, span in zip(rows, spans, strict=True)]
    trails = [row[span[-1] + 1 :][::-1] for row, span in zip(rows, spans, strict=True)]
    # Text beside an image that depends on its size belongs to the image.
    lead, trail = _shared(leads), _shared(trails)[::-1]
    ends = [rows[0][spans[0][0]], rows[0][spans[0][-1]]]
    first, last = tokenizer.convert_ids_to_tokens(ends)
    return Written(
        tokenizer.decode(start), f"{tokenizer.decode(lead)}{first}{last}{tokenizer.decode(trail)}", frozenset(learned)
    )


def _start(tokenizer: Any, placeholder: str, ask: Ask) -> list[int]:
    """What the processor writes before a text that begins with a letter, whatever it is told about special tokens."""
    outputs = ask(f"{_LETTER}{placeholder}", Image.new("RGB", _SIZES[0]))
    ids = outputs["input_ids"][0].tolist()
    letter = tokenizer(_LETTER, add_special_tokens=False)["input_ids"]
    _check_text(outputs, ids.index(letter[0]) if letter[0] in ids else None)
    return ids[: ids.index(letter[0])] if letter[0] in ids else []


def _check_text(outputs: Mapping[str, Any], letter: int | None) -> None:
    """Refuse outputs for each token that are not 0 where text is: new text could not continue them."""
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
    for name in per_token(tensors) if letter is not None else ():
        if name not in IMAGE_MASKS and bool(tensors[name][0, letter].any()):
            raise UnsupportedModelError(
                f"the processor gives {name!r} for each token, and it is not 0 for text: how it goes on is not known.\n"
                "Next: write a backend for this model (see 'Write a backend' in the documentation)."
            )


def _special(tokenizer: Any, rows: Sequence[Sequence[int]]) -> set[int]:
    """The added tokens in what stands for images; what any text may hold is not among them."""
    ends = {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return {index for row in rows for index in row if index in tokenizer.added_tokens_decoder} - ends


def _shared(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """What all rows begin with."""
    return [items[0] for items in takewhile(lambda items: len(set(items)) == 1, zip(*rows, strict=False))]


def _of_template(processor: Any) -> str | None:
    """What the chat template writes for an image: what a turn with one has and a turn without has not."""
    if not getattr(processor, "chat_template", None):
        return None
    text = {"type": "text", "text": "x"}
    try:
        shown, bare = (
            processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            for content in ([{"type": "image"}, text], [text])
        )
    except Exception:  # a template that wants more than one turn
        return None
    before = len(_shared([shown, bare]))
    after = len(_shared([shown[before:][::-1], bare[before:][::-1]]))
    return str(shown[before : len(shown) - after]) or None
