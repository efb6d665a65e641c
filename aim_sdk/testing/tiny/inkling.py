"""Inkling and Inkling 2."""

from pathlib import Path
from typing import Any

from transformers import (
    Inkling2Config,
    Inkling2ForConditionalGeneration,
    Inkling2ImageProcessor,
    Inkling2Processor,
    InklingConfig,
    InklingFeatureExtractor,
    InklingForConditionalGeneration,
    InklingImageProcessor,
    InklingProcessor,
    PreTrainedTokenizerBase,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options

# A message holds one part; the effort of thinking is told after the system text.
TEMPLATE = """{% set roles = {'system': 'system', 'user': 'user', 'assistant': 'model'} %}\
{% set system = messages[0]['role'] == 'system' %}{% if system %}\
{{ '<|message_system|><|content_text|>' + messages[0]['content'][0]['text'] + '<|end_message|>' }}{% endif %}\
{{ '<|message_system|><|content_text|>Thinking effort level: 0.9<|end_message|>' }}\
{% for message in messages[system | int :] %}{% for part in message['content'] %}\
{{ '<|message_' + roles[message['role']] + '|>' }}{% if part['type'] == 'image' %}\
{{ '<|content_image|><|unused_200054|>' }}{% else %}{{ '<|content_text|>' + part['text'] }}{% endif %}\
{{ '<|end_message|>' }}{% endfor %}\
{{ '<|content_model_end_sampling|>' if message['role'] == 'assistant' }}{% endfor %}\
{{ '<|message_model|>' if add_generation_prompt }}"""

END = "<|content_model_end_sampling|>"


def _tokenizer() -> PreTrainedTokenizerBase:
    names = ["message_user", "message_model", "message_system", "message_tool", "content_text", "content_image"]
    names += ["content_model_end_sampling", "content_thinking", "end_message", "content_audio_input", "audio_end"]
    names += ["begin_of_text", "unused_200053", "unused_200054"]
    special = ["<|endoftext|>", *(f"<|{name}|>" for name in names)]
    return byte_level_tokenizer(special, eos_token=END, pad_token="<|endoftext|>", image_token="<|unused_200054|>")


def _text(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    options = text_options(spare(tokenizer), tokenizer)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    options |= heads | {f"swa_{name}": size for name, size in heads.items()}
    options |= {"sliding_window_size": 64, "d_rel": 4, "rel_extent": 128, "log_scaling_n_floor": 1024}
    options |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN}
    return options | {"unpadded_vocab_size": len(tokenizer) + 1}


def inkling(folder: Path) -> None:
    """A visual token for 20 pixels square, without an upper bound; a windowed layer and a full one, both with relative
    positions and short convolutions; a dense layer and one of experts, two of them shared; an unused audio tower."""
    tokenizer = _tokenizer()
    processor = InklingProcessor(
        InklingFeatureExtractor(feature_size=16),
        InklingImageProcessor(rescale_image_frac=2.0),
        tokenizer,
        chat_template=TEMPLATE,
    )
    text = _text(tokenizer) | {"layer_types": ["hybrid_sliding", "hybrid"], "mlp_layer_types": ["dense", "sparse"]}
    config = InklingConfig(
        text_config=text | {"n_shared_experts": 2},
        vision_config={"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2},
        audio_config={"n_mel_bins": 16, "mel_vocab_size": 16},
        image_token_id=processor.image_token_id,
        audio_token_id=processor.audio_token_id,
        image_bos_token_id=processor.image_bos_token_id,
        audio_bos_token_id=processor.audio_bos_token_id,
    )
    save(folder, InklingForConditionalGeneration(config), processor)


def inkling2(folder: Path) -> None:
    """A visual token for 40 pixels square, without an upper bound; a windowed layer and a full one that attend to the
    layers below them, with convolutions that the tokens themselves choose; experts in both."""
    tokenizer = _tokenizer()
    images = Inkling2ImageProcessor(size={"height": 40, "width": 40})
    processor = Inkling2Processor(images, tokenizer, chat_template=TEMPLATE)
    text = _text(tokenizer) | {"layer_types": ["hybrid_sliding", "hybrid"], "n_layers_per_attn_res_block": 1}
    tower = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 20,
        "mlp_ratio": 2.0,
    }
    projector = {"posemb_grid_size": 4, "projection_hidden_dim": 2 * HIDDEN, "text_hidden_size": HIDDEN}
    config = Inkling2Config(text_config=text, vision_config=tower | projector, image_token_id=processor.image_token_id)
    save(folder, Inkling2ForConditionalGeneration(config), processor)
