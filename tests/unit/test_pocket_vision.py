"""The pocket trunk is timm's EfficientNet-Lite0, and images are prepared without distortion."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from aim_backends.pocket.vision import FEATURES, GRID, IMAGE_SIZE, VISUAL_TOKENS, Trunk, preprocess, tensor_names

WHITE = torch.full((3,), 255, dtype=torch.uint8)


def test_the_features_are_timms() -> None:
    import timm

    torch.manual_seed(0)
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    state = {name: value for name, value in reference.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert list(state) == tensor_names()
    trunk = Trunk()
    trunk.load_timm(state)
    pixels = torch.randint(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    found = trunk.features(pixels)
    assert found.shape == (2, VISUAL_TOKENS, FEATURES)
    with torch.no_grad():
        head = reference.forward_features(pixels.float() / 127.5 - 1)
    expected = F.adaptive_avg_pool2d(head, GRID).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("size", [(40, 10), (10, 40), (1, 1), (900, 300)])
def test_the_aspect_ratio_is_kept_on_white(size: tuple[int, int]) -> None:
    pixels = preprocess(Image.new("RGB", size, (0, 0, 0)))
    assert pixels.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    assert pixels.dtype == torch.uint8
    dark = pixels[0] < 128
    height, width = int(dark.any(1).sum()), int(dark.any(0).sum())
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)
    assert torch.equal(pixels[:, 0, 0], WHITE)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0)).convert(mode)
    assert torch.equal(preprocess(clear).flatten(1).amin(1), WHITE)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "I;16"])
def test_other_modes_are_accepted(mode: str) -> None:
    assert preprocess(Image.new(mode, (20, 20))).shape == (3, IMAGE_SIZE, IMAGE_SIZE)
