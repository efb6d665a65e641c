"""DeepSeek-VL (with one tower and with two), DeepSeek-OCR 2 and Baidu's Unlimited-OCR, which grew from it."""

from pathlib import Path

import torch
from transformers import (
    DeepseekOcr2Config,
    DeepseekOcr2ForConditionalGeneration,
    DeepseekOcr2ImageProcessor,
    DeepseekOcr2Processor,
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessor,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    PreTrainedTokenizerBase,
    SamVisionConfig,
    UnlimitedOcrConfig,
    UnlimitedOcrForConditionalGeneration,
    UnlimitedOcrImageProcessor,
    UnlimitedOcrProcessor,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_tokenizer, llama, save, siglip, spare, text_options
from .generic import SIZE

TEMPLATE = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + '\n\n' }}{% else %}\
{{ message['role'].capitalize() + ': ' }}\
{% for part in message['content'] %}\
{{ '<image_placeholder>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '\n\n' if message['role'] == 'user' else eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

OCR_TEMPLATE = """{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}\
{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ eos_token if message['role'] == 'assistant' }}{% endfor %}"""


UNLIMITED_TEMPLATE = OCR_TEMPLATE.replace(r"<image>\n", "<image>")


def _tokenizer(image: str, *more: str) -> PreTrainedTokenizerBase:
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    return byte_level_tokenizer(
        [begin, end, "<｜▁pad▁｜>", image, *more],
        bos=begin,
        bos_token=begin,
        eos_token=end,
        pad_token="<｜▁pad▁｜>",
        image_token=image,
    )


def deepseek_vl(folder: Path) -> None:
    """16 visual tokens per image."""
    tokenizer = _tokenizer("<image_placeholder>")
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessor(size=SIZE, min_size=8), tokenizer, chat_template=TEMPLATE, num_image_tokens=16
    )
    config = DeepseekVLConfig(
        text_config=llama(spare(tokenizer), tokenizer),
        vision_config=siglip(8),
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
    )
    save(folder, DeepseekVLForConditionalGeneration(config), processor)


def deepseek_vl_hybrid(folder: Path) -> None:
    """16 visual tokens per image, each of them from two towers: one sees the image at twice the size of the other."""
    tokenizer = _tokenizer("<image_placeholder>")
    large = {"height": 2 * IMAGE, "width": 2 * IMAGE}
    images = DeepseekVLHybridImageProcessor(size=SIZE, high_res_size=large, min_size=8)
    processor = DeepseekVLHybridProcessor(images, tokenizer, chat_template=TEMPLATE, num_image_tokens=16)
    sam = SamVisionConfig(
        hidden_size=HIDDEN,
        output_channels=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=2 * IMAGE,
        patch_size=8,
        mlp_dim=2 * HIDDEN,
        window_size=3,
        global_attn_indexes=[0, 1],
    )
    config = DeepseekVLHybridConfig(
        text_config=llama(spare(tokenizer), tokenizer),
        vision_config=siglip(8),
        high_res_vision_config=sam,
        image_token_id=processor.image_token_id,
        tie_word_embeddings=False,
    )
    model = DeepseekVLHybridForConditionalGeneration(config)
    torch.nn.init.constant_(
        model.model.high_res_vision_alpha, 0.5
    )  # 0 in a fresh model: no layer below the last counts
    save(folder, model, processor)


def deepseek_ocr2(folder: Path) -> None:
    """A causal encoder reads an image before the queries that become its 257 visual tokens; two tiles of 144 if it is
    large. The numbers of queries are the code's own."""
    tokenizer = _tokenizer("<image>")
    size = {"height": 16 * 16, "width": 16 * 16}
    processor = DeepseekOcr2Processor(
        DeepseekOcr2ImageProcessor(size=size, tile_size=12 * 16, max_patches=2),
        tokenizer,
        patch_size=4,
        downsample_ratio=4,
        chat_template=OCR_TEMPLATE,
    )
    layers = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2}
    sam = {"image_size": 256, "patch_size": 4, "output_channels": HIDDEN, "downsample_channels": [HIDDEN, HIDDEN]}
    tower = {
        "sam_config": layers | sam | {"mlp_ratio": 2.0, "window_size": 8, "global_attn_indexes": [1]},
        "encoder_config": layers | {"vocab_size": 1, "intermediate_size": 2 * HIDDEN, "num_key_value_heads": 1},
    }
    tokenizer.model_max_length = 2 * WINDOW
    text = text_options(spare(tokenizer), tokenizer)
    text |= {"num_key_value_heads": 4, "max_position_embeddings": 2 * WINDOW}
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
    config = DeepseekOcr2Config(
        vision_config=tower,
        text_config=text | experts | {"moe_intermediate_size": HIDDEN, "mlp_layer_types": ["dense", "sparse"]},
        image_token_id=processor.image_token_id,
    )
    save(folder, DeepseekOcr2ForConditionalGeneration(config), processor)


def unlimited_ocr(folder: Path) -> None:
    """21 visual tokens per image, line ends among them, and as many or more for the two or three tiles of a larger one;
    the decoder keeps all of a prompt, and a window of the answer."""
    tokenizer = _tokenizer("<image>", "<|det|>", "<|/det|>", "<PAGE>")
    processor = UnlimitedOcrProcessor(
        UnlimitedOcrImageProcessor(size={"height": 64, "width": 64}, tile_size=48, max_patches=3),
        tokenizer,
        patch_size=4,
        downsample_ratio=4,
        chat_template=UNLIMITED_TEMPLATE,
    )
    layers = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2}
    sam = {"image_size": 64, "patch_size": 4, "output_channels": HIDDEN, "downsample_channels": [HIDDEN, HIDDEN]}
    tower = {
        "sam_config": layers | sam | {"mlp_dim": 2 * HIDDEN, "window_size": 4, "global_attn_indexes": [1]},
        "encoder_config": layers | {"intermediate_size": 2 * HIDDEN, "image_size": 64, "patch_size": 16},
    }
    text = text_options(spare(tokenizer), tokenizer) | {"num_key_value_heads": 4, "sliding_window": 16}
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
    config = UnlimitedOcrConfig(
        vision_config=tower,
        text_config=text | experts | {"moe_intermediate_size": HIDDEN, "mlp_layer_types": ["dense", "sparse"]},
        image_token_id=processor.image_token_id,
    )
    save(folder, UnlimitedOcrForConditionalGeneration(config), processor)
