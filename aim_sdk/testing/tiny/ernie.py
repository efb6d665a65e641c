"""ERNIE 4.5 VL."""

from pathlib import Path

from transformers import (
    Ernie4_5_VLMoeConfig,
    Ernie4_5_VLMoeForConditionalGeneration,
    Ernie4_5_VLMoeImageProcessor,
    Ernie4_5_VLMoeProcessor,
    Ernie4_5_VLMoeVideoProcessor,
)

from .common import HIDDEN, metaspace_tokenizer, save, spare, text_options
from .qwen import SIZE

# It numbers the pictures of a conversation.
TEMPLATE = """{% set pictures = namespace(value=0) %}{{ '<|begin_of_sentence|>' }}{% for message in messages %}\
{{ {'system': '', 'user': 'User: ', 'assistant': '\nAssistant: '}[message['role']] }}\
{% for part in message['content'] %}{% if part['type'] == 'image' %}{% set pictures.value = pictures.value + 1 %}\
{{ 'Picture ' ~ pictures.value ~ ':<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>' }}\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}\
{{ {'system': '\n', 'user': '', 'assistant': '<|end_of_sentence|>'}[message['role']] }}{% endfor %}\
{% if add_generation_prompt %}{{ '\nAssistant: ' }}\
{{ '<think>' if enable_thinking is defined and enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}"""

_PARTS = {"": "PLACEHOLDER", "_start": "START", "_end": "END"}


def ernie4_5_vl_moe(folder: Path) -> None:
    """A visual token for 16 pixels square; a dense layer, then experts of text and experts of images."""
    kinds = ("IMAGE", "VIDEO")
    media = {f"{kind.lower()}{name}": f"<|{kind}_{part}|>" for kind in kinds for name, part in _PARTS.items()}
    tokenizer = metaspace_tokenizer(
        *("<unk>", "<s>", "</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>", "<think>", "</think>"),
        *media.values(),
        prepend="never",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        unk_token="<unk>",
        cls_token="<|begin_of_sentence|>",
        sep_token="<|end_of_sentence|>",
        **{f"{name}_token": token for name, token in media.items()},
    )
    patches = {"patch_size": 8, "merge_size": 2}
    videos = Ernie4_5_VLMoeVideoProcessor(size=SIZE, draw_on_frames=False, **patches)
    processor = Ernie4_5_VLMoeProcessor(
        Ernie4_5_VLMoeImageProcessor(size=SIZE, **patches), tokenizer, videos, chat_template=TEMPLATE
    )
    text = {
        **text_options(spare(tokenizer), tokenizer) | {"num_attention_heads": 2, "num_key_value_heads": 1},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [3, 3, 2]},
        "mlp_layer_types": ["dense", "sparse"],
        **{"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1, "moe_intermediate_size": [HIDDEN, 16]},
    }
    vision = {
        **{"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN},
        **{"patch_size": 8, "spatial_merge_size": 2},
    }
    config = Ernie4_5_VLMoeConfig(
        text_config=text,
        vision_config=vision,
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in media.items()},
    )
    save(folder, Ernie4_5_VLMoeForConditionalGeneration(config), processor)
