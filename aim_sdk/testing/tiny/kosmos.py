"""Kosmos-2."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    CLIPImageProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    PreTrainedTokenizerFast,
)

from .common import HIDDEN, IMAGE, WINDOW, save, sentencepiece_bpe, spare, tower_options


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ("<s>", "<pad>", "</s>", "<unk>")
    vocab, merges = sentencepiece_bpe(*special)
    tokenizer = Tokenizer(BPE(vocab=dict(vocab), merges=list(merges), unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=WINDOW,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def kosmos2(folder: Path) -> None:
    """64 visual tokens an image, whatever the latent queries' number, with the ids of the first pieces; no template."""
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    processor = Kosmos2Processor(images, _tokenizer(), num_patch_index_tokens=16)
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
