"""PerceptionLM with a small perception encoder of timm."""

from pathlib import Path

from transformers import (
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PerceptionLMImageProcessor,
    PerceptionLMProcessor,
    PerceptionLMVideoProcessor,
    TimmWrapperConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, llama, save

# A turn's images stand before its text.
TEMPLATE = """{{ bos_token }}{% if messages[0]['role'] != 'system' %}\
{{ '<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant.<|eot_id|>' }}{% endif %}\
{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}\
{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<|image|>' }}{% endfor %}\
{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] | trim }}{% endfor %}\
{{ '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""


def perception_lm(folder: Path) -> None:
    """4 visual tokens for the whole image, 4 for each of its 1 to 6 tiles, without marks."""
    tokenizer = byte_level_tokenizer(
        [
            *("<|begin_of_text|>", "<|end_of_text|>", "<|image|>", "<|video|>"),
            *("<|reserved_special_token_2|>", "<|reserved_special_token_3|>"),
            *("<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"),
            *(f"<|reserved_special_token_{i}|>" for i in range(5, 9)),
        ],
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|end_of_text|>",
        image_token="<|image|>",
        video_token="<|video|>",
    )
    side = {"height": IMAGE, "width": IMAGE}
    processor = PerceptionLMProcessor(
        PerceptionLMVideoProcessor(size=side),
        PerceptionLMImageProcessor(size=side, tile_size=IMAGE, max_num_tiles=6),
        tokenizer,
        patch_size=8,
        pooling_ratio=2,
        chat_template=TEMPLATE,
    )
    tower = TimmWrapperConfig(
        architecture="vit_pe_core_large_patch14_336",
        do_pooling=False,
        global_pool="",
        model_args={
            "embed_dim": HIDDEN,
            "depth": 2,
            "num_heads": 2,
            "img_size": (IMAGE, IMAGE),
            "patch_size": 8,
            "global_pool": "",
            "use_post_transformer_norm": False,
            "init_values": 0.1,
            "ref_feat_shape": (IMAGE // 8, IMAGE // 8),
        },
    )
    config = PerceptionLMConfig(
        vision_config=tower,
        text_config=llama(len(tokenizer), tokenizer),
        vision_use_cls_token=True,
        projector_pooling_ratio=2,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    save(folder, PerceptionLMForConditionalGeneration(config), processor)
