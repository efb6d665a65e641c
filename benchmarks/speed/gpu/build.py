"""Draws a shape's model on the device: nothing is read from a hub, and no weight passes through the host."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils import logging

from aim_backends.auto import AutoBackend
from aim_backends.families.table import adapter_of
from aim_backends.hf import TransformersBackend
from aim_sdk.testing.tiny import build as build_tiny
from benchmarks.speed.gpu.shapes import Shape


def build(shape: Shape, device: torch.device, *, small: bool) -> TransformersBackend:
    """A backend around random weights, in bfloat16 on a GPU and in float32 elsewhere; ``small``: the tests' sizes."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = build_tiny(shape.tiny, Path(name))
        config, processor = AutoConfig.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        generation = GenerationConfig.from_pretrained(folder)
    if not small:
        config = shape.sizes(config)
        shape.images(processor)
    processor.tokenizer.model_max_length = config.get_text_config().max_position_embeddings
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.generation_config = generation
    backbone = adapter_of(config.model_type)(model, processor, shape.checkpoint)
    return AutoBackend.serving(config.model_type)(backbone)
