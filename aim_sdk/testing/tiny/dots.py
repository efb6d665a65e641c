"""dots3 note."""

from pathlib import Path
from typing import Any

from transformers import (
    Dots3NoteConfig,
    Dots3NoteFeatureExtractor,
    Dots3NoteForConditionalGeneration,
    Dots3NoteProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen3VLVideoProcessor,
)

from .common import HIDDEN, WINDOW, byte_level_bpe, save, spare, text_options
from .qwen import SIZE

TEMPLATE = """{% for message in messages %}\
{% set role = 'systemprompt' if message['role'] == 'system' else message['role'] %}{{ '<|' + role + '|>' }}\
{% for part in message['content'] %}\
{{ '<|img|><|imgpad|><|endofimg|>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|endof' + role + '|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""

PATCHES: dict[str, Any] = {"patch_size": 8, "temporal_patch_size": 1, "merge_size": 2}


def dots3_note(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; latent attention with gates, in one layer to 16 chosen
    tokens and in the other to a window; experts in the tower, too; an audio tower that nothing here uses."""
    roles = [f"<|{end}{role}|>" for role in ("systemprompt", "user", "assistant") for end in ("", "endof")]
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        bos_token="<|endoftext|>",
        eos_token="<|endofassistant|>",
        pad_token="<|pad|>",
        extra_special_tokens=[
            *("<|imgpad|>", "<|img|>", "<|endofimg|>", *roles, "<|video_pad|>"),
            *("<|audio_comp_start|>", "<|audio_comp_pad|>", "<|audio_comp_end|>"),
        ],
        model_max_length=WINDOW,
    )
    processor = Dots3NoteProcessor(
        Qwen2VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        Qwen3VLVideoProcessor(size=SIZE, **PATCHES),
        Dots3NoteFeatureExtractor(feature_size=16),
        chat_template=TEMPLATE,
    )
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 8}
    text = text_options(spare(tokenizer), tokenizer) | heads | latent
    text |= {"qk_rope_head_dim": 8, "head_dim": 16, "layer_types": ["indexed_attention", "sliding_attention"]}
    text |= {f"swa_{name}": value for name, value in (heads | latent | {"head_dim": 16}).items()}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "mlp_layer_types": ["dense", "sparse"]}
    experts |= {"moe_intermediate_size": HIDDEN, "shared_experts_intermediate_size": HIDDEN}
    index = {"index_topk": 16, "index_head_dim": 16, "index_n_heads": 16, "sliding_window": 64}
    tower = {"hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2}
    adapter = {"adapter_in_dim": HIDDEN, "adapter_out_dim": HIDDEN, "patch_size": 8}
    config = Dots3NoteConfig(
        text_config=text | experts | index,
        vision_config=tower | adapter | {"moe_intermediate_size": HIDDEN, "pyramid_num_routed": [-1, 4]},
        audio_config=tower
        | {"feature_size": 16, "downsample_hidden_size": 8, "adapter_input_size": HIDDEN, "adapter_out_dim": HIDDEN},
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        audio_token_id=processor.audio_token_id,
    )
    save(folder, Dots3NoteForConditionalGeneration(config), processor)
