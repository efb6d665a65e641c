"""The vision trunk: EfficientNet-Lite0 in plain torch, batch normalisation folded into the convolutions.

An image becomes 192 x 192 pixels, and three depths of the trunk, pooled to a 4 x 4 grid, become 16 visual features:
1280 channels of the head (what), 112 of stage 4 (parts) and 24 of stage 1 (colour, edges).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from aim_sdk.files.images import load_image
from aim_sdk.types import ImageInput

IMAGE_SIZE = 192
GRID = 4
VISUAL_TOKENS = GRID * GRID
FEATURES = 1280 + 112 + 24
_CONTENT = 174  # the drawing's longer side; the rest is white margin
_BN_EPS = 1e-3
_BN_FIELDS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class _Stage:
    """A row of the architecture table: ``repeats`` blocks, the first of which has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_LOW, _MIDDLE = 1, 4  # stages whose outputs are kept


def preprocess(source: ImageInput) -> Tensor:
    """Return ``uint8 (3, 192, 192)``: composed on white, aspect ratio kept, padded with white."""
    image = load_image(source)
    scale = _CONTENT / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (255, 255, 255))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(resized, ((IMAGE_SIZE - width) // 2, (IMAGE_SIZE - height) // 2))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).contiguous()


class _Conv(nn.Module):
    """A convolution with TensorFlow's "same" padding and a folded normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, inputs if depthwise else 1
        self.weight = nn.Parameter(torch.zeros(outputs, inputs // self.groups, kernel, kernel), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2, groups=self.groups)
        pads = [_same_padding(side, self.kernel, self.stride) for side in (x.shape[-1], x.shape[-2])]
        x = F.pad(x, [*pads[0], *pads[1]])
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, groups=self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Block(nn.Module):
    """Depthwise-separable (expansion 1) or inverted-residual block."""

    def __init__(self, inputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        wide = inputs * stage.expansion
        self.residual = stride == 1 and inputs == stage.channels
        self.expand = _Conv(inputs, wide, 1, 1) if stage.expansion > 1 else None
        self.depthwise = _Conv(wide, wide, stage.kernel, stride, depthwise=True)
        self.reduce = _Conv(wide, stage.channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.reduce(F.relu6(self.depthwise(y)))
        return x + out if self.residual else out

    def named_convolutions(self) -> list[tuple[str, str, _Conv]]:
        """List (convolution, normalisation, module) under timm's names."""
        if self.expand is None:
            return [("conv_dw", "bn1", self.depthwise), ("conv_pw", "bn2", self.reduce)]
        return [("conv_pw", "bn1", self.expand), ("conv_dw", "bn2", self.depthwise), ("conv_pwl", "bn3", self.reduce)]


class Trunk(nn.Module):
    """EfficientNet-Lite0 up to its head convolution; frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 3, 2)
        self.stages = nn.ModuleList()
        channels = 32
        for stage in _STAGES:
            blocks = nn.Sequential()
            for index in range(stage.repeats):
                blocks.append(_Block(channels, stage, stage.stride if index == 0 else 1))
                channels = stage.channels
            self.stages.append(blocks)
        self.head = _Conv(channels, 1280, 1, 1)

    @classmethod
    def load(cls, path: Path) -> "Trunk":
        """Load ``trunk.safetensors`` and fold the normalisations."""
        trunk = cls()
        trunk.load_timm(load_file(path))
        return trunk.eval()

    @torch.no_grad()
    def load_timm(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of timm's ``tf_efficientnet_lite0``."""
        for conv, norm, module in self.named_convolutions():
            weight, bias, mean, variance = (state[f"{norm}.{field}"] for field in _BN_FIELDS)
            scale = weight / torch.sqrt(variance + _BN_EPS)
            module.weight.copy_(state[f"{conv}.weight"] * scale[:, None, None, None])
            module.bias.copy_(bias - mean * scale)

    def named_convolutions(self) -> Iterator[tuple[str, str, _Conv]]:
        """Yield (convolution, normalisation, module) in timm's order and under timm's names."""
        yield "conv_stem", "bn1", self.stem
        for number, blocks in enumerate(self.stages):
            for index, block in enumerate(_blocks(blocks)):
                for conv, norm, module in block.named_convolutions():
                    yield f"blocks.{number}.{index}.{conv}", f"blocks.{number}.{index}.{norm}", module
        yield "conv_head", "bn2", self.head

    @torch.no_grad()
    def features(self, batch: Tensor) -> Tensor:
        """Turn ``uint8 (B, 3, 192, 192)`` into ``(B, 16, 1416)``."""
        x = batch.to(self.stem.weight.dtype) / 127.5 - 1
        x = F.relu6(self.stem(x))  # (B, 32, 96, 96)
        kept = []
        for number, blocks in enumerate(self.stages):
            x = blocks(x)
            if number in (_LOW, _MIDDLE):
                kept.append(x)
        head = F.relu6(self.head(x))  # (B, 1280, 6, 6)
        low, middle = kept
        pooled = [F.adaptive_avg_pool2d(level, GRID).flatten(2) for level in (head, middle, low)]
        return torch.cat(pooled, 1).transpose(1, 2)  # (B, 16, 1416)


def _blocks(stage: nn.Module) -> list[_Block]:
    return [block for block in stage.children() if isinstance(block, _Block)]


def tensor_names() -> list[str]:
    """List timm's tensor names in order (classifier included, counters left out)."""
    names: list[str] = []
    for conv, norm, _ in Trunk().named_convolutions():
        names += [f"{conv}.weight", *(f"{norm}.{field}" for field in _BN_FIELDS)]
    return [*names, "classifier.weight", "classifier.bias"]
