"""The processor of a drafted model: the class of its type, around small default parts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Final

from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

from aim_backends.drafting.settings import IMAGE, PATCH, PINPOINTS

_MAPPINGS: Final[Mapping[str, Any]] = {
    "image_processor": IMAGE_PROCESSOR_MAPPING,
    "video_processor": VIDEO_PROCESSOR_MAPPING,
    "feature_extractor": FEATURE_EXTRACTOR_MAPPING,
}
_PIXELS: Final = 4096
"""An edge that is longer counts pixels of the whole image."""


class NoProcessorError(LookupError):
    """transformers names no processor for a model type."""


def processor_class(config: type[Any]) -> type[ProcessorMixin]:
    """The processor's class that transformers names for a configuration, or for what the model's code derives from.

    Raises:
        NoProcessorError: it names none.
    """
    known = (PROCESSOR_MAPPING[kind] for kind in _relatives(config) if kind in PROCESSOR_MAPPING)
    if config in PROCESSOR_MAPPING:
        found: Any = PROCESSOR_MAPPING[config]
    else:
        found = _in_package(config) or next(known, None)
    if found is None:
        raise NoProcessorError("transformers names no processor for it")
    kind: type[ProcessorMixin] = found
    return kind


def processor_for(
    kind: type[ProcessorMixin], config: type[Any], tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]
) -> ProcessorMixin:
    """A processor around a tokenizer and small default parts, which agree with a model's small settings."""
    vision = settings.get("vision_config") or settings
    parameters = inspect.signature(kind.__init__).parameters
    given: dict[str, Any] = {}
    for name in attributes(kind):
        part = next((part for part in _MAPPINGS if part in name), None)
        made = deepcopy(tokenizer) if part is None else _part(part, config, vision)
        if made is not None:
            given[name] = made
    for name in parameters.keys() - given.keys():
        place = "image_size" if name == "img_size" else name
        if (value := vision.get(place, settings.get(place))) is not None:
            given[name] = value
    return kind(**given)


def attributes(kind: type[ProcessorMixin]) -> list[str]:
    """The names of a processor's parts."""
    named: Any = kind
    return list(named.get_attributes())


def _part(part: str, config: type[Any], vision: Mapping[str, Any]) -> Any:
    known = (_MAPPINGS[part][one] for one in _relatives(config) if one in _MAPPINGS[part])
    found = next(known, None)
    if isinstance(found, Mapping):
        found = found.get("torchvision") or found["pil"]
    if found is None:
        if part == "image_processor":
            raise NoProcessorError("transformers names no image processor for it")
        return None
    return found(**_small(found().to_dict(), vision)) if part != "feature_extractor" else found()


def _small(settings: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """An image processor's settings for a small tower."""
    made: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ("size", "crop_size", "max_image_size", "min_image_size") and isinstance(value, Mapping):
            made[name] = {edge: _edge(edge, number) for edge, number in value.items() if number}
        elif name == "max_image_tokens":
            made[name] = 16
        elif name.startswith("draw_"):
            made[name] = False  # of times on the frames of a video, in a font that may be missing
        elif name in ("patch_size", "encoder_patch_size"):
            made[name] = vision.get("patch_size", PATCH)
        elif name in ("merge_size", "spatial_merge_size"):
            made[name] = vision.get("spatial_merge_size", vision.get("merge_size", value))
        elif name == "temporal_patch_size":
            made[name] = vision.get(name, value)
        elif name in ("min_pixels", "max_pixels"):
            made[name] = IMAGE**2 * (1 if name.startswith("min") else 4)
        elif name == "image_grid_pinpoints" or name == "possible_resolutions":
            made[name] = PINPOINTS
    return made


def _edge(edge: str, number: int) -> int:
    """A side, or a bound of the area: an area is named an edge, too."""
    if number > _PIXELS or "pixels" in edge or (edge == "shortest_edge" and number == 56 * 56):
        return IMAGE**2 * (4 if "longest" in edge or "max" in edge else 1)
    return IMAGE


def _relatives(config: type[Any]) -> Iterator[type[Any]]:
    """A configuration, that of the whole model it is a part of, and those that its model's code is derived from."""
    yield config
    folder = Path(inspect.getfile(config)).parent
    derived = (re.findall(r"from \.\.(\w+)\.", file.read_text("utf-8")) for file in sorted(folder.glob("modular_*.py")))
    for name in dict.fromkeys([folder.name, *chain.from_iterable(derived)]):
        if name in CONFIG_MAPPING:
            yield CONFIG_MAPPING[name]


def _in_package(config: type[Any]) -> type[ProcessorMixin] | None:
    """The processor's class next to a configuration's, if the table of all processors lacks it."""
    name = Path(inspect.getfile(config)).parent.name
    try:
        module = import_module(f"transformers.models.{name}.processing_{name}")
    except ImportError:
        return None
    own = (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__)
    return next((kind for kind in own if issubclass(kind, ProcessorMixin)), None)
