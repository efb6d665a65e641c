"""What the system refuses is an error of the SDK that names what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aim_backends.pocket.weights import prepare_weights
from aim_sdk import AIMPipeline, get_backend
from aim_sdk.errors import ArtifactWriteError, DeviceError, InputError
from aim_sdk.testing import tiny as tiny_models


def test_a_cache_folder_that_cannot_be_made_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "cache", "/proc/nothing"):
        monkeypatch.setenv("AIM_CACHE", str(folder))
        with pytest.raises(ArtifactWriteError, match="AIM_CACHE"):
            prepare_weights()


def test_a_tiny_model_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tiny model named 'llava'\. .* Expected one of: llava-1.5, llava-next"):
        tiny_models.build("llava", tmp_path)


def test_a_hub_that_cannot_be_reached_is_said(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known")

    class Transport(Exception):
        """As httpx's: no OSError."""

    def broken(*_: Any, **__: Any) -> None:
        raise Transport("connection reset")

    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")
    for fail in (unreachable, broken):
        monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi.create_repo", fail)
        with pytest.raises(ArtifactWriteError, match="me/projector: the projector was not uploaded"):
            pipe.projector.push_to_hub("me/projector")


def test_embeddings_that_are_offloaded_are_said(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlavaForConditionalGeneration

    real = LlavaForConditionalGeneration.get_input_embeddings

    def offloaded(self: Any) -> Any:
        return real(self).to("meta")

    monkeypatch.setattr(LlavaForConditionalGeneration, "get_input_embeddings", offloaded)
    with pytest.raises(DeviceError, match="input embeddings where they cannot be read"):
        get_backend("llava").from_pretrained(str(tiny("llava-1.5")), device_map={"": torch.device("cpu")})
