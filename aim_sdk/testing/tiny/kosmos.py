"""Kosmos-2."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
)

from .common import HIDDEN, IMAGE, WINDOW, metaspace_tokenizer, save, spare, tower_options


def kosmos2(folder: Path) -> None:
    """64 visual tokens per image for any number of latent queries, with the ids of the first pieces; no template."""
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    processor = Kosmos2Processor(images, metaspace_tokenizer(*names.values(), **names), num_patch_index_tokens=16)
    tokenizer = processor.tokenizer
    text = {
        "vocab_size": spare(tokenizer),
        "max_position_embeddings": WINDOW,
        "embed_dim": HIDDEN,
        "layers": 2,
        "ffn_dim": 2 * HIDDEN,
        "attention_heads": 4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = Kosmos2Config(text_config=text, vision_config=tower_options(8), latent_query_num=64)
    save(folder, Kosmos2ForConditionalGeneration(config), processor)
