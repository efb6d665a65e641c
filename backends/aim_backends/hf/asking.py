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
    end: str
    """After every prompt."""
    ids: frozenset[int]
    """The special tokens of an image."""


def placeholder_of(processor: Any, ask: Ask) -> str:
    """What stands for an image in a prompt: the processor's image token, or what the chat template writes for one.

    The first of them that the processor replaces by more tokens; if it replaces none, the first that it takes.

    Raises:
        UnsupportedModelError: neither is there, or the processor takes none of them.
    """
    token, taken, errors = getattr(processor, "image_token", None), list[str](), list[Exception]()
    for mark in filter(None, (token, _of_template(processor))):
        try:
            outputs = ask(mark, Image.new("RGB", _SIZES[0]))
        except Exception as error:  # processors refuse what they are given in many ways
            errors.append(error)
            continue
        plain = processor.tokenizer(mark, add_special_tokens=False)["input_ids"]
        if len(outputs["input_ids"][0]) > len(plain):
            return str(mark)
        taken.append(mark)
    if taken or token:  # a token that is refused alone gets an error of its own
        return str(taken[0] if taken else token)
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
    start, end = _around(tokenizer, placeholder, ask)
    rows = [row[len(start) : len(row) - len(end)] for row in rows]
    learned = _special(tokenizer, rows)
    known = learned | set(image_ids)
    spans = [[place for place, index in enumerate(row) if index in known] for row in rows]
    if not all(spans):
        raise FormatError(f"the processor writes no image token for {placeholder!r}.")
    leads = [row[: span[0]] for row, span in zip(rows, spans, strict=True)]
    trails = [row[span[-1] + 1 :][::-1] for row, span in zip(rows, spans, strict=True)]
    # Text next to an image that depends on its size belongs to the image.
    lead, trail = _shared(leads), _shared(trails)[::-1]
    first, last = tokenizer.convert_ids_to_tokens([rows[0][spans[0][0]], rows[0][spans[0][-1]]])
    expansion = f"{tokenizer.decode(lead)}{first}{last}{tokenizer.decode(trail)}"
    return Written(tokenizer.decode(start), expansion, tokenizer.decode(end), frozenset(learned))


def check_image_token(config: Any, ids: Sequence[int], image_ids: Iterable[int], source: str) -> None:
    """Refuse a configuration that names another image token than the processor writes: images would be lost.

    Args:
        config: the model's.
        ids: what the processor writes for a prompt with an image.
        image_ids: tokens that stand for an image.
        source: where the checkpoint came from.

    Raises:
        CorruptArtifactError: naming both.
    """
    named = [getattr(config, name, None) for name in ("image_token_id", "image_token_index")]
    tokens = [index for index in named if isinstance(index, int)]
    if tokens and not set(tokens) & set(ids):
        raise CorruptArtifactError(
            f"{source}: config.json names {tokens[0]} as the image token, and the processor writes "
            f"{sorted(set(image_ids) & set(ids))} for an image.\nNext: take both from the same checkpoint."
        )


def _around(tokenizer: Any, placeholder: str, ask: Ask) -> tuple[list[int], list[int]]:
    """What the processor writes before and after every prompt, whatever it is told about special tokens."""
    outputs = ask(f"{_LETTER}{placeholder}{_LETTER}", Image.new("RGB", _SIZES[0]))
    ids = outputs["input_ids"][0].tolist()
    letters = tokenizer.convert_tokens_to_ids([f"{blank}{_LETTER}" for blank in ("", "▁", "Ġ")])
    places = [place for place, index in enumerate(ids) if index in letters and index != tokenizer.unk_token_id]
    if len(places) < 2:
        return [], []
    _check_text(outputs, places[0])
    return ids[: places[0]], ids[places[-1] + 1 :]


def _check_text(outputs: Mapping[str, Any], letter: int) -> None:
    """Refuse outputs for each token that are not 0 where text is: new text could not continue them."""
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
    for name in per_token(tensors):
        if name not in IMAGE_MASKS and bool(tensors[name][0, letter].any()):
            raise UnsupportedModelError(
                f"the processor gives {name!r} for each token, and it is not 0 for text: how it goes on is not known.\n"
                "Next: write a backend for this model (see 'Write a backend' in the documentation)."
            )


def _special(tokenizer: Any, rows: Sequence[Sequence[int]]) -> set[int]:
    """The added tokens in what stands for images; what any text may hold is not among them."""
    added = {index: token.content.strip() for index, token in tokenizer.added_tokens_decoder.items()}
    marks = {index for index, content in added.items() if content and not content.isalnum()}
    ends = {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return {index for row in rows for index in row if index in marks - ends}


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
    return str(shown[before : len(shown) - after]).strip() or None
