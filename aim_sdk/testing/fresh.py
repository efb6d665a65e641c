"""A checkpoint from nothing: a tokenizer trained on a few sentences, random weights that matter, the files of both."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.utils import logging

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


def train(pre_tokenizer: pre_tokenizers.PreTokenizer, trainer: BpeTrainer) -> Bpe:
    """Vocabulary and merges of the sentences."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator([CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


@cache
def byte_level_bpe() -> Bpe:
    """Vocabulary and merges as GPT-2, Qwen and Llama 3 have them: 256 bytes, then merges."""
    trainer = BpeTrainer(vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return train(pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)


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


def save(folder: Path, model: PreTrainedModel, processor: ProcessorMixin, *, eos: str | None = None) -> None:
    """Draw every matrix so that each layer keeps the scale of its input, and write the folder that `Auto*` loads.

    A fresh model's logits are near zero and hardly feel the image; these differ clearly from image to image.
    """
    tokenizer: Any = processor.tokenizer
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
