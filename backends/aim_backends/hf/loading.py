"""Loads a checkpoint with its processor, or says in one sentence why it cannot be loaded."""

from __future__ import annotations

import pickle  # its errors alone
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.tqdm import enable_progress_bars
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.utils import logging

from aim_backends.families.table import family_of, served_by
from aim_backends.hf.folder import check_folder, read_config
from aim_backends.hf.generation_settings import unusable_settings
from aim_backends.hf.kv_cache import skeleton
from aim_backends.hf.processors import check_counts, find_template
from aim_backends.hf.sources import first, unreachable
from aim_sdk.backend.devices import resolve_device, resolve_dtype
from aim_sdk.errors import (
    CorruptArtifactError,
    DeviceError,
    InputError,
    MissingDependencyError,
    ModelNotFoundError,
    UnsupportedModelError,
    did_you_mean,
)
from aim_sdk.support.terminal import libraries_are_quiet

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies", "trust_remote_code")
_OPTIONS = ("dtype", "device", "device_map", "max_memory", "quantization_config", "attn_implementation", "variant")
"""Usual ones, for suggestions."""


def load(
    backend: str,
    source: str,
    device: str | None,
    dtype: str | torch.dtype | None,
    options: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Return the model and its processor. Code of the checkpoint runs only with the option ``trust_remote_code=True``.

    Raises:
        InputError: ``trust_remote_code`` is not a bool, or ``dtype`` and ``torch_dtype`` are both given.
        (more): see `TransformersBackend.from_pretrained`.
    """
    found, precision, options = _placed(device, dtype, options)
    _, processor = described(backend, source, options)
    options.pop("processor_options", None)
    model = _model(source, {"dtype": precision, **options})
    if (weight := getattr(model.get_input_embeddings(), "weight", None)) is not None and weight.is_meta:
        raise DeviceError(
            f"{source}: device_map has put the input embeddings where they cannot be read (disk, or the CPU as a "
            "store): fused tokens are written and measured there.\n"
            "Next: a device_map that keeps them on a device, or `max_memory` with more room for the first one."
        )
    # If accelerate or a quantiser has placed the weights, they stay there.
    placed = "device_map" in options or getattr(model, "is_quantized", False)
    return (model if placed else model.to(found)), processor


def described(backend: str, source: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the configuration and the processor, which need no weights.

    Raises:
        (more): see `TransformersBackend.from_pretrained`.
    """
    hub = {name: value for name, value in _checked(options).items() if name in _HUB_OPTIONS}
    config = _config(source, hub)
    _check_family(backend, config)
    _check_generation(source, hub)
    processor = _processor(source, {**hub, **options.get("processor_options", {})})
    check_counts(processor, config, source)
    return config, processor


def sketched(
    backend: str,
    source: str,
    device: str | None,
    dtype: str | torch.dtype | None,
    options: Mapping[str, Any],
) -> tuple[Any, Any, torch.device, torch.dtype]:
    """Return the model without its weights, its processor, and where and in what precision it would run.

    Raises:
        (more): see `TransformersBackend.from_pretrained`.
    """
    found, precision, options = _placed(device, dtype, options)
    config, processor = described(backend, source, options)
    if isinstance(precision, str):
        named = (getattr(part, "dtype", None) for part in (config, config.get_text_config()))
        precision = next((one for one in named if isinstance(one, torch.dtype)), torch.float32)
    try:
        model = skeleton(config, trust_remote_code=options["trust_remote_code"])
    except ImportError as error:
        raise MissingDependencyError(f"{source} needs another package: {first(error)}") from error
    except Exception as error:  # a malformed configuration fails in as many ways as there are classes
        raise CorruptArtifactError(
            f"{source}/config.json does not describe a {config.model_type!r} model: {first(error)}"
        ) from error
    return model, processor, found, precision


def _placed(
    device: str | None, dtype: str | torch.dtype | None, options: Mapping[str, Any]
) -> tuple[torch.device, str | torch.dtype, dict[str, Any]]:
    """The device, the dtype (or "auto") and the other options."""
    options = _checked(options)
    if "torch_dtype" in options:  # the name on every older model card
        if dtype is not None:
            raise InputError("dtype and torch_dtype are both given; they mean the same: leave torch_dtype out.")
        dtype = options.pop("torch_dtype")
    found = resolve_device(device)
    if dtype == "auto" or (dtype is None and found.type != "cpu"):
        return found, "auto", options
    return found, resolve_dtype(dtype, torch.float32), options


def as_saved(source: str, options: Mapping[str, Any]) -> Any:
    """The model again, in the dtype of its files. They stay mapped: only what is used is read from disk."""
    hub = {name: value for name, value in _checked(options).items() if name in _HUB_OPTIONS}
    return _model(source, {"dtype": "auto", **hub})


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    trusted = options.get("trust_remote_code", False)
    if not isinstance(trusted, bool):
        raise InputError(f"trust_remote_code={trusted!r}: expected True or False.")
    return {**options, "trust_remote_code": trusted}  # without it transformers asks on standard input


def _config(source: str, hub: Mapping[str, Any]) -> Any:
    if Path(source).is_dir():
        check_folder(Path(source))
    try:
        return AutoConfig.from_pretrained(source, **hub)
    except Exception as error:  # a malformed configuration fails in as many ways as there are classes
        if refused := _of_its_code(source, error):
            raise refused from error
        if not Path(source).is_dir():
            raise ModelNotFoundError(unreachable(source, error)) from error
        kind = read_config(Path(source) / "config.json")["model_type"]
        if "does not recognize" in str(error) or "Unrecognized" in str(error):
            raise UnsupportedModelError(
                f"{source}: transformers knows no model_type {kind!r}; {first(error)}"
            ) from error
        raise CorruptArtifactError(
            f"{source}/config.json does not describe a {kind!r} model: {first(error)}"
        ) from error


def _of_its_code(source: str, error: Exception) -> UnsupportedModelError | None:
    """The error for a checkpoint that needs its own code; None for any other error."""
    if "custom code" not in str(error) or "trust_remote_code" not in str(error):
        return None
    return UnsupportedModelError(
        f"{source} needs its own Python code to be loaded; that code was not run.\n"
        "Next: look for a conversion that transformers loads by itself (names often end in '-hf'); or read that code, "
        "and if you trust it pass trust_remote_code=True (`--trust-remote-code` on the command line)."
    )


def _check_family(backend: str, config: Any) -> None:
    kind = str(config.model_type)
    family = family_of(kind)
    if family.refused:
        raise UnsupportedModelError(
            f"model_type {kind!r} cannot be served: {family.refused}. Expected a multimodal LLM with a decoder-only LM."
        )
    # BLIP-2 and similar models carry either kind of LM.
    parts = (config, config.get_text_config(), getattr(config, "text_config", None))
    if any(getattr(part, "is_encoder_decoder", False) for part in parts):
        raise UnsupportedModelError(
            f"model_type {kind!r} has an encoder-decoder LM: a demonstration's text has no causal states there. "
            "Expected a decoder-only LM."
        )
    if backend not in ("auto", family.backend):
        raise UnsupportedModelError(
            f"model_type {kind!r} is not served by backend {backend!r}, which serves: "
            f"{', '.join(served_by(backend))}.\nNext: use backend {family.backend!r}."
        )
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return
    offered = getattr(config, "auto_map", None)  # what a checkpoint's own code holds
    if offered is None:
        raise UnsupportedModelError(
            f"model_type {kind!r} is not an image-text-to-text model of transformers; expected a multimodal LLM."
        )
    if AutoModelForImageTextToText.__name__ not in offered:
        raise UnsupportedModelError(
            f"the Python code of this checkpoint ({kind!r}) offers {', '.join(sorted(offered))}, and not "
            "AutoModelForImageTextToText: its model and its processor have an interface of their own.\n"
            "Next: look for a conversion that transformers loads by itself (names often end in '-hf'), or write a "
            "backend for it (see 'Write a backend' in the documentation)."
        )


def _check_generation(source: str, hub: Mapping[str, Any]) -> None:
    """Refuse settings of ``generate`` that transformers refuses."""
    try:
        GenerationConfig.from_pretrained(source, **hub)
    except OSError:  # it has none
        return
    except Exception as error:  # malformed ones fail in many ways
        raise CorruptArtifactError(unusable_settings(source, error)) from error


def _processor(source: str, options: Mapping[str, Any]) -> Any:
    try:
        load: Any = AutoProcessor.from_pretrained
        processor = load(source, **options)
    except ImportError as error:
        raise MissingDependencyError(f"the processor of {source} needs another package: {first(error)}") from error
    except Exception as error:  # a broken tokenizer or processor file fails in as many ways as there are classes
        if refused := _of_its_code(source, error):
            raise refused from error
        if not Path(source).is_dir():
            raise ModelNotFoundError(unreachable(source, error)) from error
        raise CorruptArtifactError(
            f"{source}: the processor's files are missing, cut or malformed ({type(error).__name__}: {first(error)})."
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise CorruptArtifactError(
            f"{source} has no processor for images and text; expected preprocessor_config.json next to the tokenizer."
        )
    find_template(processor, source)
    return processor


def _model(source: str, options: Mapping[str, Any]) -> Any:
    try:
        load: Any = AutoModelForImageTextToText.from_pretrained
        if libraries_are_quiet() and logging.is_progress_bar_enabled():  # a bar for each loading of weights
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            enable_progress_bars()  # of downloads: they take minutes
        model, report = load(source, output_loading_info=True, **options)
    except SafetensorError as error:
        raise CorruptArtifactError(f"{source}: a weights file is cut or malformed ({error}).") from error
    except ImportError as error:
        raise MissingDependencyError(f"{source} needs another package: {first(error)}") from error
    except OSError as error:
        if not Path(source).is_dir():
            raise ModelNotFoundError(unreachable(source, error)) from error
        raise ModelNotFoundError(f"{source}: the weights cannot be read: {first(error)}") from error
    except TypeError as error:
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            near = did_you_mean(unknown[1], [*_HUB_OPTIONS, *_OPTIONS])
            raise InputError(
                f"option {unknown[1]!r} is unknown to the model's class and to transformers' from_pretrained.{near}"
            ) from error
        raise _not_loaded(source, error) from error
    except AssertionError as error:
        raise _not_loaded(source, error) from error
    except pickle.UnpicklingError as error:  # of a .bin file, which is read without running what a pickle names
        raise CorruptArtifactError(f"{source}: a weights file is not a plain state dict: {first(error)}") from error
    except ValueError as error:
        if refused := _of_its_code(source, error):
            raise refused from error
        raise
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "mismatched" not in str(error):
            raise
        raise CorruptArtifactError(f"{source}: the weights do not fit config.json: {first(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise CorruptArtifactError(
            f"{source}: {len(missing)} weights are missing (would be random): {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}."
        )
    return model


def _not_loaded(source: str, error: Exception) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"{source}: config.json or generation_config.json does not fit the model ({type(error).__name__}: "
        f"{first(error)})."
    )
