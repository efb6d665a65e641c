"""Mistral 3 and Mistral Large 4, both with a Pixtral tower."""

from pathlib import Path

from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralLarge4Config,
    MistralLarge4ForConditionalGeneration,
    MistralLarge4TextConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, mistral, save, text_options, tower_options

TEMPLATE = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + message['content'][0]['text'] + '[/SYSTEM_PROMPT]' }}\
{% elif message['role'] == 'user' %}{{ '[INST]' }}\
{% for part in message['content'] %}{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '[/INST]' }}\
{% else %}{{ message['content'][0]['text'] + eos_token }}{% endif %}{% endfor %}"""


def _processor() -> PixtralProcessor:
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"]
    tokenizer = byte_level_tokenizer(
        [*special, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", *(f"<SPECIAL_{i}>" for i in range(4))],
        bos="<s>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    return PixtralProcessor(
        PixtralImageProcessor(size={"longest_edge": IMAGE}, patch_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=TEMPLATE,
    )


def mistral3(folder: Path) -> None:
    """A visual token for 16 pixels square, up to 2 lines of 2, each closed by a token of its own."""
    processor = _processor()
    tokenizer = processor.tokenizer
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**tower_options(8)),
        text_config=mistral(len(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    save(folder, Mistral3ForConditionalGeneration(config), processor)


def mistral_large4(folder: Path) -> None:
    """Mistral 3's images; latent keys, of which an indexer picks up to 32; experts; a layer without positions."""
    processor = _processor()
    tokenizer = processor.tokenizer
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 512}
    text = MistralLarge4TextConfig(
        **text_options(len(tokenizer), tokenizer) | {"num_key_value_heads": 4},
        moe_intermediate_size=HIDDEN,
        n_routed_experts=4,
        num_experts_per_tok=2,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        index_head_dim=16,
        index_n_heads=16,  # with few heads scores tie at 0
        index_topk=32,
        no_rope_layers=[1, 0],
        rope_parameters=rope | {"attention_factor": 1.0},
    )
    config = MistralLarge4Config(
        vision_config=PixtralVisionConfig(**tower_options(8)),
        text_config=text,
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
    )
    save(folder, MistralLarge4ForConditionalGeneration(config), processor)
