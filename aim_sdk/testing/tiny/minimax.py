"""MiniMax M3."""

from pathlib import Path

from transformers import (
    MiniMaxM3SparseForConditionalGeneration,
    MiniMaxM3VLConfig,
    MiniMaxM3VLImageProcessor,
    MiniMaxM3VLProcessor,
    MiniMaxM3VLTextConfig,
    MiniMaxM3VLVideoProcessor,
    MiniMaxM3VLVisionConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, spare, text_options
from .qwen import PATCH, PATCHES, SIZE

TEMPLATE = """{{ ']~!b[]~b]system\nYou are a helpful assistant.[e~[\n' }}{% for message in messages %}\
{{ ']~b]' + {'system': 'developer', 'user': 'user', 'assistant': 'ai'}[message['role']] + '\n' }}\
{{ '</mm:think>' if message['role'] == 'assistant' }}\
{% for part in message['content'] %}{{ ']<]image[>[' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '[e~[\n' }}{% endfor %}{% if add_generation_prompt %}{{ ']~b]ai\n' }}{% endif %}"""


def minimax_m3_vl(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; a full layer, and one that chooses among blocks of 16
    earlier tokens; experts, one of them shared; an answer begins with the end of a thought that is not there."""
    media = [f"]<]{mark}{kind}[>[" for kind in ("speech", "image", "video") for mark in ("", "start of ", "end of ")]
    tokenizer = byte_level_tokenizer(
        ["]!p~[", "]!d~[", "]~!b[", "]~b]", "[e~[", *media, "]<]vision pad[>[", "<mm:think>", "</mm:think>"],
        bos_token="]~!b[",
        eos_token="[e~[",
        pad_token="]!p~[",
        unk_token="]!d~[",
    )
    processor = MiniMaxM3VLProcessor(
        MiniMaxM3VLImageProcessor(size=SIZE, **PATCHES),
        tokenizer,
        MiniMaxM3VLVideoProcessor(size=SIZE, **PATCHES),
        chat_template=TEMPLATE,
    )
    text = MiniMaxM3VLTextConfig(
        **text_options(spare(tokenizer), tokenizer),
        head_dim=8,
        rotary_dim=4,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
        num_local_experts=4,
        num_experts_per_tok=2,
        dense_intermediate_size=2 * HIDDEN,
        shared_intermediate_size=HIDDEN,
        mlp_layer_types=["dense", "sparse"],
        layer_types=["full_attention", "minimax_m3_sparse"],
        index_n_heads=2,
        index_head_dim=8,
        index_block_size=16,
        index_topk_blocks=4,
    )
    tower = MiniMaxM3VLVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE,
        patch_size=PATCH,
    )
    config = MiniMaxM3VLConfig(
        text_config=text,
        vision_config=tower,
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        projector_hidden_size=HIDDEN,
    )
    save(folder, MiniMaxM3SparseForConditionalGeneration(config), processor)
