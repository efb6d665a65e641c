"""Selectors that compare by CLIP: images, texts, or both. They need the extra ``clip`` (open_clip).

The weights are loaded when the first query is answered. What they make of the demonstrations is kept in the bank, under
a name that tells weights apart, so that later only queries are encoded.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from aim_sdk.devices import resolve_device
from aim_sdk.errors import InputError, MissingDependencyError, ModelNotFoundError, did_you_mean
from aim_sdk.images import image_digest, load_image
from aim_sdk.selection import Selector, best, dot, others, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aim_sdk.bank.bank import DemonstrationBank
    from aim_sdk.bank.store import Matrix, Where
    from aim_sdk.types import Demonstration, ImageInput, Query

PRETRAINED = "openai"
"""The default tag, which a model that brings its own weights ignores."""
_IMAGES, _TEXTS = 64, 256
"""Images and texts of one forward."""
_LISTED = 'python -c "import open_clip; print(*open_clip.list_pretrained(), sep=chr(10))"'

T = TypeVar("T")


class _ClipSelector(Selector):
    """What the three have in common."""

    def __init__(
        self,
        model: str | Path = "ViT-B-32",
        pretrained: str | Path | None = "openai",
        device: str | None = None,
        *,
        where: Where | None = None,
        balance: str | None = None,
    ) -> None:
        super().__init__(where=where, balance=balance)
        self.encoder = shared_encoder(model, pretrained, device)

    def image_scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        """Cosines of the images."""
        vectors = bank.features(f"clip-image {self.encoder.name}", self._images)
        return dot(self.encoder.images([query.image for query in queries]), vectors, candidates)

    def text_vectors(self, bank: DemonstrationBank) -> Matrix:
        """The bank's texts."""
        return bank.features(f"clip-text {self.encoder.name}", self._texts)

    def _images(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.images([item.image for item in demonstrations])

    def _texts(self, demonstrations: list[Demonstration]) -> Matrix:
        return self.encoder.texts([item.text for item in demonstrations])


class RicesSelector(_ClipSelector):
    """The most similar images by CLIP (Retrieval-based In-Context Examples Selection, Yang et al. 2022).

    Args:
        model, pretrained, device: see :class:`ClipEncoder`.
        where, balance: see :class:`aim_sdk.selection.Selector`.
    """

    name = "rices"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        return self.image_scores(bank, queries, candidates)


class TextSelector(_ClipSelector):
    """The demonstrations whose texts (not answers) are most similar to the query's text by CLIP.

    CLIP reads the first tokens of a text only (77 with most weights): what follows is cut off. Equal texts, as of
    captions, are equally similar: then those that were added first are shown.

    Args:
        model, pretrained, device: see :class:`ClipEncoder`.
        where, balance: see :class:`aim_sdk.selection.Selector`.
    """

    name = "text"

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        vectors = self.text_vectors(bank)
        return dot(self.encoder.texts([query.text for query in queries]), vectors, candidates)


class MmicesSelector(_ClipSelector):
    """The most similar texts among the most similar images.

    Mixed Modality In-Context Example Selection (Chen et al. 2023). The demonstrations whose images are not among the
    ``prefilter`` most similar ones come after all others, by their images: they are shown where more shots, or another
    label, are asked for. Texts are cut as in :class:`TextSelector`.

    Args:
        model, pretrained, device: see :class:`ClipEncoder`.
        prefilter: how many images; the query's own demonstrations do not count.
        where, balance: see :class:`aim_sdk.selection.Selector`.
    """

    name = "mmices"

    def __init__(
        self,
        model: str | Path = "ViT-B-32",
        pretrained: str | Path | None = "openai",
        device: str | None = None,
        *,
        prefilter: int = 100,
        where: Where | None = None,
        balance: str | None = None,
    ) -> None:
        super().__init__(model, pretrained, device, where=where, balance=balance)
        if not isinstance(prefilter, int) or prefilter < 1:
            raise InputError(f"prefilter={prefilter!r}; expected a whole number of at least 1.")
        self.prefilter = prefilter

    def scores(self, bank: DemonstrationBank, queries: Sequence[Query], candidates: NDArray[np.intp]) -> Matrix:
        scores, vectors = self.image_scores(bank, queries, candidates), self.text_vectors(bank)
        asked = self.encoder.texts([query.text for query in queries])
        for query, row, text in zip(queries, scores, asked, strict=True):
            allowed = others(bank, query, candidates)
            near = np.sort(allowed[best(row[allowed], self.prefilter)])
            row -= 4  # below every cosine
            row[near] = dot(text[None], vectors, candidates[near])[0]
        return scores


class ClipEncoder:
    """A frozen CLIP model, loaded when it is first used. Threads may share it.

    Args:
        model: a name of open_clip's (``open_clip.list_models()``); a folder with ``open_clip_config.json`` and weights;
            or ``hf-hub:owner/name``, which holds the same.
        pretrained: the weights of a model that is given by name: a tag of open_clip's
            (``open_clip.list_pretrained()``), or a file, ``.safetensors`` or a state dict that
            ``torch.load(weights_only=True)`` reads. A folder or a repository brings its own.
        device: where it runs; None takes a GPU where there is one.

    Raises:
        MissingDependencyError: open_clip is not installed.
        ModelNotFoundError: there is no such file or folder; when it is first used: the weights cannot be downloaded.
        InputError: no such model or tag; no weights; when it is first used: they do not fit.
        DeviceError: no such device.
    """

    def __init__(
        self, model: str | Path = "ViT-B-32", pretrained: str | Path | None = "openai", device: str | None = None
    ) -> None:
        self._source = _find(str(model), str(pretrained or ""))
        self._device = resolve_device(device)
        self._lock = threading.Lock()
        self._clip: _Clip | None = None

    @property
    def name(self) -> str:
        """Tells model and weights apart: a model and a tag, or a hash of the files."""
        return self._loaded().name

    def images(self, images: Sequence[ImageInput]) -> Matrix:
        """Encode images to unit vectors ``(images, dim)``.

        Raises:
            ImageError: one cannot be decoded.
        """
        return _each_once(images, [image_digest(image) for image in images], self._image_batches)

    def texts(self, texts: Sequence[str]) -> Matrix:
        """Encode texts to unit vectors ``(texts, dim)``; what exceeds CLIP's context is cut off."""
        return _each_once(texts, texts, self._text_batches)

    def _image_batches(self, images: list[ImageInput]) -> Iterator[torch.Tensor]:
        clip = self._loaded()
        batches = [images[start : start + _IMAGES] for start in range(0, len(images), _IMAGES)]
        with ThreadPoolExecutor(thread_name_prefix="aim-clip") as pool:
            ahead = pool.map(clip.pixels, batches[0])
            for following in [*batches[1:], []]:
                pixels = torch.stack(list(ahead))
                ahead = pool.map(clip.pixels, following)  # decoded while the GPU computes
                yield clip.model.encode_image(pixels.to(self._device), normalize=False)

    def _text_batches(self, texts: list[str]) -> Iterator[torch.Tensor]:
        clip = self._loaded()
        for start in range(0, len(texts), _TEXTS):
            with self._lock:  # fast tokenizers do not bear two threads
                tokens = clip.tokenizer(texts[start : start + _TEXTS])
            yield clip.model.encode_text(tokens.to(self._device), normalize=False)

    def _loaded(self) -> _Clip:
        with self._lock:
            if self._clip is None:
                self._clip = _load(self._source, self._device)
            return self._clip


_shared: weakref.WeakValueDictionary[tuple[str, str, str], ClipEncoder] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def shared_encoder(model: str | Path, pretrained: str | Path | None, device: str | None) -> ClipEncoder:
    """One encoder for all selectors of the same weights, as long as one of them lives."""
    with _sharing:
        key = str(model), str(pretrained), str(device)
        encoder = _shared.get(key)
        if encoder is None:
            encoder = _shared[key] = ClipEncoder(model, pretrained, device)
        return encoder


@dataclass(frozen=True)
class _Source:
    """Where the weights are, as open_clip takes it."""

    model: str
    pretrained: str = ""
    tag: bool = False


@dataclass(frozen=True)
class _Clip:
    model: Any
    transform: Callable[[Any], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]
    name: str

    def pixels(self, image: ImageInput) -> torch.Tensor:
        return self.transform(load_image(image))


def _find(model: str, pretrained: str) -> _Source:
    named = model.replace("/", "-")  # ViT-B/32, as papers write it
    if named in _open_clip().list_models():
        return _weights_of(named, pretrained)
    folder = Path(model.removeprefix("local-dir:")).expanduser()
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
        return _Source(model)
    if not (folder / "open_clip_config.json").is_file():
        raise ModelNotFoundError(
            f"{folder}: no open_clip_config.json. Pass a folder that was saved for open_clip (a CLIP of transformers "
            "was not), or a model's name and pretrained='/path/to/weights.safetensors'."
        )
    if not _weights_in(folder):
        raise ModelNotFoundError(f"{folder}: no weights (*.safetensors, *.bin or *.pth) beside open_clip_config.json.")
    return _Source(f"local-dir:{folder}")


def _weights_of(model: str, pretrained: str) -> _Source:
    tags = _open_clip().list_pretrained_tags_by_model(model)
    known = f"{', '.join(map(repr, tags)) or 'no tag is known'}; or the path of a weights file"
    if not pretrained:
        raise InputError(
            f"CLIP {model} without `pretrained` has random weights, which choose at random "
            f"(for that there is selector='random'). Expected one of: {known}."
        )
    if (tag := pretrained.lower().replace("-", "_")) in tags:
        return _Source(model, tag, tag=True)
    file = Path(pretrained).expanduser()
    suffixes = (".safetensors", ".pt", ".pth", ".bin")
    if file.is_file() and file.suffix in suffixes:
        return _Source(model, str(file))
    if file.exists():
        raise InputError(f"pretrained={pretrained!r}: expected a file {', '.join(suffixes)}; a folder goes to `model`.")
    if file.suffix in suffixes or pretrained.startswith(("/", ".", "~")):
        raise ModelNotFoundError(f"{file}: no such file.")
    raise InputError(
        f"no weights {pretrained!r} for CLIP {model}.{did_you_mean(tag, tags)} Expected one of: {known}.\n"
        f"Next: {_LISTED}"
    )


def _load(source: _Source, device: torch.device) -> _Clip:
    open_clip, files = _open_clip(), _files(source)
    for file in files:
        _refuse_code(file)
    quick_gelu = source.tag and open_clip.get_pretrained_cfg(source.model, source.pretrained).get("quick_gelu", False)
    try:
        config = open_clip.get_model_config(source.model) or {}
        if config.get("text_cfg", {}).get("tokenizer_kwargs", {}).get("trust_remote_code"):
            raise InputError(f"{source.model}: its tokenizer would run code of its own, which is not done.")
        model, transform = open_clip.create_model_from_pretrained(
            source.model,
            source.pretrained or None,
            force_quick_gelu=quick_gelu,  # open_clip only warns where the name's activation is not that of the weights
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(source.model)
    except InputError:
        raise
    except OSError as error:  # a tokenizer or a text tower of the hub's
        raise _unreachable(source, error) from error
    except Exception as error:  # a malformed file fails in many ways
        raise InputError(f"CLIP {source.model}: {files[0]} cannot be loaded as its weights ({error}).") from error
    model = model.to(device).eval().requires_grad_(False)
    return _Clip(model, transform, tokenizer, _name(source, files))


def _files(source: _Source) -> list[Path]:
    """The files that hold the weights, and the model's settings where they are beside them; downloaded if need be."""
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
                    ".safetensors (OpenAI's: model='hf-hub:timm/vit_base_patch32_clip_224.openai' and its like)."
                )


def _name(source: _Source, files: Sequence[Path]) -> str:
    if source.tag:
        return f"{source.model} {source.pretrained}"
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"{source.model if source.pretrained else 'model'} sha256:{digest.hexdigest()}"


def _unreachable(source: _Source, error: Exception) -> ModelNotFoundError:
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
            'Next: pip install "aim-icl[clip]"'
        ) from error


def _each_once(items: Sequence[T], keys: Sequence[str], encode: Callable[[list[T]], Iterator[torch.Tensor]]) -> Matrix:
    """Encode equal items once: it is quicker, and their vectors are the same to the last bit."""
    unique = dict(zip(keys, items, strict=True))
    places = {key: place for place, key in enumerate(unique)}
    with torch.inference_mode():
        made = [batch.float().cpu().numpy() for batch in encode(list(unique.values()))]
    vectors: Matrix = unit(np.concatenate(made))[[places[key] for key in keys]].astype(np.float32, copy=False)
    return vectors
