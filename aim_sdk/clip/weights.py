"""CLIP weights by name, folder or file: found, checked, loaded without running code, and told apart by name."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aim_sdk.errors import InputError, MissingDependencyError, ModelNotFoundError, did_you_mean
from aim_sdk.files.atomic import expanded
from aim_sdk.files.images import load_image
from aim_sdk.support.dependencies import install_command

if TYPE_CHECKING:
    from aim_sdk.types import ImageInput

PRETRAINED = "openai"
"""The default tag, which a model that brings its own weights ignores."""
_LISTED = 'python -c "import open_clip; print(*open_clip.list_pretrained(), sep=chr(10))"'


@dataclass(frozen=True)
class ClipSource:
    """Where the weights are, as open_clip takes it."""

    model: str
    pretrained: str = ""
    tag: bool = False


@dataclass(frozen=True)
class Clip:
    """A loaded model with what prepares its inputs."""

    model: Any
    transform: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    name: str

    def pixels(self, image: ImageInput) -> torch.Tensor:
        return self.transform(load_image(image))


def find_source(model: str, pretrained: str) -> ClipSource:
    """Check a model's and its weights' names, or their files; nothing is loaded."""
    named = model.replace("/", "-")  # ViT-B/32, as papers write it
    if named in _open_clip().list_models():
        return _weights_of(named, pretrained)
    folder = expanded(model.removeprefix("local-dir:"))
    if not model.startswith("hf-hub:") and not folder.is_dir():
        if model.startswith(("/", ".", "~", "local-dir:")):
            raise ModelNotFoundError(f"{folder}: no such folder.")
        raise InputError(
            f"unknown CLIP model {model!r}.{did_you_mean(named, _open_clip().list_models())} Expected a name of "
            "open_clip's, a folder with open_clip_config.json and weights, or hf-hub:owner/name.\n"
            f"Next: {_LISTED}"
        )
    if pretrained not in ("", PRETRAINED):
        raise InputError(f"pretrained={pretrained!r}: {model} brings its own weights; leave `pretrained` out.")
    if model.startswith("hf-hub:"):
        return ClipSource(model)
    if not (folder / "open_clip_config.json").is_file():
        raise ModelNotFoundError(
            f"{folder}: no open_clip_config.json. Pass a folder that was saved for open_clip (a CLIP of transformers "
            "was not), or a model's name and pretrained='/path/to/weights.safetensors'."
        )
    if not _weights_in(folder):
        raise ModelNotFoundError(f"{folder}: no weights (*.safetensors, *.bin or *.pth) next to open_clip_config.json.")
    return ClipSource(f"local-dir:{folder}")


def _weights_of(model: str, pretrained: str) -> ClipSource:
    tags = _open_clip().list_pretrained_tags_by_model(model)
    known = f"{', '.join(map(repr, tags)) or 'no tag is known'}; or the path of a weights file"
    if not pretrained:
        raise InputError(
            f"CLIP {model} without `pretrained` has random weights, which choose at random "
            f"(for that there is selector='random'). Expected one of: {known}."
        )
    if (tag := pretrained.lower().replace("-", "_")) in tags:
        return ClipSource(model, tag, tag=True)
    file = expanded(pretrained)
    suffixes = (".safetensors", ".pt", ".pth", ".bin")
    if file.is_file() and file.suffix in suffixes:
        return ClipSource(model, str(file))
    if file.exists():
        raise InputError(f"pretrained={pretrained!r}: expected a file {', '.join(suffixes)}; a folder goes to `model`.")
    if file.suffix in suffixes or pretrained.startswith(("/", ".", "~")):
        raise ModelNotFoundError(f"{file}: no such file.")
    raise InputError(
        f"no weights {pretrained!r} for CLIP {model}.{did_you_mean(tag, tags)} Expected one of: {known}.\n"
        f"Next: {_LISTED}"
    )


def load_clip(source: ClipSource, device: torch.device) -> Clip:
    """Load the weights (downloaded if needed), without pickle and without running code of theirs."""
    open_clip, files = _open_clip(), _files(source)
    for file in files:
        _refuse_code(file)
    quick_gelu = source.tag and open_clip.get_pretrained_cfg(source.model, source.pretrained).get("quick_gelu", False)
    try:
        text = (open_clip.get_model_config(source.model) or {}).get("text_cfg", {})
        _refuse_code_of_text(source, text)
        model, transform = open_clip.create_model_from_pretrained(
            source.model,
            source.pretrained or None,
            force_quick_gelu=quick_gelu,  # open_clip only warns if the name's activation is not that of the weights
            weights_only=True,
        )
        # Otherwise transformers asks on standard input whether a tokenizer's code may run.
        trusted = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        tokenizer = open_clip.get_tokenizer(source.model, **trusted)
    except InputError:
        raise
    except OSError as error:  # a tokenizer or a text tower of the hub's
        raise _unreachable(source, error) from error
    except Exception as error:  # a malformed file fails in many ways
        if "trust_remote_code" in str(error):
            raise InputError(f"CLIP {source.model} needs code of its own, which is not run.") from error
        raise InputError(f"CLIP {source.model}: {files[0]} cannot be loaded as its weights ({error}).") from error
    model = model.to(device).eval().requires_grad_(False)
    return Clip(model, transform, tokenizer, _name(source, files))


def _files(source: ClipSource) -> list[Path]:
    """The files that hold the weights, and the model's settings if they are next to them; downloaded if needed."""
    open_clip = _open_clip()
    if source.model.startswith("local-dir:"):
        folder = Path(source.model.removeprefix("local-dir:"))
        return [*_weights_in(folder), folder / "open_clip_config.json"]
    try:
        if source.tag:
            return [Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(source.model, source.pretrained)))]
        if source.model.startswith("hf-hub:"):
            repository = source.model.removeprefix("hf-hub:")
            return [
                Path(open_clip.download_pretrained({"hf_hub": f"{repository}/{name}"}))
                for name in ("", "open_clip_config.json")
            ]
    except Exception as error:  # of urllib, the hub's client, or open_clip itself
        raise _unreachable(source, error) from error
    return [Path(source.pretrained)]


def _weights_in(folder: Path) -> list[Path]:
    """All that open_clip may take there."""
    return sorted(file for suffix in ("safetensors", "bin", "pth") for file in folder.glob(f"*.{suffix}"))


def _refuse_code(file: Path) -> None:
    """TorchScript is a program, and open_clip would run it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise InputError(
                    f"{file}: a TorchScript archive holds code, which is not run. Pass the same weights as "
                    ".safetensors (OpenAI's: model='hf-hub:timm/vit_base_patch32_clip_224.openai' and similar)."
                )


def _refuse_code_of_text(source: ClipSource, text: Mapping[str, Any]) -> None:
    """Refuse a text tower of transformers', or its tokenizer, that needs code of its own: open_clip would ask."""
    if text.get("tokenizer_kwargs", {}).get("trust_remote_code"):
        raise InputError(f"{source.model}: its tokenizer would run code of its own, which is not allowed.")
    if not (tower := text.get("hf_model_name")):
        return
    transformers = import_module("transformers")
    config = transformers.AutoConfig.from_pretrained(tower, trust_remote_code=False)
    if getattr(config, "auto_map", None) and type(config) not in transformers.AutoModel._model_mapping:
        raise InputError(f"{source.model}: its text tower {tower!r} would run code of its own, which is not allowed.")


def _name(source: ClipSource, files: Sequence[Path]) -> str:
    if source.tag:
        return f"{source.model} {source.pretrained}"
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"{source.model if source.pretrained else 'model'} sha256:{digest.hexdigest()}"


def _unreachable(source: ClipSource, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"CLIP {source.model} {source.pretrained}: it cannot be downloaded ({error}).\nNext: without network, pass "
        "model='/path/to/folder' (open_clip_config.json and weights), or pretrained='/path/to/weights.safetensors'."
    )


def _open_clip() -> Any:
    """The module, imported late: it takes seconds."""
    try:
        return import_module("open_clip")
    except ImportError as error:
        raise MissingDependencyError(
            f"rices, text and mmices need open_clip, which cannot be imported ({error}).\n"
            f"Next: {install_command('clip')}"
        ) from error
