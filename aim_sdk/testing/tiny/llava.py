"""LLaVA-1.5, VipLLaVA, LLaVA-NeXT and LLaVA-OneVision."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Qwen2Tokenizer,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from .common import IMAGE, WINDOW, byte_level_bpe, clip, llama, llama_tokenizer, mistral, qwen2, save, siglip, spare

PINPOINTS = [[IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE], [2 * IMAGE, 2 * IMAGE]]

VICUNA = """{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + ' ' }}{% else %}\
{{ message['role'].upper() + ': ' }}\
{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}\
{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}\
{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""

MISTRAL = """{% for message in messages %}\
{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] + '\n<</SYS>>\n\n' }}\
{% elif message['role'] == 'user' %}{{ '[INST] ' }}\
{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}\
{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}\
{{ ' [/INST]' }}\
{% else %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% endif %}{% endfor %}"""

HUMAN = """{% for message in messages %}\
{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}{% else %}\
{% if loop.first %}{{ 'A chat between a curious human and an artificial intelligence assistant. \
The assistant gives helpful, detailed, and polite answers to the human\\'s questions.' }}{% endif %}\
{{ '###Human: ' if message['role'] == 'user' else '###Assistant: ' }}\
{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}\
{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '###Assistant:' }}{% endif %}"""

ONEVISION = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}\
{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}\
{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}\
{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def _clip_processor(template: str) -> LlavaProcessor:
    tokenizer = llama_tokenizer(image_token="<image>", pad_token="<pad>", padding_side="left", legacy=False)
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def llava_15(folder: Path) -> None:
    """16 visual tokens per image."""
    processor = _clip_processor(VICUNA)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=clip(8),
        text_config=llama(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=16,
    )
    save(folder, LlavaForConditionalGeneration(config), processor)


def vipllava(folder: Path) -> None:
    """16 visual tokens per image, from several layers of the tower."""
    processor = _clip_processor(HUMAN)
    tokenizer = processor.tokenizer
    config = VipLlavaConfig(
        vision_config=clip(8),
        text_config=llama(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=16,
        vision_feature_layer=[-1, -2, 0],
    )
    save(folder, VipLlavaForConditionalGeneration(config), processor)


def llava_next(folder: Path) -> None:
    """4 visual tokens for the whole image, up to 20 for its tiles and line ends; the left, legacy Mistral tokenizer."""
    tokenizer = llama_tokenizer(image_token="<image>", pad_token="<pad>", padding_side="left", legacy=True)
    images = LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE}, image_grid_pinpoints=PINPOINTS
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL,
    )
    config = LlavaNextConfig(
        vision_config=clip(16),
        text_config=mistral(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=4,
    )
    save(folder, LlavaNextForConditionalGeneration(config), processor)


def llava_onevision(folder: Path) -> None:
    """4 visual tokens for the whole image, up to 20 for its tiles and line ends; 5 an image where there are several."""
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        image_token="<image>",
        video_token="<video>",
        model_max_length=WINDOW,
    )
    pinpoints = [[IMAGE, IMAGE], *PINPOINTS]
    size = {"height": IMAGE, "width": IMAGE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION,
    )
    config = LlavaOnevisionConfig(
        vision_config=siglip(16),
        text_config=qwen2(spare(tokenizer), tokenizer, tied=True),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=True,
    )
    save(folder, LlavaOnevisionForConditionalGeneration(config), processor)
