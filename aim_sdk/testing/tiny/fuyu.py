"""Fuyu, which has no vision tower: patches enter the LM."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    FuyuConfig,
    FuyuForCausalLM,
    FuyuImageProcessor,
    FuyuProcessor,
    PersimmonConfig,
    PreTrainedTokenizerFast,
)

from .common import IMAGE, WINDOW, save, sentencepiece_bpe, spare, text_options

PATCH = 8
MARKS = ("|SPEAKER|", "|NEWLINE|")


def _tokenizer() -> PreTrainedTokenizerFast:
    """Its marks are pieces, so a blank stands before one that begins a text: the processor drops it."""
    vocab, merges = sentencepiece_bpe("<unk>", "<s>", "</s>", *MARKS)
    model = BPE(vocab=dict(vocab), merges=list(merges), unk_token="<unk>", byte_fallback=True, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Prepend("▁")
    split = [pre_tokenizers.Split(mark, "isolated") for mark in MARKS]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.Metaspace(prepend_scheme="never")])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<0x04>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=WINDOW, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def fuyu(folder: Path) -> None:
    """Up to 16 patches an image, a line end after each row, then BOS; a mark after every prompt; no chat template."""
    patches = {"height": PATCH, "width": PATCH}
    images = FuyuImageProcessor(size={"height": IMAGE, "width": IMAGE}, patch_size=patches)
    processor = FuyuProcessor(images, _tokenizer())
    tokenizer = processor.tokenizer
    text = text_options(spare(tokenizer), tokenizer)
    del text["num_key_value_heads"]
    config = FuyuConfig(
        text_config=PersimmonConfig(**text),
        image_size=IMAGE,
        patch_size=PATCH,
        image_token_id=processor.image_token_id,
    )
    save(folder, FuyuForCausalLM(config), processor)
