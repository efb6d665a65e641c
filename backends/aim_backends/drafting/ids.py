"""The token ids that a configuration names, in a vocabulary of ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from PIL import Image

_NAME = re.compile(r"(\w+?)(?:_token)?(?:_id|_ids|_index)$")
_USUAL: Final = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


def named(settings: Mapping[str, Any]) -> Iterator[str]:
    """What the names of token ids in a configuration say that the tokens are: ``image``, ``vision_start``."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from named(value)
        elif (found := _token(name, value)) and name not in _USUAL:
            count = len(value) if isinstance(value, list | tuple) else 1
            yield from (found if count == 1 else f"{found}_{place}" for place in range(count))


def _token(name: str, value: Any) -> str | None:
    found = _NAME.fullmatch(str(name))
    ids = value if isinstance(value, list | tuple) else [value]
    return found[1] if found and ids and all(type(item) is int and item >= 0 for item in ids) else None


def with_ids(settings: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """The settings with the ids that the tokens of these names have in a processor's vocabulary."""
    tokenizer, image = processor.tokenizer, image_id(processor)
    spelled = {re.sub(r"\W", "", token): place for token, place in tokenizer.get_vocab().items() if len(token) > 2}

    def found(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: found(key, item) for key, item in value.items()}
        if name in _USUAL:
            return getattr(tokenizer, name)
        if value is None and image is not None and name in ("image_token_id", "image_token_index"):
            return image
        token = _token(name, value)
        if token is None:
            return value
        if isinstance(value, list | tuple):
            return [spelled[f"{token}_{place}"] for place in range(len(value))] if len(value) > 1 else [spelled[token]]
        if token in ("image", "img", "image_patch", "media_placeholder") and image is not None:
            return image
        own = getattr(processor, f"{token}_token_id", None)
        return own if isinstance(own, int) else spelled[token]

    return {name: found(name, value) for name, value in settings.items()}


def image_id(processor: Any) -> int | None:
    """The special token that a processor writes most often for an image; None if it refuses one."""
    counts = written(processor)
    return counts.most_common(1)[0][0] if counts else None


def written(processor: Any, side: int = 64) -> Counter[int]:
    """How often a processor writes each special token for an image; none if it refuses one."""
    mark = getattr(processor, "image_token", None) or ""
    try:
        made = processor(images=[[Image.new("RGB", (side, side))]], text=[f"a{mark}"], return_tensors="pt")
    except Exception:  # processors refuse what they are given in many ways
        return Counter()
    return Counter(
        place for place in made["input_ids"][0].tolist() if place in processor.tokenizer.added_tokens_decoder
    )
