"""A tiny random checkpoint of a model type, made from what transformers itself says of the type."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from aim_backends.drafting.ids import named, with_ids, written
from aim_backends.drafting.processors import processor_class, processor_for
from aim_backends.drafting.settings import IMAGE, shrunk
from aim_backends.drafting.words import tokenizer_for
from aim_sdk.testing.fresh import save, spare

_MOST: Final = 30_000_000
"""Weights of a tiny model: one that has more has a size whose name is not known."""
_COUNTS = re.compile(r"image_seq_len(?:gth)?|num_image_tokens|num_query_tokens|num_additional_image_tokens")


class DraftError(Exception):
    """A step that failed."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(f"{step}: {why}")
        self.step, self.why = step, why


@contextmanager
def step(name: str) -> Iterator[None]:
    """Turn any exception into a `DraftError` of one line that names the step."""
    try:
        yield
    except DraftError:
        raise
    except Exception as error:  # what is not known of a new type fails in any way
        raise DraftError(name, one_line(error)) from error


def one_line(error: BaseException) -> str:
    """An exception's type and first line; the next one, too, if the first announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    return f"{type(error).__name__}: {text}"[:300]


def build(model_type: str, folder: Path) -> Path:
    """Write a tiny random checkpoint of a type of the installed transformers.

    Raises:
        DraftError: it cannot be built this way; it names the step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with step("its default configuration"):
            config_class: Any = CONFIG_MAPPING[model_type]
            settings = default_settings(config_class)
        with step("its processor's class"):
            kind = processor_class(config_class)
        with step("its tokenizer"):
            tokenizer = tokenizer_for(kind, set(named(settings)))
            small = shrunk(settings, spare(tokenizer))
        with step("its processor"):
            processor = processor_for(kind, config_class, tokenizer, small)
        with step("its small configuration"):
            config = config_class.from_dict(with_ids(small, processor))
        with step("its model"):
            model = _model(config)
        with step("the number of an image's tokens"):
            _count(model, processor)
        with step("its checkpoint"):
            _open_gates(model)
            save(folder, model, processor)
    return folder


def default_settings(config_class: Any) -> dict[str, Any]:
    """Its defaults, with those of the towers that it has only if it is told to."""
    settings: dict[str, Any] = config_class().to_dict()
    parts = {name: kind for name, kind in config_class.sub_configs.items() if "vision" in name or "text" in name}
    return settings | {name: kind().to_dict() for name, kind in parts.items() if settings.get(name) is None}


def _model(config: Any) -> Any:
    kind: Any = AutoModelForImageTextToText._model_mapping[type(config)]
    kind = kind[0] if isinstance(kind, tuple) else kind
    with torch.device("meta"):
        sketch = kind(config)
    weights = {name: parameter.numel() for name, parameter in sketch.named_parameters()}
    if sum(weights.values()) > _MOST:
        most = sorted(weights, key=lambda name: -weights[name])[:2]
        shapes = (f"{name} {list(sketch.get_parameter(name).shape)}" for name in most)
        raise ValueError(f"{sum(weights.values()):.1e} weights are not few: {', '.join(shapes)}")
    return kind(config).eval()


def _open_gates(model: Any) -> None:
    """Draw the gates that a fresh model keeps shut, by weights of 0: what they let through must count."""
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 and not name.endswith("bias") and not parameter.any():
            torch.nn.init.normal_(parameter)


def _count(model: Any, processor: Any) -> None:
    """Tell a processor that is told how many tokens an image has what the model makes of one."""
    told = [name for name in vars(processor) if _COUNTS.fullmatch(name)]
    owner = model if hasattr(model, "get_image_features") else model.base_model
    if not told or not hasattr(owner, "get_image_features"):
        return
    features = owner.get_image_features
    pixels = processor.image_processor(images=[Image.new("RGB", (IMAGE, IMAGE))], return_tensors="pt")
    taken = inspect.signature(features).parameters
    if any(needed.default is needed.empty and name not in pixels for name, needed in taken.items() if needed.kind != 4):
        return
    with torch.no_grad():
        found = features(**{name: value for name, value in pixels.items() if name in taken})
    found = getattr(found, "pooler_output", found)
    first = found[0] if isinstance(found, list | tuple) else found
    made, now = first.shape[-2], max(written(processor, IMAGE).values(), default=0)
    for name in told:
        more = name == "num_additional_image_tokens"
        setattr(processor, name, getattr(processor, name) + made - now if more else made)
