"""Nemotron 3 Nano Omni."""

from pathlib import Path

from transformers import (
    NemotronH_Omni_Reasoning_V3,
    NemotronH_Omni_Reasoning_V3_Config,
    NemotronH_Omni_Reasoning_V3ImageProcessor,
    NemotronH_Omni_Reasoning_V3Processor,
    NemotronH_Omni_Reasoning_V3VideoProcessor,
    NemotronHConfig,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    RadioConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options

# There is always a system turn, and an answer without thoughts begins with empty ones.
TEMPLATE = """{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n<|im_end|>\n' }}{% endif %}\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{{ '<think></think>' if message['role'] == 'assistant' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n' }}{% endif %}"""


def nemotron_h_omni(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; Mamba, experts, attention and an MLP in a layer each.

    Its audio tower is there, and nothing here uses it.
    """
    special = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    media = ["<image>", "<img>", "</img>", "<so_embedding>", "<so_start>", "<so_end>"]
    tokenizer = byte_level_tokenizer(
        [*special, *media], bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>", unk_token="<unk>"
    )
    sizes = {"patch_size": 8, "downsample_ratio": 0.5}
    statistics = {"norm_mean": [0.5, 0.5, 0.5], "norm_std": [0.25, 0.25, 0.25]}
    processor = NemotronH_Omni_Reasoning_V3Processor(
        NemotronH_Omni_Reasoning_V3ImageProcessor(**sizes, **statistics, min_num_patches=16, max_num_patches=64),
        NemotronH_Omni_Reasoning_V3VideoProcessor(**sizes, **statistics, video_target_num_patches=16),
        tokenizer,
        ParakeetFeatureExtractor(feature_size=16),
        chat_template=TEMPLATE,
    )
    options = text_options(spare(tokenizer), tokenizer)
    del options["num_hidden_layers"]
    text = NemotronHConfig(
        **options,
        head_dim=8,
        layers_block_type=["linear_attention", "moe", "full_attention", "mlp"],
        mamba_num_heads=4,
        mamba_head_dim=16,
        n_groups=2,
        ssm_state_size=8,
        n_routed_experts=4,
        moe_intermediate_size=HIDDEN,
        moe_shared_expert_intermediate_size=HIDDEN,
    )
    tower = RadioConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2.0,
        patch_size=8,
        image_size=64,
        max_img_size=128,
        video_temporal_patch_size=2,
    )
    audio = ParakeetEncoderConfig(
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        subsampling_conv_channels=4,
        num_mel_bins=16,
    )
    audio.projection_hidden_size, audio.projection_bias = HIDDEN, False
    config = NemotronH_Omni_Reasoning_V3_Config(
        text_config=text,
        vision_config=tower,
        audio_config=audio,
        projector_hidden_size=2 * HIDDEN,
        vision_hidden_size=HIDDEN,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        audio_token_id=tokenizer.convert_tokens_to_ids("<so_embedding>"),
    )
    save(folder, NemotronH_Omni_Reasoning_V3(config), processor)
