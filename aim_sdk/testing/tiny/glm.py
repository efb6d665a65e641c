"""GLM-4V (with and without experts), GLM-4.6V, GLM-GA and GLM-OCR."""

from pathlib import Path
from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    GlmgaConfig,
    GlmgaImageProcessor,
    GlmgaVideoProcessor,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from .common import HIDDEN, IMAGE, byte_level_tokenizer, save, spare, text_options

# No mark ends an answer: the next role does.
TEMPLATE = """{{ '[gMASK]<sop>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}\
{% for part in message['content'] %}\
{{ '<|begin_of_image|><|image|><|end_of_image|>' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""

_MEDIA = {
    f"{kind}_{end}_token_id": f"<|{word}_of_{kind}|>"
    for kind in ("image", "video")
    for end, word in (("start", "begin"), ("end", "end"))
}
SPECIAL = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def _tokenizer() -> PreTrainedTokenizerBase:
    return byte_level_tokenizer(
        [*SPECIAL, "<|image|>", "<|video|>", *_MEDIA.values()],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        image_token="<|image|>",
        video_token="<|video|>",
    )


SIZE = {"shortest_edge": 2 * IMAGE**2, "longest_edge": 8 * IMAGE**2}  # pixels of two frames: 4 to 16 visual tokens
PATCHES: dict[str, Any] = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}


def _config(tokenizer: PreTrainedTokenizerBase, **text: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    return {
        "text_config": {**text_options(spare(tokenizer), tokenizer), "rope_parameters": rope, **text},
        "vision_config": {
            **{"depth": 2, "num_heads": 2, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN},
            **{"out_hidden_size": HIDDEN, "image_size": IMAGE, "patch_size": 8},
        },
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video|>"),
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in _MEDIA.items()},
    }


def _glm4v_processor(tokenizer: PreTrainedTokenizerBase) -> Glm4vProcessor:
    videos = Glm4vVideoProcessor(size=SIZE, max_image_size=SIZE, **PATCHES)
    return Glm4vProcessor(Glm4vImageProcessor(size=SIZE, **PATCHES), tokenizer, videos, chat_template=TEMPLATE)


def _glm46v_processor(tokenizer: PreTrainedTokenizerBase) -> Glm46VProcessor:
    videos = Glm46VVideoProcessor(size=SIZE, max_image_size=SIZE, **PATCHES)
    return Glm46VProcessor(Glm46VImageProcessor(size=SIZE, **PATCHES), tokenizer, videos, chat_template=TEMPLATE)


def glm4v(folder: Path) -> None:
    """A visual token for 16 pixels square, between two marks; three-dimensional positions."""
    tokenizer = _tokenizer()
    model = Glm4vForConditionalGeneration(Glm4vConfig(**_config(tokenizer)))
    save(folder, model, _glm4v_processor(tokenizer), eos="<|user|>")


def glm4v_moe(folder: Path) -> None:
    """GLM-4V with a dense layer and a layer of experts, of whose heads the positions turn one half."""
    tokenizer = _tokenizer()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": HIDDEN}
    config = Glm4vMoeConfig(**_config(tokenizer, head_dim=16, rope_parameters=rope, **experts))
    save(folder, Glm4vMoeForConditionalGeneration(config), _glm4v_processor(tokenizer), eos="<|user|>")


def glm46v(folder: Path) -> None:
    """GLM-4V's model with another processor."""
    tokenizer = _tokenizer()
    model = Glm46VForConditionalGeneration(Glm46VConfig(**_config(tokenizer)))
    save(folder, model, _glm46v_processor(tokenizer), eos="<|user|>")


def glmga(folder: Path) -> None:
    """GLM-4.6V's model, whose images are of whole squares of 2 visual tokens by 2."""
    tokenizer = _tokenizer()
    patches = PATCHES | {"patch_expand_factor": 2}
    processor = Glm46VProcessor(
        GlmgaImageProcessor(size=SIZE, **patches),
        tokenizer,
        GlmgaVideoProcessor(size=SIZE, max_image_size=SIZE, **patches),
        chat_template=TEMPLATE,
    )
    save(folder, Glm46VForConditionalGeneration(GlmgaConfig(**_config(tokenizer))), processor, eos="<|user|>")


def glm_ocr(folder: Path) -> None:
    """GLM-4.6V's processor and another tower."""
    tokenizer = _tokenizer()
    model = GlmOcrForConditionalGeneration(GlmOcrConfig(**_config(tokenizer)))
    save(folder, model, _glm46v_processor(tokenizer), eos="<|user|>")
