"""What the tiny families share: tokenizers trained on a few sentences, small towers, random weights that matter."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.utils import logging

HIDDEN = 32
IMAGE = 32  # the side of the square that a vision tower sees
WINDOW = 4096

CORPUS = """What is in the picture? A small brown dog is running on the green grass.
What colour is the car? The car is red. How many people are there? There are two people.
A man in a blue shirt is riding a bicycle down the street. Is this photo taken indoors? No, it is outdoors.
Question: What is the woman holding? Short answer: an umbrella. Output: a black cat sleeping on a wooden table.
Describe this image. The image shows a plate of food with vegetables, bread and a glass of water.
Is it a lynx or a fox? It is a lynx. This is a dax, and that is a blicket. Which shape is on the left? A circle.
You are a helpful assistant. USER: ASSISTANT: Human: Assistant: User: system user assistant model
A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and
polite answers to the human's questions. Yes. No. Red, green, blue, white and black. One, two, three, four, five.
"""

Bpe = tuple[dict[str, int], list[Any]]


def _train(pre_tokenizer: pre_tokenizers.PreTokenizer, trainer: BpeTrainer) -> Bpe:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator([CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


@cache
def byte_level_bpe() -> Bpe:
    """Vocabulary and merges as GPT-2, Qwen and Llama 3 have them: 256 bytes, then merges."""
    trainer = BpeTrainer(vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return _train(pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)


@cache
def sentencepiece_bpe(*control: str) -> Bpe:
    """Vocabulary and merges as SentencePiece has them: control tokens, 256 byte tokens, then pieces with `▁`."""
    reserved = [*control, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = BpeTrainer(vocab_size=480, special_tokens=reserved, show_progress=False)
    return _train(pre_tokenizers.Metaspace(), trainer)


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


def byte_level_tokenizer(special: list[str], *, bos: str | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """A GPT-2-like tokenizer with `special` after its merges; `bos`, if any, is put in front, as in Llama 3."""
    vocab, merges = byte_level_bpe()
    tokenizer = Tokenizer(BPE(vocab=dict(vocab), merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **options)


def spare(tokenizer: PreTrainedTokenizerBase) -> int:
    """The rows of an embedding matrix padded to a multiple of 64, as most checkpoints have it: always some to spare."""
    return (len(tokenizer) // 64 + 1) * 64


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


def save(folder: Path, model: PreTrainedModel, processor: ProcessorMixin, *, eos: str | None = None) -> None:
    """Draw every matrix so that each layer keeps the scale of its input, and write the folder that `Auto*` loads.

    A fresh model's logits are near zero and hardly feel the image; these differ clearly from image to image.
    """
    tokenizer = processor.tokenizer
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if eos is None else tokenizer.convert_tokens_to_ids(eos),
        pad_token_id=tokenizer.pad_token_id,
    )
    with _without_bars():
        model.save_pretrained(folder)
    processor.save_pretrained(folder)


def name_as_on_the_hub(folder: Path) -> None:
    """Give a checkpoint's weights the names of older files, which vLLM expects: ``vision_tower.vision_model``."""
    file = folder / "model.safetensors"
    old = {name: re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name) for name in load_file(file)}
    save_file({old[name]: weight for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bar of transformers: a tiny model is written at once."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
