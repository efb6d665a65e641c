"""Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni, Qwen3-VL, Qwen3-Omni and Qwen3.5 (with and without experts)."""

from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5Tokenizer,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    WhisperFeatureExtractor,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_bpe, save, spare

_NAMES = "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end vision_start"
SPECIAL = [f"<|{name}|>" for name in (*_NAMES.split(), "vision_end", "vision_pad", "image_pad", "video_pad")]

SYSTEM = """{% if messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"""

TURNS = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}\
{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

THINKING = """{% if add_generation_prompt %}\
{{ '<think>\n' if enable_thinking is defined and enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}"""

ENDS = {"bos": "start", "eos": "end"}  # of Qwen3-Omni's marks around pictures and sounds: attribute and token
PATCH = 8
SIZE = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}  # in pixels: 4 to 16 visual tokens per image
PATCHES: dict[str, Any] = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}


def _tokenizer(
    kind: type[PreTrainedTokenizerBase], extra: tuple[str, ...] = (), **options: Any
) -> PreTrainedTokenizerBase:
    vocab, merges = byte_level_bpe()
    tokenizer = kind(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=SPECIAL,
        model_max_length=WINDOW,
        **options,
    )
    tokenizer.add_tokens(list(extra))
    return tokenizer


def _ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{role}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in names.items()}


def _text(tokenizer: PreTrainedTokenizerBase, **options: Any) -> dict[str, Any]:
    return {
        "vocab_size": spare(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": WINDOW,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        **options,
    }


def _vision(**options: Any) -> dict[str, Any]:
    patches = {"patch_size": PATCH, "temporal_patch_size": 2, "spatial_merge_size": 2}
    return {"depth": 2, "num_heads": 2, **patches, **options}


def _vision_3(**options: Any) -> dict[str, Any]:
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "out_hidden_size": HIDDEN}
    return _vision(**sizes, num_position_embeddings=(IMAGE // PATCH) ** 2, **options)


def qwen2_vl(folder: Path) -> None:
    tokenizer = _tokenizer(Qwen2Tokenizer, padding_side="left")
    videos = Qwen2VLVideoProcessor(size=SIZE, **PATCHES)
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES), tokenizer, videos, chat_template=SYSTEM + TURNS
    )
    config = Qwen2VLConfig(
        text_config=_text(tokenizer),
        vision_config=_vision(embed_dim=HIDDEN, hidden_size=HIDDEN, mlp_ratio=2),
        **_ids(tokenizer),
    )
    save(folder, Qwen2VLForConditionalGeneration(config), processor)


def qwen2_5_vl(folder: Path) -> None:
    tokenizer = _tokenizer(Qwen2Tokenizer)
    videos = Qwen2VLVideoProcessor(size=SIZE, **PATCHES)
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES), tokenizer, videos, chat_template=SYSTEM + TURNS
    )
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "out_hidden_size": HIDDEN}
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer),
        vision_config=_vision(**sizes, window_size=4 * PATCH, fullatt_block_indexes=[1]),
        **_ids(tokenizer),
    )
    save(folder, Qwen2_5_VLForConditionalGeneration(config), processor)


def qwen2_5_omni(folder: Path) -> None:
    """The part that reads and writes text: Qwen2.5-VL with an audio tower that nothing here uses."""
    media = {"image": "IMAGE", "audio": "AUDIO", "video": "VIDEO"}
    ends = {f"{kind}_{end}": f"<|{kind}_{end}|>" for kind in ("vision", "audio") for end in ("bos", "eos")}
    marks = {f"{role}_token": f"<|{name}|>" for role, name in media.items()}
    marks |= {f"{role}_token": token for role, token in ends.items()}
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        model_max_length=WINDOW,
        **marks,
    )
    template = SYSTEM + TURNS
    for old, new in (("vision_start", "vision_bos"), ("image_pad", "IMAGE"), ("vision_end", "vision_eos")):
        template = template.replace(old, new)
    processor = Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        Qwen2VLVideoProcessor(size=SIZE, **PATCHES),
        WhisperFeatureExtractor(feature_size=16),
        tokenizer,
        chat_template=template.replace("video_pad", "VIDEO"),
    )
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "out_hidden_size": HIDDEN}
    config = Qwen2_5OmniThinkerConfig(
        text_config=_text(tokenizer),
        vision_config=_vision(**sizes, window_size=4 * PATCH, fullatt_block_indexes=[1]),
        audio_config={
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": HIDDEN,
            "d_model": HIDDEN,
            "output_dim": HIDDEN,
        },
        **{f"{role}_token_index": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for role, name in media.items()},
        audio_start_token_id=tokenizer.audio_bos_token_id,
        audio_end_token_id=tokenizer.audio_eos_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
        vision_end_token_id=tokenizer.vision_eos_token_id,
    )
    save(folder, Qwen2_5OmniThinkerForConditionalGeneration(config), processor)


def _processor_3(tokenizer: PreTrainedTokenizerBase, template: str) -> Qwen3VLProcessor:
    videos = Qwen3VLVideoProcessor(size=SIZE, **PATCHES)
    return Qwen3VLProcessor(Qwen2VLImageProcessor(size=SIZE, **PATCHES), tokenizer, videos, chat_template=template)


def qwen3_vl_parts(template: str) -> tuple[dict[str, Any], Qwen3VLProcessor]:
    """Qwen3-VL's configuration and processor, for a family that takes them over."""
    tokenizer = _tokenizer(Qwen2Tokenizer, ("<think>", "</think>"))
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = {
        "text_config": _text(tokenizer, head_dim=16, rope_parameters=rope),
        "vision_config": _vision_3(deepstack_visual_indexes=[0, 1]),
        **_ids(tokenizer),
    }
    return config, _processor_3(tokenizer, template)


def qwen3_vl(folder: Path) -> None:
    config, processor = qwen3_vl_parts(TURNS)
    save(folder, Qwen3VLForConditionalGeneration(Qwen3VLConfig(**config)), processor)


def qwen3_vl_moe(folder: Path) -> None:
    tokenizer = _tokenizer(Qwen2Tokenizer, ("<think>", "</think>"))
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN}
    config = Qwen3VLMoeConfig(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=rope, **experts),
        vision_config=_vision_3(deepstack_visual_indexes=[0, 1]),
        **_ids(tokenizer),
    )
    save(folder, Qwen3VLMoeForConditionalGeneration(config), _processor_3(tokenizer, TURNS))


def qwen3_omni_moe(folder: Path) -> None:
    """The part that reads and writes text: Qwen3-VL with experts, and an audio tower that nothing here uses."""
    media = {role: f"<|{role}_pad|>" for role in ("image", "audio", "video")}
    ends = {f"{kind}_{end}": f"<|{kind}_{name}|>" for kind in ("vision", "audio") for end, name in ENDS.items()}
    marks = {f"{role}_token": token for role, token in (media | ends).items()}
    tokenizer = _tokenizer(Qwen2Tokenizer, ("<think>", "</think>"), **marks)
    processor = Qwen3OmniMoeProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        Qwen2VLVideoProcessor(size=SIZE, **PATCHES),
        WhisperFeatureExtractor(feature_size=16),
        tokenizer,
        chat_template=TURNS,
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN}
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3OmniMoeThinkerConfig(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=rope, **experts),
        vision_config=_vision_3(deepstack_visual_indexes=[0, 1]),
        audio_config={
            "num_mel_bins": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": HIDDEN,
            "d_model": HIDDEN,
            "output_dim": HIDDEN,
            "downsample_hidden_size": 8,
        },
        **{f"{role}_token_id": token(mark) for role, mark in media.items()},
        **{
            f"{kind}_{end}_token_id": token(f"<|{kind}_{end}|>")
            for kind in ("vision", "audio")
            for end in ENDS.values()
        },
    )
    save(folder, Qwen3OmniMoeThinkerForConditionalGeneration(config), processor)


def _linear() -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    return {
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "rope_parameters": rope | {"partial_rotary_factor": 0.5},
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }


def linear_text(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The text part of Qwen3.5, which other families take over."""
    return _text(tokenizer, **_linear())


def qwen3_5(folder: Path) -> None:
    """One layer of linear attention, one of full attention; its generation prompt holds an empty thought."""
    tokenizer = _tokenizer(Qwen3_5Tokenizer, ("<think>", "</think>"))
    config = Qwen3_5Config(
        text_config=_text(tokenizer, **_linear()),
        vision_config=_vision_3(),
        **_ids(tokenizer),
    )
    save(folder, Qwen3_5ForConditionalGeneration(config), _processor_3(tokenizer, TURNS + THINKING))


def qwen3_5_moe(folder: Path) -> None:
    """Qwen3.5 with experts, one of them shared."""
    tokenizer = _tokenizer(Qwen3_5Tokenizer, ("<think>", "</think>"))
    sizes = {"moe_intermediate_size": HIDDEN, "shared_expert_intermediate_size": HIDDEN}
    config = Qwen3_5MoeConfig(
        text_config=_text(tokenizer, num_experts=4, num_experts_per_tok=2, **sizes, **_linear()),
        vision_config=_vision_3(),
        **_ids(tokenizer),
    )
    save(folder, Qwen3_5MoeForConditionalGeneration(config), _processor_3(tokenizer, TURNS + THINKING))
