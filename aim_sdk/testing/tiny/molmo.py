"""Molmo 2."""

from pathlib import Path

from transformers import (
    Molmo2AdapterConfig,
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2TextConfig,
    Molmo2VideoProcessor,
    Molmo2VisionConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, text_options

TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

VOCAB = 512  # of the head: the tokens of an image come after it


def molmo2(folder: Path) -> None:
    """4 visual tokens for the whole picture, then 4 to 9 of up to 4 overlapping tiles; marks end the lines; visual
    tokens see each other; `<|im_end|>` begins the prompt too."""
    spares = [f"|<EXTRA_TOKENS_{number}>|" for number in range(VOCAB - 483)]
    ends = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<frame_start>", "<frame_end>"]
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *spares, *ends, "<im_low>", "<|image|>", "<|video|>"],
        bos_token="<|im_end|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    size = {"height": IMAGE, "width": IMAGE}
    processor = Molmo2Processor(
        Molmo2ImageProcessor(size=size, patch_size=8, overlap_margins=[1, 1], max_crops=4),
        Molmo2VideoProcessor(size=size, patch_size=8),
        tokenizer,
        chat_template=TEMPLATE,
    )
    text = Molmo2TextConfig(
        **text_options(VOCAB, tokenizer),
        additional_vocab_size=len(tokenizer) - VOCAB,
        head_dim=8,
    )
    heads = {"hidden_size": HIDDEN, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    tower = Molmo2VisionConfig(
        **heads, intermediate_size=2 * HIDDEN, num_hidden_layers=2, image_size=[IMAGE, IMAGE], patch_size=8
    )
    adapter = Molmo2AdapterConfig(
        **heads, vision_feature_layer=[1, 0], intermediate_size=2 * HIDDEN, text_hidden_size=HIDDEN
    )
    names = {"image_start": "im_start", "image_end": "im_end", "low_res_image_start": "low_res_im_start"}
    names |= {"frame_start": "frame_start", "frame_end": "frame_end"}
    config = Molmo2Config(
        text_config=text,
        vision_config=tower,
        adapter_config=adapter,
        image_patch_id=tokenizer.convert_tokens_to_ids("<im_patch>"),
        **{f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<{name}>") for role, name in names.items()},
    )
    save(folder, Molmo2ForConditionalGeneration(config), processor)
