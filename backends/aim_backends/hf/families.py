"""What is known of transformers' image-text-to-text families beside what their own backends say.

A new model type of transformers goes into `REFUSED` with the reason, or into `DECODERS`; one that has a tiny model gets
a line in `PREFIX_REUSE`. The tests say which is missing; `make reference` writes the table of the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_ENCODER_DECODER = "it has an encoder-decoder LM: a demonstration's text has no causal states there"
_IMAGE_FIRST = "it puts the image before the whole text itself: a prompt has no place for one"

REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("florence2", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder"), _ENCODER_DECODER
    ),
    **dict.fromkeys(("git", "kosmos-2.5"), _IMAGE_FIRST),
    "blip": "its text decoder sees the image by cross-attention alone: a prompt has no place for one",
    "diffusion_gemma": "it writes by block diffusion: a demonstration's text has no causal states there",
    "evolla": "it reads proteins, no images",
    "instructblipvideo": "it reads videos, no single images",
    "mistral4": "it is a text model: it reads no images",
    "pi0": "it is a robot policy: it gives actions, no text",
    "shieldgemma2": "it is a safety classifier: its processor writes the whole prompt itself",
}
"""``model_type`` -> why no backend serves it."""

DECODERS: Final[frozenset[str]] = frozenset(
    """
    aria aya_vision blip-2 chameleon cohere2_vision cohere_compass cosmos3_edge cosmos3_omni deepseek_ocr2 deepseek_vl
    deepseek_vl_hybrid dots3_note emu3 ernie4_5_vl_moe exaone4_5 fast_vlm fuyu gemma3 gemma3n gemma4 gemma4_unified
    glm46v glm4v glm4v_moe glm5_next glm_ocr glmga got_ocr2 granite4_vision granite_docling hunyuan_vl
    hyperclovax_vision_v2 idefics idefics2 idefics3 inkling2 inkling_mm_model instructblip internvl janus kimi_k25
    kosmos-2 lfm2_vl lfm3_vl lighton_ocr llama4 llava llava_next llava_next_video llava_onevision minicpm_ocr
    minicpmv4_6 minicpmv4_7 minimax_m3_vl mistral3 mistral_large4 mllama molmo2 muse_glimmer muse_spark nemotron_h_omni
    ovis2 paddleocr_vl paligemma perception_lm pp_chart2table qianfan_ocr qwen2_5_omni_thinker qwen2_5_vl qwen2_vl
    qwen3_5 qwen3_5_moe qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen4_exp smolvlm step3p7 unlimited_ocr
    video_llama_3 video_llava vipllava
    """.split()  # noqa: SIM905
)
"""Model types that generate from ids and images and, by their configuration, without an encoder: a backend takes them,
tested or not."""

_SECOND_LOOK = "its layers look every id up a second time, where a fused token is padding"
_T5 = "checkpoints with a T5 inside are refused: a demonstration's text has no causal states there"

NOTES: Final[Mapping[str, str]] = {
    "blip-2": _T5,
    "gemma3n": _SECOND_LOOK,
    "gemma4": _SECOND_LOOK,
    "instructblip": f"{_T5}; its Q-Former reads the whole text where it is written, also a demonstration's answer",
    "llama4": "no beams: transformers 5.23's own beam search does not repeat its image features",
}
"""``model_type`` -> what a checkpoint of a served type cannot do."""


@dataclass(frozen=True, slots=True)
class PrefixReuse:
    """Whether fused tokens that were computed once into a cache give the logits of the whole prompt."""

    alone: bool
    """For one prompt at a time."""
    padded: bool
    """For a batch of unequal prompts too: padding stands between the shared prefix and a query."""
    why: str = ""
    """What forbids it."""


_ANYWHERE = PrefixReuse(alone=True, padded=True)
_RECURRENT = PrefixReuse(alone=True, padded=False, why="its recurrent layers read the padding behind a shared prefix")
_WINDOWED = PrefixReuse(alone=True, padded=False, why="its windowed layers count the padding behind a shared prefix")

_IMAGE_LEADS = PrefixReuse(alone=False, padded=False, why="its prompt begins with the query's image")

UNKNOWN: Final = PrefixReuse(alone=False, padded=False)

PREFIX_REUSE: Final[Mapping[str, PrefixReuse]] = {
    "aya_vision": _WINDOWED,
    "blip-2": _IMAGE_LEADS,
    "chameleon": _ANYWHERE,
    "cohere2_vision": _WINDOWED,
    "deepseek_vl": _ANYWHERE,
    "fuyu": _IMAGE_LEADS,
    "gemma3": _WINDOWED,
    "gemma3n": _WINDOWED,
    "gemma4": _WINDOWED,
    "glm46v": _ANYWHERE,
    "glm4v": _ANYWHERE,
    "got_ocr2": _ANYWHERE,
    "idefics": _ANYWHERE,
    "idefics2": _ANYWHERE,
    "idefics3": _ANYWHERE,
    "instructblip": _IMAGE_LEADS,
    "internvl": _ANYWHERE,
    "janus": _ANYWHERE,
    "kosmos-2": _IMAGE_LEADS,
    "lfm2_vl": _RECURRENT,
    "llama4": _WINDOWED,
    "llava": _ANYWHERE,
    "llava_next": _ANYWHERE,
    "llava_onevision": _ANYWHERE,
    "mistral3": _ANYWHERE,
    "mllama": PrefixReuse(alone=False, padded=False, why="its text before an image attends to that image"),
    "ovis2": _ANYWHERE,
    "paligemma": _IMAGE_LEADS,
    "qwen2_5_vl": _ANYWHERE,
    "qwen2_vl": _ANYWHERE,
    "qwen3_5": _RECURRENT,
    "qwen3_vl": _ANYWHERE,
    "qwen3_vl_moe": _ANYWHERE,
    "smolvlm": _ANYWHERE,
    "vipllava": _ANYWHERE,
}
"""``model_type`` -> what ``tests/conformance/test_prefix_reuse.py`` has measured."""
