"""A model's default settings made small, by their names and by the structure of the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

HIDDEN: Final = 64
IMAGE: Final = 32
"""The side of the square that a tower sees."""
PATCH: Final = 8
WINDOW: Final = 4096
PINPOINTS: Final = [[IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE]]
"""Two tiles, next to each other or one below the other."""
_HEADS, _GROUPS, _HEAD = 4, 2, 16
_MOST_LAYERS: Final = 4

_ID = re.compile(r"(?:_ids?|token_index)$")
_LAYERS = re.compile(
    r"^(?:num_hidden_layers|num_layers|n_layers|layers|depth|(?:en|de)coder_layers|\w+_hidden_layers)$"
)
_VOCABULARIES: Final = ("vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input")
_POSITIONS: Final = ("max_position_embeddings", "max_source_positions")
_LISTS: Final[Mapping[str, Callable[[int], list[Any]]]] = {
    "image_grid_pinpoints": lambda count: PINPOINTS,
    "hidden_sizes": lambda count: [HIDDEN] * count,
    "depths": lambda count: [1] * count,
}
_OUTPUT = re.compile(r"out(?:put)?_(?:hidden_size|dim)$|input_dim$|^merged_|^projector_")
_PLACES = re.compile(r"ind(?:ex|ic)|idx|_layers$|feature_layer$")
_KEPT = re.compile(
    r"channels?$|^temporal|merge|kernel|stride|^max_|frequency|interval|_step$|^scale|_factor$|ratio|"
    r"num_channels|time|chunk_size_feed|samples|^n_(?:mel|window)|sampling|buckets|iters|mult$|count$|inputs$"
)
_SIZES: Final = tuple(
    (re.compile(pattern), size)
    for pattern, size in (
        (r"tokens_per_image$|image_seq_length|num_image_tokens", 4),
        (r"num_(?:key_value|kv)_heads|n_kv_heads", _GROUPS),
        (r"linear_num_key_heads", _GROUPS),
        (r"n_heads$|heads$|n_head$", _HEADS),
        (r"head_dim|dim_head|^d_kv$|^rotary_dim$", _HEAD),
        (r"rank$|state_size|lowrank$|^d_rel$", 16),
        (r"per_tok|^moe_(?:k|topk)$", 2),
        (r"n_groups?$|topk_group|shared_experts$|nextn|kv_shared|first_k_dense", 1),
        (r"experts$|^index_topk_blocks$", 4),
        (r"^index_block_size$", 16),
        (r"^(?:sliding_window(?:_size)?|attention_chunk_size|index_topk)$", 32),
        (r"^window_size$", 4 * PATCH),
        (r"image_size$|img_size$|^resolution$", IMAGE),
        (r"patch_size$", PATCH),
        (r"^num_position_embeddings$|^num_patches$", (IMAGE // PATCH) ** 2),
        (r"^pos_emb_(?:height|width)$", IMAGE // PATCH),
        (r"intermediate|ffn_dim|mlp_dim|^d_ff$|hidden_size_mlp", 2 * HIDDEN),
        (r"hidden_size|_dim$|_dim_|^dim$|d_model|width$|feat_size$|^embed|output_size|decoder_hidden", HIDDEN),
        (r"codebook|^num_embeddings$|ngram_vocab", 128),
        (r"latents?$|latent_query|query_tokens", 4),
    )
)


def shrunk(settings: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Small settings in place of a configuration's default ones.

    Layers are cut to a few that hold each kind of layer; sizes, heads and experts get small numbers by their names;
    what has no known name stays as it is.

    Args:
        settings: of `PreTrainedConfig.to_dict`, with nested configurations.
        vocabulary: the rows of the embeddings.
    """
    return _Shrinking(settings, vocabulary, settings).settings()


class _Shrinking:
    """One configuration, of a model or of a part of it."""

    def __init__(self, given: Mapping[str, Any], vocabulary: int, whole: Mapping[str, Any]) -> None:
        self._given, self._vocabulary, self._whole = given, vocabulary, whole
        counts = (value for name, value in given.items() if _LAYERS.search(name) and type(value) is int)
        self._layers: int = next(counts, 0)
        self._kept = self._kept_layers()

    def settings(self) -> dict[str, Any]:
        made = {name: self._small(name, value) for name, value in self._given.items() if name != "per_layer_config"}
        heads = self._given.get("num_attention_heads")
        if heads is not None and heads == self._given.get("num_key_value_heads"):
            made["num_key_value_heads"] = made["num_attention_heads"]
        if made.get("head_dim", 0) is None:
            made["head_dim"] = _HEAD
        return made

    def _small(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._small_mapping(name, value)
        if isinstance(value, list | tuple):
            return self._small_list(name, value)
        if type(value) is not int or _ID.search(name):
            return value
        if _LAYERS.search(name):
            return len(self._kept) if value == self._layers else min(value, 2)
        if name in _VOCABULARIES:
            return self._vocabulary
        if name == "vision_feature_layer":
            return _place(value, 2)
        if name in _POSITIONS:
            return WINDOW
        if name == "base_channels":
            return 32  # as many as the groups of its norms
        if _KEPT.search(name):
            return value
        if _OUTPUT.search(name) and (times := self._times(value)):
            return times * HIDDEN
        return min(value, next((size for pattern, size in _SIZES if pattern.search(name)), value))

    def _times(self, value: int) -> int:
        """How often an output repeats a hidden size: a model that merges places puts their states side by side."""
        text = self._whole.get("text_config") or {}
        if value == text.get("hidden_size"):
            return 1
        vision = self._whole.get("vision_config") or {}
        sizes = [part.get("hidden_size") for part in (self._given, vision, text)]
        return next((value // size for size in sizes if size and value % size == 0 and value // size < 9), 0)

    def _small_mapping(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """A nested configuration, or numbers of positions, which are one mapping or one for each kind of layer."""
        if "rope" in name:
            return self._positions(value)
        if "model_type" in value or name.endswith("_config"):
            return _Shrinking(value, self._vocabulary, self._whole).settings()
        return dict(value)

    def _positions(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers of positions; a head's pairs are divided between time, height and width as they are by default."""
        part = value.get("partial_rotary_factor") or self._given.get("partial_rotary_factor") or 1
        sections = {"mrope_section": _sections(value.get("mrope_section", (2, 3, 3)), int(_HEAD * part) // 2)}
        kinds = {key: self._positions(item) for key, item in value.items() if isinstance(item, Mapping)}
        return {**value, **(kinds or sections)}

    def _small_list(self, name: str, value: Sequence[Any]) -> list[Any]:
        if name in _LISTS:
            return _LISTS[name](len(value))
        if list(value) == list(range(self._layers)):
            return list(range(len(self._kept)))  # each layer's own place
        if self._layers and len(value) == self._layers:
            return [value[place] for place in self._kept]
        if not _ID.search(name) and _PLACES.search(name) and all(type(place) is int for place in value):
            layers = max(len(self._kept), 2)
            if "feature" in name or "intermediate" in name:
                return [_place(place, layers) for place in value]
            return sorted({_place(place, layers - 1) for place in value})  # another layer comes after them
        return list(value)

    def _kept_layers(self) -> list[int]:
        """The first layer of each kind, as lists with an entry for each layer tell kinds apart; two or three if
        they are alike."""
        own = list(range(self._layers))
        lists = [v for v in self._given.values() if isinstance(v, list) and len(v) == self._layers > 0 and v != own]
        kinds: dict[str, int] = {}
        for place in range(self._layers):
            kinds.setdefault(str([value[place] for value in lists]), place)
        kept = list(kinds.values())[:_MOST_LAYERS]
        if len(kept) > 1:
            return kept
        named = any(_PLACES.search(name) and isinstance(value, list | tuple) for name, value in self._given.items())
        return list(range(min(self._layers, 3 if named else 2)))  # what is named stands between others


def _place(place: int, layers: int) -> int:
    """The place of a layer among a few."""
    return max(place, -layers) if place < 0 else min(place, layers - 1)


def _sections(value: Sequence[int], pairs: int) -> list[int]:
    made = [max(1, item * pairs // sum(value)) for item in value]
    return [*made[:-1], pairs - sum(made[:-1])]
