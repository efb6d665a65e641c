"""Which token id marks the places of fused tokens, and how those places enter a batch of prompts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from aim_sdk.errors import UnsupportedModelError

_SPARE = re.compile(r"reserved|unused|extra", re.IGNORECASE)
_IMAGE = re.compile(r"image|img|vision|video|frame|tile|audio|row_\d+_col_\d+", re.IGNORECASE)
_ID = re.compile(r"(?:_id|_index|_ids)$")
_NUL = ("<0x00>", "Ā")
"""The byte 0 in SentencePiece and in byte-level vocabularies."""


IMAGE_MASKS = ("image_attention_mask", "cross_attention_mask")
"""The images that each token sees: new text sees what the last token sees."""


def per_token(inputs: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors with one entry per token, besides ids and attention mask; text has 0 there."""
    shape = inputs["input_ids"].shape
    others = {name: tensor for name, tensor in inputs.items() if name not in ("input_ids", "attention_mask")}
    return [
        name
        for name, tensor in others.items()
        if isinstance(tensor, Tensor)  # some families count tiles in lists
        and tensor.shape[:2] == shape
        and not tensor.is_floating_point()
    ]


def config_ids(config: Mapping[str, Any], *, only: re.Pattern[str] | None = None) -> Iterator[int]:
    """Yield every token id that a model's configuration names (those whose name matches ``only``)."""
    for name, value in config.items():  # some names are numbers (id2label)
        if isinstance(value, Mapping):
            yield from config_ids(value, only=only)
        elif _ID.search(str(name)) and (only is None or only.search(str(name))):
            yield from _whole(value)


def _whole(value: Any) -> Iterator[int]:
    """The whole numbers in a setting; switches are none."""
    values = value if isinstance(value, list | tuple) else [value]
    return (item for item in values if isinstance(item, int) and not isinstance(item, bool))


def image_ids(processor: Any, config: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids of all tokens that stand for an image or frame one, whatever the family calls them."""
    found = set(config_ids(config, only=re.compile(f"{_IMAGE.pattern}|[be]oi|[be]oa", re.IGNORECASE)))
    for name, value in vars(processor).items():
        if ("token" in name and _ID.search(name)) or name == "row_col_ids":
            found.update(_whole(value))
    found.update(_whole(getattr(processor, "image_token_ids", None)))
    added = {token.content: index for index, token in processor.tokenizer.added_tokens_decoder.items()}
    for name in ("image_token", "boi_token", "eoi_token", "video_token"):
        found.add(added.get(getattr(processor, name, None) or "", -1))
        found.add(added.get(getattr(processor.tokenizer, name, None) or "", -1))
    found.update(index for content, index in added.items() if _IMAGE.search(content))
    tokenizer = processor.tokenizer
    # A token that the vocabulary lacks is looked up as unk.
    text = {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return frozenset(index for index in found - text if index >= 0)


def choose_slot(tokenizer: Any, rows: int, config: Mapping[str, Any], images: Collection[int], template: str) -> int:
    """Choose a token id that no text holds and that the model treats as text.

    In order: a spare row of the embedding matrix; a reserved token; another special token without a use; unk; the byte
    0. Never padding, which masks itself.

    Raises:
        UnsupportedModelError: there is none.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    named = set(config_ids(config))
    spare = [index for index in range(max(vocabulary.values()) + 1, rows) if index not in named]
    if spare:
        return spare[-1]
    used = named | set(images) | {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    free: dict[str, int] = {
        content: index
        for content, index in added.items()
        if index < rows and index not in used and content not in template and index != tokenizer.unk_token_id
    }
    reserved = [index for content, index in free.items() if _SPARE.search(content)]
    # unk and the byte 0 can be written by text: such text is refused.
    last: list[int | None] = [tokenizer.unk_token_id, *(vocabulary.get(token) for token in _NUL)]
    usable = [index for index in last if index is not None and index not in used and index < rows]
    if not (candidates := [*reserved, *free.values(), *usable]):
        raise UnsupportedModelError(
            f"no token id is free to mark fused tokens: {rows} embedding rows for {len(vocabulary)} tokens.\n"
            "Next: model.resize_token_embeddings(rows + 1), save the checkpoint and load that."
        )
    return candidates[0]


def insert_slots(
    inputs: Mapping[str, Tensor], counts: Sequence[int], after: Sequence[int], *, slot: int, pad: int
) -> dict[str, Tensor]:
    """Insert ``counts[i]`` slots after the first ``after[i]`` tokens of row i of a left-padded batch.

    Every per-token tensor grows with ``input_ids``; the rest is passed on as it is.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width, device = ids.shape[1], ids.device
    lengths = mask.sum(1).tolist()
    grown = max(length + count for length, count in zip(lengths, counts, strict=True))
    source = torch.full((len(ids), grown), _PAD)  # the old position that each new one copies
    for row, (length, count, head) in enumerate(zip(lengths, counts, after, strict=True)):
        start = grown - length - count
        source[row, start : start + head] = torch.arange(head) + width - length
        source[row, start + head : start + head + count] = _SLOT
        source[row, start + head + count :] = torch.arange(length - head) + width - length + head
    source = source.to(device)
    result = dict(inputs)
    result["input_ids"] = _take(ids, source, pad).masked_fill(source == _SLOT, slot)
    result["attention_mask"] = _take(mask, source, 0).masked_fill(source == _SLOT, 1)
    result.update({name: _take(inputs[name], source, 0) for name in per_token(inputs)})
    return result


def append_tokens(
    inputs: Mapping[str, Tensor], ids: Int[Tensor, "rows tokens"], *, token_type: int = 0
) -> dict[str, Tensor]:
    """Put text tokens after every row; they see the images that the last token of their row sees."""
    result = dict(inputs)
    result["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    for name in ("attention_mask", *IMAGE_MASKS):
        if name in inputs:
            last = inputs[name][:, -1:]
            result[name] = torch.cat([inputs[name], *[last] * ids.shape[1]], dim=1)
    for name in per_token(inputs):
        if name not in IMAGE_MASKS:
            kind = torch.full_like(ids, token_type if name == "token_type_ids" else 0, dtype=inputs[name].dtype)
            result[name] = torch.cat([inputs[name], kind], dim=1)
    return result


def answered(
    inputs: Mapping[str, Tensor], answers: Sequence[Sequence[int]], *, pad: int, answer_type: int = 0
) -> dict[str, Tensor]:
    """Put an answer after each prompt of a left-padded batch; what comes out is padded on the right.

    So every prompt starts where it starts alone. Answers see the images that the last token of their prompt sees.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width, lengths = ids.shape[1], mask.sum(1).tolist()
    grown = max(length + len(answer) for length, answer in zip(lengths, answers, strict=True))
    source = torch.full((len(ids), grown), _PAD)
    answer_ids = torch.zeros(len(ids), grown, dtype=ids.dtype)
    for row, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        end = length + len(answer)
        source[row, :length] = torch.arange(width - length, width)
        source[row, length:end] = width - 1  # what it copies of the last token is what images it sees
        answer_ids[row, length:end] = torch.tensor(answer, dtype=ids.dtype)
    after = (torch.arange(grown) >= torch.tensor(lengths)[:, None]) & (source != _PAD)
    source, answer_ids, after = (tensor.to(ids.device) for tensor in (source, answer_ids, after))
    result = dict(inputs)
    result["input_ids"] = _take(ids, source, pad).where(~after, answer_ids)
    result["attention_mask"] = _take(mask, source, 0)
    for name in per_token(inputs):
        result[name] = _take(inputs[name], source, 0)
        if name not in IMAGE_MASKS:
            result[name] = result[name].masked_fill(after, answer_type if name == "token_type_ids" else 0)
    return result


_PAD, _SLOT = -1, -2


def _take(
    tensor: Int[Tensor, "rows old *rest"], source: Int[Tensor, "rows new"], fill: int
) -> Int[Tensor, "rows new *rest"]:
    shape = (*source.shape, *(1 for _ in tensor.shape[2:]))
    index = source.clamp(min=0).view(shape).expand(*source.shape, *tensor.shape[2:])
    return tensor.gather(1, index).masked_fill((source < 0).view(shape), fill)
