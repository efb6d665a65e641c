"""Drafts the row of one model type, or of a checkpoint: builds, loads, measures, and checks what it measured."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from PIL import Image
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText
from transformers.configuration_utils import ALLOWED_ATTN_LAYER_TYPES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from aim_backends.auto import AutoBackend
from aim_backends.drafting.checkpoint import DraftError, build, default_settings, step
from aim_backends.drafting.facts import continued_cache, prefix_reuse
from aim_backends.drafting.processors import NoProcessorError, attributes, processor_class
from aim_backends.drafting.rows import prefix_row, row_text
from aim_backends.families import table
from aim_backends.families.table import Family, family_of
from aim_backends.hf import TransformersBackend
from aim_sdk.errors import InputError, did_you_mean
from aim_sdk.testing.kit import run_checks

TYPES: Final = sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""The image-text-to-text types of the installed transformers."""
MEASURED: Final = ("loading it", "its prefix reuse", "its cached prompt", "its images")
"""The steps after a checkpoint is built."""
_SIZES: Final = ((64, 64), (640, 480), (300, 60))
"""A small, a large and an oblong picture."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was found of a model type."""

    model_type: str
    family: Family | None
    """Its row; None if a step failed."""
    notes: tuple[str, ...] = ()
    """What a person should know who reads the row, a line each."""
    failed: str = ""
    """The step that failed."""

    def __str__(self) -> str:
        row = "" if self.family is None else row_text(self.model_type, self.family)
        return "\n".join(filter(None, [*(f"# {note}" for note in self.notes), row or f'# "{self.model_type}": no row']))


def draft(wanted: str, *, kit: bool = True) -> Draft:
    """Draft the row of a model type of the installed transformers, or of the checkpoint in a folder.

    Nothing that is wrong with the model raises: the draft says at which step it failed, and why.

    Args:
        wanted: the type, or the folder; one that is named like a type is written ``./llava``.
        kit: whether all checks of the kit are run on it, which takes most of the time.

    Raises:
        InputError: there is neither such a type nor such a folder.
    """
    folder = None if wanted in TYPES else Path(wanted)
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"transformers has no image-text-to-text model_type {wanted!r}, and there is no such folder."
            f"{did_you_mean(wanted, TYPES)}"
        )
    name = wanted if folder is None else folder.resolve().name
    with warnings.catch_warnings(), TemporaryDirectory() as place:
        warnings.simplefilter("ignore")  # of a type that nobody has tried
        try:
            return _of_type(wanted, Path(place), kit) if folder is None else _of_folder(folder, kit)
        except DraftError as error:
            return Draft(name, None, (f"{name}: it failed at {error}",), error.step)


def _of_type(model_type: str, place: Path, kit: bool) -> Draft:
    if reason := refusal(model_type):
        return Draft(model_type, Family(refused=reason))
    if reason := family_of(model_type).refused:
        return Draft(model_type, Family(refused=reason), ("no rule of the draft refuses it: the table does",))
    return _of_folder(build(model_type, place), kit)


def refusal(model_type: str) -> str:
    """Why no backend can serve a type, as its classes and its default configuration say; empty if they do not.

    Raises:
        DraftError: it has no default configuration.
    """
    with step("its default configuration"):
        kind: Any = CONFIG_MAPPING[model_type]
        config = kind.from_dict(default_settings(kind))
    with step("its classes"):
        with suppress(NoProcessorError):
            if not any("image_processor" in name for name in attributes(processor_class(kind))):
                return "its processor takes no images"
        return _refused(config)


def _refused(config: Any) -> str:
    """Why no backend can serve a configuration's model; empty if nothing is known."""
    parts = (config, config.get_text_config(), getattr(config, "text_config", None))
    if any(getattr(part, "is_encoder_decoder", False) for part in parts):
        return table._ENCODER_DECODER
    model: Any = AutoModelForImageTextToText._model_mapping.get(type(config), None)
    model = model[0] if isinstance(model, tuple) else model
    return "" if model is None or model.can_generate() else "it outputs no text"


def _of_folder(folder: Path, kit: bool) -> Draft:
    with step("its configuration"):
        config = AutoConfig.from_pretrained(folder)
    kind = str(config.model_type)
    with step("its classes"):
        reason = _refused(config)
    if reason:
        return Draft(kind, Family(refused=reason))
    with step("loading it"):
        backend = AutoBackend.from_pretrained(str(folder), device="cpu")
    with step("its prefix reuse"):
        alone, padded = prefix_reuse(backend)
    with step("its cached prompt"):
        continued = continued_cache(backend)
    reuse = prefix_row(backend.model, backend.backbone, not alone, not padded)
    family = replace(family_of(kind), prefix=reuse, continues_cache=not continued, refused="")
    backend.backbone.family = family  # the kit checks what the row says
    with step("its images"):
        images = tuple(_of_images(backend))
    measured = {
        "one prompt after a prefix": alone,
        "unequal prompts after a prefix": padded,
        "a cached prompt, continued": continued,
    }
    notes = [*images, *(f"{what}: {why.splitlines()[0]}" for what, why in measured.items() if why)]
    if unseen := _unseen_layers(config.get_text_config(decoder=True)):
        notes.append(f"its code knows layers of other kinds, which were not measured: {', '.join(unseen)}")
    if kit:
        notes += _of_kit(backend)
    return Draft(kind, family, tuple(notes))


def _unseen_layers(text: Any) -> list[str]:
    """The kinds of layers that a language model's code names and its configuration does not have."""
    module = type(text).__module__.replace(".configuration_", ".modeling_")
    try:
        source = inspect.getsource(import_module(module))
    except (ImportError, OSError):  # a checkpoint's own code
        return []
    used = getattr(text, "layer_types", None) or ["full_attention"]
    return [kind for kind in ALLOWED_ATTN_LAYER_TYPES if f'"{kind}"' in source and kind not in used]


def _of_images(backend: TransformersBackend) -> Iterator[str]:
    """What the processor writes for an image."""
    layout = backend.backbone.tokens.layout
    yield f"an image is written as {layout.expansion!r}, and before every prompt besides BOS {layout.start!r}"
    counts = (f"{width}x{height}: {_tokens(backend, width, height)}" for width, height in _SIZES)
    yield f"tokens of an image: {', '.join(counts)}"


def _tokens(backend: TransformersBackend, width: int, height: int) -> int:
    backbone = backend.backbone
    made = backbone.process([backbone.placeholder], [[Image.new("RGB", (width, height))]], padding_side="left")
    return sum(token in backbone.image_ids for token in made["input_ids"][0].tolist())


def _of_kit(backend: TransformersBackend) -> Iterator[str]:
    """The checks that failed, with the first line of each."""
    results = list(run_checks(backend))
    failed = [result for result in results if not result.ok]
    yield f"the kit: {len(results) - len(failed)} of {len(results)} checks are as expected"
    for result in failed:
        yield f"{result.check}: {result.message.splitlines()[0][:200]}"
