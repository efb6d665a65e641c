"""Aria."""

from pathlib import Path

from transformers import (
    AriaConfig,
    AriaForConditionalGeneration,
    AriaImageProcessor,
    AriaProcessor,
    AriaTextConfig,
    Idefics3VisionConfig,
)

from .common import HIDDEN, metaspace_tokenizer, save, spare, text_options, tower_options

TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}\
{{ '<fim_prefix><|img|><fim_suffix>' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

SIDE, PATCH = 980, 70  # the processor knows two sides, and takes the larger one unless it is told


def aria(folder: Path) -> None:
    """16 visual tokens per image, whatever its size; experts in every layer, two of them shared."""
    tokenizer = metaspace_tokenizer(
        *("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<fim_prefix>", "<fim_suffix>", "<|img|>"),
        prepend="never",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        image_token="<|img|>",
    )
    processor = AriaProcessor(AriaImageProcessor(), tokenizer, chat_template=TEMPLATE, size_conversion={SIDE: 16})
    config = AriaConfig(
        text_config=AriaTextConfig(
            **text_options(spare(tokenizer), tokenizer) | {"intermediate_size": HIDDEN},
            moe_num_experts=4,
            moe_topk=2,
            moe_num_shared_experts=2,
        ),
        vision_config=Idefics3VisionConfig(**tower_options(PATCH) | {"image_size": SIDE}),
        projector_patch_to_query_dict={(SIDE // PATCH) ** 2: 16},
        image_token_index=processor.image_token_id,
    )
    save(folder, AriaForConditionalGeneration(config), processor, eos="<|im_end|>")
