"""BLIP-2 with OPT and InstructBLIP with Llama (as Vicuna)."""

from pathlib import Path
from typing import Any

from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    OPTConfig,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_tokenizer, llama, llama_tokenizer, save, spare, tower_options

QUERIES = 4
WORDS = "what is the in picture a lynx fox colour it red question short answer ? . :"


def _images() -> BlipImageProcessor:
    return BlipImageProcessor(size={"height": IMAGE, "width": IMAGE})


def _qformer(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * HIDDEN,
        "cross_attention_frequency": 1,
    }


def blip2(folder: Path) -> None:
    """4 visual tokens in front of OPT's BOS, which is its end too; no chat template."""
    tokenizer = byte_level_tokenizer(
        ["</s>", "<pad>"], bos="</s>", bos_token="</s>", eos_token="</s>", pad_token="<pad>"
    )
    processor = Blip2Processor(_images(), tokenizer, num_query_tokens=QUERIES)
    text = OPTConfig(
        vocab_size=spare(tokenizer),
        hidden_size=HIDDEN,
        word_embed_proj_dim=HIDDEN,
        ffn_dim=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = Blip2Config(
        text_config=text,
        vision_config=tower_options(8),
        qformer_config=_qformer(8),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    save(folder, Blip2ForConditionalGeneration(config), processor)


def instructblip(folder: Path) -> None:
    """4 visual tokens in front of BOS, made by a Q-Former that reads the prompt too; no chat template."""
    tokenizer = llama_tokenizer(pad_token="<pad>", legacy=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    qformer = BertTokenizer(vocab={word: index for index, word in enumerate([*special, *WORDS.split()])})
    processor = InstructBlipProcessor(_images(), tokenizer, qformer, num_query_tokens=QUERIES)
    config = InstructBlipConfig(
        text_config=llama(spare(tokenizer), tokenizer),
        vision_config=tower_options(8),
        qformer_config=_qformer(len(qformer)),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    save(folder, InstructBlipForConditionalGeneration(config), processor)
