"""What is known of transformers' image-text-to-text families: one row per ``model_type``.

A new model type of transformers gets a row: ``refused`` with the reason, or what was measured for it. The tests say
which rows are missing and which facts are wrong; `make reference` writes the table of the documentation.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone


class UntestedModelWarning(UserWarning):
    """Nobody has tried this model type."""


@dataclass(frozen=True, slots=True)
class PrefixReuse:
    """Whether fused tokens that were computed once into a cache give the logits of the whole prompt."""

    alone: bool
    """For one prompt at a time."""
    padded: bool
    """For a batch of unequal prompts too: padding stands between the shared prefix and a query."""
    why: str = ""
    """What forbids it."""
    known: bool = True
    """Whether it was measured (``tests/conformance/test_prefix_reuse.py``)."""


_UNKNOWN = PrefixReuse(alone=False, padded=False, known=False)
_ANYWHERE = PrefixReuse(alone=True, padded=True)
_RECURRENT = PrefixReuse(alone=True, padded=False, why="its recurrent layers read the padding after a shared prefix")
_WINDOWED = PrefixReuse(alone=True, padded=False, why="its windowed layers count the padding after a shared prefix")
_COUNTED = PrefixReuse(
    alone=True, padded=False, why="transformers 5.23 counts the padding after a shared prefix among its positions"
)
_IMAGE_LEADS = PrefixReuse(alone=False, padded=False, why="its prompt begins with the query's image")
_SEES_IMAGE = PrefixReuse(alone=False, padded=False, why="its text before an image attends to that image")
_BLOCKS = PrefixReuse(alone=True, padded=False, why="its blocks of tokens count the padding after a shared prefix")
_SHORT_AFTER = PrefixReuse(
    alone=False, padded=False, why="its layers keep all of the first forward, and a window of what comes after it"
)


@dataclass(frozen=True, slots=True)
class Family:
    """The facts of one ``model_type``."""

    backend: str = "auto"
    """The backend of its own name; `auto` serves every family."""
    adapter: str = ""
    """``module:Class`` of this package, if a family needs code."""
    prefix: PrefixReuse = _UNKNOWN
    continues_cache: bool = False
    """Whether a cached prompt and `Backbone.continuation_inputs` are all that a later forward needs. An untested family
    may keep state besides its cache: its prompt is computed again for every choice."""
    boxes: str = ""
    """Its notation of boxes, by its name in `aim_backends.families.notations`, if one is published."""
    note: str = ""
    """What a checkpoint of it cannot do."""
    refused: str = ""
    """Why no backend serves it."""


_ENCODER_DECODER = "it has an encoder-decoder LM: a demonstration's text has no causal states there"
_IMAGE_FIRST = "it puts the image before the whole text itself: a prompt has no place for one"
_T5 = "checkpoints with a T5 inside are refused: a demonstration's text has no causal states there"
_T5_AND_QFORMER = f"{_T5}; its Q-Former reads the whole text where it is written, also a demonstration's answer"
_OPENED = "an answer begins as shown answers do, where its template leaves that to the model"
_NUMBERED = "its template numbers the images of a conversation; here each is the first one"
_NO_BEAMS = "no beams: transformers 5.23's own beam search does not repeat its image features"

FAMILIES: Final[Mapping[str, Family]] = {
    "aria": Family(prefix=_ANYWHERE, continues_cache=True),
    "aya_vision": Family(prefix=_WINDOWED, continues_cache=True),
    "blip": Family(refused="its text decoder sees the image by cross-attention alone: a prompt has no place for one"),
    "blip-2": Family(adapter="image_first:Blip2", prefix=_IMAGE_LEADS, note=_T5),
    "chameleon": Family(adapter="chameleon:Chameleon", prefix=_ANYWHERE, continues_cache=True),
    "cohere2_vision": Family(prefix=_WINDOWED, continues_cache=True),
    "cohere_compass": Family(adapter="scaled:ScaledLogits", prefix=_WINDOWED, continues_cache=True),
    "cosmos3_edge": Family(adapter="cosmos:Cosmos3Edge", prefix=_ANYWHERE, continues_cache=True),
    "cosmos3_omni": Family(prefix=_ANYWHERE, continues_cache=True),
    "deepseek_ocr2": Family(prefix=_ANYWHERE, continues_cache=True),
    "deepseek_vl": Family(prefix=_ANYWHERE, continues_cache=True),
    "deepseek_vl_hybrid": Family(prefix=_ANYWHERE, continues_cache=True),
    "diffusion_gemma": Family(
        refused="it writes by block diffusion: a demonstration's text has no causal states there"
    ),
    "dots3_note": Family(prefix=_WINDOWED, continues_cache=True),
    "emu3": Family(adapter="emu:Emu3", prefix=_ANYWHERE, continues_cache=True),
    "ernie4_5_vl_moe": Family(adapter="numbered:Ernie", prefix=_ANYWHERE, continues_cache=True, note=_NUMBERED),
    "evolla": Family(refused="it reads proteins, not images"),
    "exaone4_5": Family(prefix=_WINDOWED, continues_cache=True),
    "fast_vlm": Family(prefix=_ANYWHERE, continues_cache=True),
    "florence2": Family(refused=_ENCODER_DECODER),
    "fuyu": Family(adapter="image_first:Fuyu", prefix=_IMAGE_LEADS, continues_cache=True),
    "gemma3": Family(prefix=_WINDOWED, continues_cache=True),
    "gemma3n": Family(prefix=_WINDOWED, continues_cache=True),
    "gemma4": Family(prefix=_WINDOWED, continues_cache=True),
    "gemma4_unified": Family(prefix=_WINDOWED, continues_cache=True),
    "git": Family(refused=_IMAGE_FIRST),
    "glm46v": Family(prefix=_ANYWHERE, continues_cache=True),
    "glm4v": Family(prefix=_ANYWHERE, continues_cache=True),
    "glm4v_moe": Family(prefix=_ANYWHERE, continues_cache=True),
    "glm5_next": Family(prefix=_RECURRENT, continues_cache=True),
    "glm_ocr": Family(prefix=_ANYWHERE, continues_cache=True),
    "glmga": Family(prefix=_ANYWHERE, continues_cache=True),
    "got_ocr2": Family(adapter="got:GotOcr2", prefix=_ANYWHERE, continues_cache=True),
    "granite4_vision": Family(adapter="granite4:Granite4Vision", prefix=_ANYWHERE, continues_cache=True),
    "granite_docling": Family(adapter="scaled:ScaledLogits", prefix=_ANYWHERE, continues_cache=True),
    "hunyuan_vl": Family(adapter="hunyuan:HunyuanVL", prefix=_ANYWHERE, continues_cache=True),
    "hyperclovax_vision_v2": Family(
        adapter="numbered:HyperClovaX", prefix=_COUNTED, continues_cache=True, note=_NUMBERED
    ),
    "idefics": Family(backend="idefics", adapter="idefics:Idefics1", prefix=_ANYWHERE, continues_cache=True),
    "idefics2": Family(backend="idefics", adapter="idefics:Idefics2", prefix=_ANYWHERE, continues_cache=True),
    "idefics3": Family(backend="idefics", prefix=_ANYWHERE, continues_cache=True),
    "inkling2": Family(adapter="inkling:Inkling", prefix=_RECURRENT, continues_cache=True),
    "inkling_mm_model": Family(adapter="inkling:Inkling", prefix=_RECURRENT, continues_cache=True),
    "instructblip": Family(adapter="image_first:Blip2", prefix=_IMAGE_LEADS, note=_T5_AND_QFORMER),
    "instructblipvideo": Family(refused="it reads videos, not single images"),
    "internvl": Family(prefix=_ANYWHERE, continues_cache=True, boxes="internvl"),
    "janus": Family(adapter="janus:Janus", prefix=_ANYWHERE, continues_cache=True),
    "kimi_k25": Family(prefix=_ANYWHERE, continues_cache=True),
    "kosmos-2": Family(adapter="image_first:Kosmos2", prefix=_IMAGE_LEADS, boxes="kosmos-2"),
    "kosmos-2.5": Family(refused=_IMAGE_FIRST),
    "lfm2_vl": Family(prefix=_RECURRENT, continues_cache=True),
    "lfm3_vl": Family(prefix=_RECURRENT, continues_cache=True),
    "lighton_ocr": Family(prefix=_ANYWHERE, continues_cache=True),
    "llama4": Family(prefix=_WINDOWED, continues_cache=True, note=_NO_BEAMS),
    "llava": Family(backend="llava", prefix=_ANYWHERE, continues_cache=True),
    "llava_next": Family(backend="llava", prefix=_ANYWHERE, continues_cache=True),
    "llava_next_video": Family(prefix=_ANYWHERE, continues_cache=True),
    "llava_onevision": Family(backend="llava", prefix=_ANYWHERE, continues_cache=True),
    "minicpm_ocr": Family(prefix=_RECURRENT, continues_cache=True),
    "minicpmv4_6": Family(prefix=_RECURRENT, continues_cache=True),
    "minicpmv4_7": Family(prefix=_RECURRENT, continues_cache=True),
    "minimax_m3_vl": Family(adapter="minimax:MiniMaxM3", prefix=_BLOCKS, continues_cache=True, note=_OPENED),
    "mistral3": Family(prefix=_ANYWHERE, continues_cache=True),
    "mistral4": Family(refused="it is a text model: it reads no images"),
    "mistral_large4": Family(prefix=_ANYWHERE, continues_cache=True),
    "mllama": Family(adapter="mllama:Mllama", prefix=_SEES_IMAGE),
    "molmo2": Family(prefix=_ANYWHERE, continues_cache=True),
    "muse_glimmer": Family(adapter="opened:Opened", prefix=_WINDOWED, continues_cache=True, note=_OPENED),
    "muse_spark": Family(adapter="opened:Opened", prefix=_WINDOWED, continues_cache=True, note=_OPENED),
    "nemotron_h_omni": Family(prefix=_RECURRENT, continues_cache=True),
    "ovis2": Family(prefix=_ANYWHERE, continues_cache=True),
    "paddleocr_vl": Family(prefix=_ANYWHERE, continues_cache=True),
    "paligemma": Family(adapter="image_first:PaliGemma", prefix=_IMAGE_LEADS, continues_cache=True, boxes="paligemma"),
    "perception_lm": Family(adapter="perception_lm:PerceptionLM", prefix=_ANYWHERE, continues_cache=True),
    "pi0": Family(refused="it is a robot policy: it outputs actions, not text"),
    "pix2struct": Family(refused=_ENCODER_DECODER),
    "pp_chart2table": Family(prefix=_ANYWHERE, continues_cache=True),
    "pp_formulanet": Family(refused=_ENCODER_DECODER),
    "qianfan_ocr": Family(prefix=_ANYWHERE, continues_cache=True),
    "qwen2_5_omni_thinker": Family(prefix=_ANYWHERE, continues_cache=True),
    "qwen2_5_vl": Family(
        backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_ANYWHERE, continues_cache=True, boxes="qwen2.5-vl"
    ),
    "qwen2_vl": Family(
        backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_ANYWHERE, continues_cache=True, boxes="qwen2-vl"
    ),
    "qwen3_5": Family(backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_RECURRENT, continues_cache=True),
    "qwen3_5_moe": Family(backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_RECURRENT, continues_cache=True),
    "qwen3_omni_moe_thinker": Family(prefix=_ANYWHERE, continues_cache=True),
    "qwen3_vl": Family(
        backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_ANYWHERE, continues_cache=True, boxes="qwen3-vl"
    ),
    "qwen3_vl_moe": Family(
        backend="qwen-vl", adapter="qwen_vl:QwenVL", prefix=_ANYWHERE, continues_cache=True, boxes="qwen3-vl"
    ),
    "qwen4_exp": Family(prefix=_RECURRENT, continues_cache=True),
    "shieldgemma2": Family(refused="it is a safety classifier: its processor writes the whole prompt itself"),
    "smolvlm": Family(backend="idefics", prefix=_ANYWHERE, continues_cache=True),
    "step3p7": Family(prefix=_WINDOWED, continues_cache=True),
    "t5gemma2": Family(refused=_ENCODER_DECODER),
    "udop": Family(refused=_ENCODER_DECODER),
    "unlimited_ocr": Family(
        adapter="unlimited_ocr:UnlimitedOcr",
        prefix=_SHORT_AFTER,
        continues_cache=True,
        note="training sees all of a long answer, where decoding sees the last 128 tokens of it",
    ),
    "video_llama_3": Family(prefix=_ANYWHERE, continues_cache=True),
    "video_llava": Family(prefix=_ANYWHERE, continues_cache=True),
    "vipllava": Family(backend="llava", prefix=_ANYWHERE, continues_cache=True),
    "vision-encoder-decoder": Family(refused=_ENCODER_DECODER),
}
"""Every ``model_type`` that was looked at. Those without facts generate from ids and images and, by their
configuration, without an encoder; nobody has tried them."""


def family_of(model_type: str) -> Family:
    """The facts of a model type; empty if nobody has looked at it."""
    return FAMILIES.get(model_type, Family())


@cache
def tell_untested(model_type: str, source: str) -> None:
    """Warn, once a process, that nobody has tried a model type."""
    if not family_of(model_type).prefix.known:
        warnings.warn(
            f"model_type {model_type!r} is not tested: what its processor writes was asked, the rest is as in other "
            f"families.\nNext: `aim-icl backends check auto --model {source}` compares it with the plain model.",
            UntestedModelWarning,
            stacklevel=4,
        )


def served_by(backend: str) -> list[str]:
    """The model types that the backend of that name serves."""
    return [kind for kind, family in FAMILIES.items() if family.backend == backend and not family.refused]


def adapter_of(model_type: str) -> type[Backbone]:
    """The class that adapts a model type."""
    adapter = family_of(model_type).adapter
    module, _, name = (f"families.{adapter}" if adapter else "hf.backbone:Backbone").partition(":")
    found: type[Backbone] = getattr(import_module(f"aim_backends.{module}"), name)
    return found
