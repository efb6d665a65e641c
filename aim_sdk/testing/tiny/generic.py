"""Decoder-only families that no backend of ours knows by name: InternVL, Gemma 3 and Aya Vision."""

from pathlib import Path

from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaTokenizer,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
)

from .common import (
    IMAGE,
    WINDOW,
    byte_level_tokenizer,
    qwen2,
    save,
    sentencepiece_bpe,
    siglip,
    text_options,
    tower_options,
)

CHATML = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}\
{{ '<IMG_CONTEXT>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

GEMMA = """{{ bos_token }}{% for message in messages %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}\
{% for part in message['content'] %}\
{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}\
{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

AYA = """{{ bos_token }}{% for message in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}\
{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[message['role']] }}\
{{ '<|START_RESPONSE|>' if message['role'] == 'assistant' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|END_RESPONSE|>' if message['role'] == 'assistant' }}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>' }}{% endif %}"""

SIZE = {"height": IMAGE, "width": IMAGE}


def internvl(folder: Path) -> None:
    """4 visual tokens a tile, up to two tiles and a thumbnail."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    spatial = ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
    tokenizer = byte_level_tokenizer(
        [*special, *spatial],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=SIZE, crop_to_patches=True, max_patches=2),
        tokenizer,
        InternVLVideoProcessor(size=SIZE),
        image_seq_length=4,
        chat_template=CHATML,
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**tower_options(8)),
        text_config=qwen2(len(tokenizer), tokenizer),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    save(folder, InternVLForConditionalGeneration(config), processor)


def gemma3(folder: Path) -> None:
    """4 visual tokens per image, which see each other; a sliding layer and a full one; `<unused0>` and its like."""
    vocab, merges = sentencepiece_bpe("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    tokenizer = GemmaTokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        extra_special_tokens=[*(f"<unused{i}>" for i in range(6)), "<start_of_turn>", "<end_of_turn>"],
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        model_max_length=WINDOW,
        add_bos_token=True,
    )
    processor = Gemma3Processor(Gemma3ImageProcessor(size=SIZE), tokenizer, chat_template=GEMMA, image_seq_length=4)
    text = Gemma3TextConfig(
        **text_options(len(tokenizer), tokenizer),
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=siglip(8),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    save(folder, Gemma3ForConditionalGeneration(config), processor, eos="<end_of_turn>")


def aya_vision(folder: Path) -> None:
    """4 visual tokens a tile, up to two tiles and a thumbnail, each announced by a token of its own."""
    roles = [
        "<|START_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|SYSTEM_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
    ]
    images = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "<|IMG_PATCH|>", "TILE_GLOBAL"]
    tokenizer = byte_level_tokenizer(
        [
            *("<PAD>", "<UNK>", "<BOS_TOKEN>", "<EOS_TOKEN>", *roles, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
            *(f"<|EXTRA_{i}_TOKEN|>" for i in range(4)),
            *(*images, "TILE", *(f"TILE_{i}" for i in range(1, 13))),
        ],
        bos="<BOS_TOKEN>",
        bos_token="<BOS_TOKEN>",
        eos_token="<|END_OF_TURN_TOKEN|>",
        pad_token="<PAD>",
        unk_token="<UNK>",
    )
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessor(size=SIZE, crop_to_patches=True, max_patches=2),
        tokenizer,
        patch_size=8,
        img_size=IMAGE,
        downsample_factor=2,
        chat_template=AYA,
    )
    text = Cohere2Config(
        **text_options(len(tokenizer), tokenizer),
        sliding_window=64,
        layer_types=["sliding_attention", "full_attention"],
        logit_scale=1.0,
    )
    config = AyaVisionConfig(
        vision_config=siglip(8),
        text_config=text,
        downsample_factor=2,
        image_token_index=processor.image_token_id,
    )
    save(folder, AyaVisionForConditionalGeneration(config), processor)
