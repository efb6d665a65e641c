"""GLM-5 Next."""

from pathlib import Path

from transformers import (
    Glm5NextConfig,
    Glm5NextForConditionalGeneration,
    Glm5NextImageProcessor,
    Glm5NextProcessor,
    Glm5NextVideoProcessor,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_tokenizer, save, spare
from .glm import SPECIAL

# No mark ends an answer: the next role does. An answer without thoughts begins with their end.
TEMPLATE = """{{ '[gMASK]<sop>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}\
{{ '</think>' if message['role'] == 'assistant' }}{% for part in message['content'] %}\
{{ '<|begin_of_image|><|image|><|end_of_image|>' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{% endfor %}{% if add_generation_prompt %}\
{{ '<|assistant|>' + ('</think>' if enable_thinking is defined and not enable_thinking else '<think>') }}{% endif %}"""

_ENDS = {"start": "begin", "end": "end"}


def glm5_next(folder: Path) -> None:
    """A visual token for 16 pixels square; linear attention, then latent attention to chosen places; experts."""
    names = {f"{kind}_{end}": f"<|{word}_of_{kind}|>" for kind in ("image", "video") for end, word in _ENDS.items()}
    names |= {"image": "<|image|>", "video": "<|video|>"}
    tokenizer = byte_level_tokenizer(
        [*SPECIAL, *names.values(), "<think>", "</think>"],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        image_token="<|image|>",
        video_token="<|video|>",
    )
    sizes = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2, "min_image_tokens": 4, "max_image_tokens": 16}
    processor = Glm5NextProcessor(
        Glm5NextImageProcessor(**sizes), tokenizer, Glm5NextVideoProcessor(**sizes), chat_template=TEMPLATE
    )
    text = {
        "vocab_size": spare(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "indexed_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": WINDOW,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 8},
        **{"index_topk": 32, "index_kpool": 4, "index_head_dim": 8, "index_n_heads": 8},
        **{"linear_head_dim": 8, "linear_num_heads": 4},
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN},
        **{"hc_mult": 2, "hc_sinkhorn_iters": 4},
    }
    vision = {
        **{"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "image_size": IMAGE},
        **{"out_hidden_size": HIDDEN, "projection_intermediate_size": 2 * HIDDEN, "patch_size": 8},
    }
    config = Glm5NextConfig(
        text_config=text,
        vision_config=vision,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )
    save(folder, Glm5NextForConditionalGeneration(config), processor, eos="<|user|>")
