"""Idefics 1, 2 and 3 and SmolVLM: embedding matrices without spare rows."""

from pathlib import Path
from typing import Any

from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsImageProcessor,
    IdeficsProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_tokenizer, llama, llama_tokenizer, mistral, save, tower_options

TURNS = """{% for message in messages %}{{ message['role'].capitalize() }}\
{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

TILES = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
TOWER = tower_options(8)
RESAMPLER: dict[str, Any] = {
    "resampler_n_latents": 6,
    "resampler_depth": 2,
    "resampler_n_heads": 2,
    "resampler_head_dim": 16,
}


def idefics(folder: Path) -> None:
    """One `<image>` in the text, 6 latents in gated cross-attention; no chat template, no reserved token."""
    special = ["<fake_token_around_image>", "<image>"]
    tokenizer = llama_tokenizer(pad_token="<unk>", extra_special_tokens=special, padding_side="left", legacy=False)
    config = IdeficsConfig(
        vocab_size=len(tokenizer) - len(special),
        additional_vocab_size=len(special),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=WINDOW,
        alpha_initializer="ones",
        qk_layer_norms=True,
        use_resampler=True,
        vision_config={"embed_dim": HIDDEN, **{name: size for name, size in TOWER.items() if name != "hidden_size"}},
        perceiver_config={"use_resampler": True, **RESAMPLER},
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = IdeficsProcessor(IdeficsImageProcessor(image_size=IMAGE), tokenizer)
    save(folder, IdeficsForVisionText2Text(config), processor)


def idefics2(folder: Path) -> None:
    """6 visual tokens per image between two `<fake_token_around_image>`; no reserved token."""
    tokenizer = llama_tokenizer(pad_token="<unk>", padding_side="left", legacy=False)
    images = Idefics2ImageProcessor(size={"shortest_edge": 24, "longest_edge": IMAGE}, do_image_splitting=False)
    processor = Idefics2Processor(images, tokenizer, image_seq_len=6, chat_template=TURNS)
    config = Idefics2Config(
        vision_config=TOWER,
        perceiver_config={"hidden_size": HIDDEN, "num_key_value_heads": 1, **RESAMPLER},
        text_config=mistral(len(tokenizer), tokenizer),
        image_token_id=processor.image_token_id,
    )
    save(folder, Idefics2ForConditionalGeneration(config), processor, eos="<end_of_utterance>")


def idefics3(folder: Path) -> None:
    """4 visual tokens for the whole image and 4 a tile, up to 4 tiles; Llama 3's reserved tokens."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)), *TILES]
    tokenizer = byte_level_tokenizer(
        [*special, "<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|reserved_special_token_0|>",
    )
    images = Idefics3ImageProcessor(size={"longest_edge": 2 * IMAGE}, max_image_size={"longest_edge": IMAGE})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template="<|begin_of_text|>" + TURNS)
    config = Idefics3Config(
        vision_config=TOWER,
        text_config=llama(len(tokenizer), tokenizer),
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save(folder, Idefics3ForConditionalGeneration(config), processor, eos="<end_of_utterance>")


def smolvlm(folder: Path) -> None:
    """4 visual tokens for the whole image and 4 a tile, up to 4 tiles; the processor needs `num2words`."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<global-img>", *TILES]
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(4)]
    tokenizer = byte_level_tokenizer(
        [*special, "<fake_token_around_image>", "<image>", *reserved, "<end_of_utterance>"],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
    )
    size = {"longest_edge": 2 * IMAGE}
    images = SmolVLMImageProcessor(size=size, max_image_size={"longest_edge": IMAGE})
    videos = SmolVLMVideoProcessor(size=size, max_image_size={"longest_edge": IMAGE}, num_frames=4, fps=1)
    processor = SmolVLMProcessor(images, tokenizer, videos, image_seq_len=4, chat_template="<|im_start|>" + TURNS)
    config = SmolVLMConfig(
        vision_config=TOWER,
        text_config=llama(len(tokenizer), tokenizer),
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save(folder, SmolVLMForConditionalGeneration(config), processor)
