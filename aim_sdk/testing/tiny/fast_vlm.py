"""FastVLM with a small FastViT tower of timm."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
    Qwen2Tokenizer,
    TimmWrapperConfig,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_bpe, qwen2, save, spare
from .qwen import SYSTEM

TEMPLATE = (
    SYSTEM
    + """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
)


def fast_vlm(folder: Path) -> None:
    """4 visual tokens per image from a tower of convolutions and one layer of attention.

    Batch normalisation of a fresh tower lets its activations grow from layer to layer: these variances keep them small.
    """
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        image_token="<image>",
        model_max_length=WINDOW,
    )
    side = 2 * IMAGE
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        ),
        tokenizer,
        patch_size=32,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE,
    )
    tower = TimmWrapperConfig(
        architecture="fastvit_mci3",
        hidden_size=2 * HIDDEN,
        do_pooling=True,
        global_pool="avg",
        model_args={
            "inference_mode": True,
            "layer_scale_init_value": None,
            "layers": [1, 1, 1, 1],
            "embed_dims": [4, 8, 16, 32],
            "mlp_ratios": [2, 2, 2, 2],
            "se_downsamples": [False] * 4,
            "downsamples": [False, True, True, True],
            "pos_embs": None,
            "token_mixers": ["repmixer", "repmixer", "repmixer", "attention"],
        },
    )
    config = FastVlmConfig(
        vision_config=tower,
        text_config=qwen2(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=4,
    )
    model = FastVlmForConditionalGeneration(config)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(16.0)
    save(folder, model, processor)
