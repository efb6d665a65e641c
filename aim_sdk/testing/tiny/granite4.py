"""Granite 4 Vision."""

from pathlib import Path

from transformers import (
    Blip2QFormerConfig,
    Granite4VisionConfig,
    Granite4VisionForConditionalGeneration,
    Granite4VisionProcessor,
    Granite4VisionTextConfig,
    LlavaNextImageProcessor,
    SiglipVisionConfig,
)

from .common import IMAGE, byte_level_tokenizer, save, spare, text_options, tower_options
from .llava import PINPOINTS

TEMPLATE = """{% for message in messages %}{{ '<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}\
{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|end_of_text|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"""


def granite4_vision(folder: Path) -> None:
    """4 visual tokens for the whole image, up to 20 for its tiles and line ends; each of 5 layers gets features.

    The Q-Formers have one head for 64 channels of the tower, so it is that wide.
    """
    tokenizer = byte_level_tokenizer(
        ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|unk|>", "<|pad|>", "<image>"],
        bos_token="<|end_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        image_token="<image>",
        padding_side="left",
    )
    size = {"height": IMAGE, "width": IMAGE}
    processor = Granite4VisionProcessor(
        LlavaNextImageProcessor(size=size, crop_size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        chat_template=TEMPLATE,
    )
    text = Granite4VisionTextConfig(
        **text_options(spare(tokenizer), tokenizer) | {"num_hidden_layers": 5},
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
        attention_multiplier=0.25,
        logits_scaling=0.5,
    )
    config = Granite4VisionConfig(
        vision_config=SiglipVisionConfig(**tower_options(8) | {"hidden_size": 64}, vision_use_head=False),
        text_config=text,
        qformer_config=Blip2QFormerConfig(
            num_hidden_layers=1,
            intermediate_size=64,
            cross_attention_frequency=1,
            use_qformer_text_input=False,
        ),
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=4,
        vision_feature_select_strategy="full",
        downsample_rate="1/2",
        deepstack_layer_map=[[-2, 0]],
        spatial_target_layers=[1, 2, 3, 4],
    )
    save(folder, Granite4VisionForConditionalGeneration(config), processor)
