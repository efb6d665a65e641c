"""What the tiny families share: tokenizers trained on a few sentences, small towers, random weights that matter."""

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from aim_sdk.testing.fresh import WINDOW as WINDOW
from aim_sdk.testing.fresh import Bpe, train
from aim_sdk.testing.fresh import byte_level_bpe as byte_level_bpe
from aim_sdk.testing.fresh import byte_level_tokenizer as byte_level_tokenizer
from aim_sdk.testing.fresh import save as save
from aim_sdk.testing.fresh import spare as spare

HIDDEN = 32
IMAGE = 32  # the side of the square that a vision tower sees


@cache
def sentencepiece_bpe(*control: str) -> Bpe:
    """Vocabulary and merges as SentencePiece has them: control tokens, 256 byte tokens, then pieces with `▁`."""
    reserved = [*control, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(vocab_size=480, special_tokens=reserved, show_progress=False)
    return train(pre_tokenizers.Metaspace(), trainer)


def llama_tokenizer(**options: Any) -> LlamaTokenizer:
    """`<unk>`, `<s>` and `</s>` are 0, 1 and 2; `<s>` is put in front; what `options` names comes after the pieces."""
    vocab, merges = sentencepiece_bpe("<unk>", "<s>", "</s>")
    return LlamaTokenizer(
        vocab=dict(vocab), merges=list(merges), model_max_length=WINDOW, add_bos_token=True, **options
    )


def metaspace_tokenizer(
    *control: str, prepend: Literal["always", "never"] = "always", **names: str
) -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's pieces without BOS; `control` are its first ids, `prepend` says where a blank is
    put in front."""
    vocab, merges = sentencepiece_bpe(*control)
    tokenizer = Tokenizer(BPE(vocab=dict(vocab), merges=list(merges), unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend)])
    tokenizer.add_special_tokens(list(control))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **names)


def text_options(vocab: int, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": WINDOW,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def llama(vocab: int, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    return LlamaConfig(**text_options(vocab, tokenizer))


def mistral(vocab: int, tokenizer: PreTrainedTokenizerBase) -> MistralConfig:
    return MistralConfig(**text_options(vocab, tokenizer), sliding_window=None)


def qwen2(vocab: int, tokenizer: PreTrainedTokenizerBase, *, tied: bool = False) -> Qwen2Config:
    return Qwen2Config(**text_options(vocab, tokenizer), tie_word_embeddings=tied)


def tower_options(patch: int) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": IMAGE,
        "patch_size": patch,
    }


def clip(patch: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(**tower_options(patch), projection_dim=HIDDEN)


def siglip(patch: int) -> SiglipVisionConfig:
    return SiglipVisionConfig(**tower_options(patch), vision_use_head=False)


def name_as_on_the_hub(folder: Path) -> None:
    """Give a checkpoint's weights the names of older files, which vLLM expects: ``vision_tower.vision_model``."""
    file = folder / "model.safetensors"
    old = {name: re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name) for name in load_file(file)}
    save_file({old[name]: weight for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})
