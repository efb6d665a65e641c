"""Muse Glimmer and Muse Spark."""

from pathlib import Path
from typing import Any

from transformers import (
    MuseGlimmerConfig,
    MuseGlimmerForConditionalGeneration,
    MuseGlimmerImageProcessor,
    MuseGlimmerProcessor,
    MuseGlimmerVideoProcessor,
    MuseSparkConfig,
    MuseSparkFeatureExtractor,
    MuseSparkForConditionalGeneration,
    MuseSparkProcessor,
    PreTrainedTokenizerBase,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options, tower_options
from .qwen import PATCH, PATCHES

TEMPLATE = """{{ bos_token + '<|start|>system<|message|>' }}\
{{ messages[0]['content'][0]['text'] if messages[0]['role'] == 'system' else 'You are a helpful AI assistant.' }}\
{{ '\n\nReasoning strength: ' + (reasoning_strength or 'high') }}\
{{ '.\n\n# Valid recipients: "self", "user".<|eot|>' }}\
{% for message in messages if message['role'] != 'system' %}\
{{ '<|start|>' + message['role'] + (' to=user' if message['role'] == 'assistant' else '') + '<|message|>' }}\
{% for part in message['content'] %}{{ '<|patch|>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

IMAGES = {**PATCHES, "max_image_tokens": 16}


def _tokenizer() -> PreTrainedTokenizerBase:
    turns = ["begin_of_text", "end_of_text", "start", "message", "eom", "eot", "finetune_right_pad"]
    media = ["image_start", "image_end", "patch", "video", "vid_start", "vid_end", "vid_frame_separator"]
    sounds = ["audio", "soft_audio_start", "soft_audio_end"]
    return byte_level_tokenizer(
        [f"<|{name}|>" for name in (*turns, *media, *sounds)],
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|finetune_right_pad|>",
    )


def _config(tokenizer: PreTrainedTokenizerBase, **text: Any) -> dict[str, Any]:
    """A windowed layer and a full one without positions; the tower's windows are 32 pixels square."""
    layers: dict[str, Any] = {
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "head_dim": 8,
    }
    layers |= {"output_multiplier": (256 / HIDDEN) ** 0.5}
    tower = tower_options(PATCH) | {"num_attention_heads": 2, "pos_emb_height": 4, "pos_emb_width": 4}
    return {
        "text_config": text_options(spare(tokenizer), tokenizer) | layers | text,
        "vision_config": tower | {"layer_types": ["window_attention", "full_attention"]},
        "image_token_id": tokenizer.convert_tokens_to_ids("<|patch|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video|>"),
        "out_hidden_size": 4 * HIDDEN,
        "projector_hidden_size": HIDDEN,
    }


def muse_glimmer(folder: Path) -> None:
    """A visual token for 16 pixels square, up to 16, between two marks; the model itself writes to whom it answers."""
    tokenizer = _tokenizer()
    processor = MuseGlimmerProcessor(
        MuseGlimmerImageProcessor(**IMAGES), MuseGlimmerVideoProcessor(**PATCHES), tokenizer, chat_template=TEMPLATE
    )
    config = MuseGlimmerConfig(**_config(tokenizer))
    save(folder, MuseGlimmerForConditionalGeneration(config), processor, eos="<|eot|>")


def muse_spark(folder: Path) -> None:
    """Muse Glimmer with experts of their own width, gates in place of sums, and an unused audio tower."""
    tokenizer = _tokenizer()
    processor = MuseSparkProcessor(
        MuseGlimmerImageProcessor(**IMAGES),
        MuseGlimmerVideoProcessor(**PATCHES),
        tokenizer,
        MuseSparkFeatureExtractor(samples_per_token=16),
        chat_template=TEMPLATE,
    )
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN}
    sounds = {"patch_sizes": [4, 4], "hidden_sizes": [8, 16], "depths": [1, 1], "num_hidden_layers": 2}
    config = MuseSparkConfig(
        **_config(tokenizer, **experts, moe_hidden_size=HIDDEN // 2, mlp_layer_types=["dense", "sparse"]),
        audio_config=sounds | {"out_hidden_size": HIDDEN},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio|>"),
    )
    save(folder, MuseSparkForConditionalGeneration(config), processor, eos="<|eot|>")
