"""Tiny random multimodal models in the files of real checkpoints, made offline.

`build("qwen2-vl", folder)` writes a folder that `AutoProcessor` and `AutoModelForImageTextToText` load as they load a
real checkpoint: the family's own processor, special tokens and chat template around two random layers. An image costs 1
to 70 visual tokens (GOT-OCR 2 and DeepSeek-OCR 2: 256 and more), a model about a megabyte at most.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from aim_sdk.errors import InputError, unknown

from . import (
    aria,
    baidu,
    blip,
    cohere,
    cosmos,
    deepseek,
    dots,
    early_fusion,
    emu,
    ernie,
    exaone,
    fast_vlm,
    fuyu,
    generic,
    glm,
    glm5,
    google,
    got,
    granite,
    granite4,
    hunyuan,
    hyperclovax,
    idefics,
    inkling,
    kimi,
    kosmos,
    lfm2,
    llama4,
    llava,
    minicpm,
    minimax,
    mistral3,
    mllama,
    molmo,
    muse,
    nemotron,
    ocr,
    ovis,
    perception_lm,
    qwen,
    qwen4,
    step,
    video,
)

TINY_MODELS: dict[str, Callable[[Path], None]] = {
    "llava-1.5": llava.llava_15,
    "llava-next": llava.llava_next,
    "llava-onevision": llava.llava_onevision,
    "vipllava": llava.vipllava,
    "qwen2-vl": qwen.qwen2_vl,
    "qwen2.5-vl": qwen.qwen2_5_vl,
    "qwen3-vl": qwen.qwen3_vl,
    "qwen3.5": qwen.qwen3_5,
    "idefics": idefics.idefics,
    "idefics2": idefics.idefics2,
    "idefics3": idefics.idefics3,
    "smolvlm": idefics.smolvlm,
    "internvl": generic.internvl,
    "gemma3": generic.gemma3,
    "aya-vision": generic.aya_vision,
    "mistral3": mistral3.mistral3,
    "cohere2-vision": cohere.cohere2_vision,
    "lfm2-vl": lfm2.lfm2_vl,
    "llama4": llama4.llama4,
    "glm4v": glm.glm4v,
    "ovis2": ovis.ovis2,
    "glm46v": glm.glm46v,
    "qwen3-vl-moe": qwen.qwen3_vl_moe,
    "deepseek-vl": deepseek.deepseek_vl,
    "gemma3n": google.gemma3n,
    "gemma4": google.gemma4,
    "mllama": mllama.mllama,
    "chameleon": early_fusion.chameleon,
    "janus": early_fusion.janus,
    "fuyu": fuyu.fuyu,
    "paligemma": google.paligemma,
    "kosmos-2": kosmos.kosmos2,
    "blip-2": blip.blip2,
    "instructblip": blip.instructblip,
    "got-ocr2": got.got_ocr2,
    "fast-vlm": fast_vlm.fast_vlm,
    "glm4v-moe": glm.glm4v_moe,
    "qwen3.5-moe": qwen.qwen3_5_moe,
    "lighton-ocr": ocr.lighton_ocr,
    "exaone4.5": exaone.exaone4_5,
    "glm-ocr": glm.glm_ocr,
    "paddleocr-vl": ocr.paddleocr_vl,
    "lfm3-vl": lfm2.lfm3_vl,
    "gemma4-unified": google.gemma4_unified,
    "mistral-large4": mistral3.mistral_large4,
    "deepseek-ocr2": deepseek.deepseek_ocr2,
    "qwen2.5-omni": qwen.qwen2_5_omni,
    "llava-next-video": video.llava_next_video,
    "video-llava": video.video_llava,
    "video-llama-3": video.video_llama_3,
    "qwen3-omni-moe": qwen.qwen3_omni_moe,
    "qianfan-ocr": baidu.qianfan_ocr,
    "pp-chart2table": baidu.pp_chart2table,
    "unlimited-ocr": deepseek.unlimited_ocr,
    "minimax-m3-vl": minimax.minimax_m3_vl,
    "muse-glimmer": muse.muse_glimmer,
    "muse-spark": muse.muse_spark,
    "minicpmv4.6": minicpm.minicpm_v4_6,
    "minicpmv4.7": minicpm.minicpm_v4_7,
    "minicpm-ocr": minicpm.minicpm_ocr,
    "step3p7": step.step3p7,
    "granite-docling": granite.granite_docling,
    "kimi-k2.5": kimi.kimi_k2_5,
    "molmo2": molmo.molmo2,
    "emu3": emu.emu3,
    "qwen4-exp": qwen4.qwen4_exp,
    "ernie4.5-vl-moe": ernie.ernie4_5_vl_moe,
    "nemotron-h-omni": nemotron.nemotron_h_omni,
    "perception-lm": perception_lm.perception_lm,
    "granite4-vision": granite4.granite4_vision,
    "hunyuan-vl": hunyuan.hunyuan_vl,
    "glm5-next": glm5.glm5_next,
    "aria": aria.aria,
    "cohere-compass": cohere.cohere_compass,
    "cosmos3-edge": cosmos.cosmos3_edge,
    "cosmos3-omni": cosmos.cosmos3_omni,
    "deepseek-vl-hybrid": deepseek.deepseek_vl_hybrid,
    "dots3-note": dots.dots3_note,
    "glmga": glm.glmga,
    "hyperclovax-vision-v2": hyperclovax.hyperclovax_vision_v2,
    "inkling": inkling.inkling,
    "inkling2": inkling.inkling2,
}

NEEDS = {
    "smolvlm": "num2words",
    "gemma3n": "timm",
    "fast-vlm": "timm",
    "perception-lm": "timm",
    "inkling": "scipy",
}
"""The package that a variant's processor or tower needs besides transformers."""


def build(variant: str, folder: str | Path) -> Path:
    """Write `variant` to `folder`, with the same weights each time; the caller's random state stays as it was.

    Raises:
        InputError: there is no such variant.
    """
    if variant not in TINY_MODELS:
        raise InputError(unknown("tiny model", variant, TINY_MODELS))
    path = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        TINY_MODELS[variant](path)
    return path
