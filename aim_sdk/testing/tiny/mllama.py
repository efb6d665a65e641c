"""Llama 3.2 Vision, whose images enter through cross-attention."""

from pathlib import Path

from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    MllamaTextConfig,
    MllamaVisionConfig,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, text_options

LLAMA_3 = """{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'system' %}\
{{ raise_exception('Prompting with images is incompatible with system messages.') }}{% endif %}\
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}\
{% for part in message['content'] %}{{ '<|image|>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}\
{{ '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""


def mllama(folder: Path) -> None:
    """One `<|image|>` in the text, up to 2 tiles of 17 patches; 8 rows of the embeddings are no outputs."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level_tokenizer(
        [*special, "<|python_tag|>", "<|finetune_right_pad_id|>", "<|image|>"],
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
    )
    images = MllamaImageProcessor(size={"height": IMAGE, "width": IMAGE}, max_image_tiles=2)
    processor = MllamaProcessor(images, tokenizer, chat_template=LLAMA_3)
    text = text_options(len(tokenizer) - 1, tokenizer)  # the image's token is the first of the 8
    config = MllamaConfig(
        text_config=MllamaTextConfig(**text | {"num_hidden_layers": 3}, cross_attention_layers=[1]),
        vision_config=MllamaVisionConfig(
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2,
            num_global_layers=1,
            attention_heads=4,
            vision_output_dim=2 * HIDDEN,
            image_size=IMAGE,
            patch_size=8,
            max_num_tiles=2,
            intermediate_layers_indices=[0],
            supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
        ),
        image_token_index=processor.image_token_id,
    )
    model = MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "gate" in name and parameter.ndim == 1:  # zero in a fresh model: images would not be seen
            parameter.data.fill_(1.0)
    save(folder, model, processor)
