"""Fills in what a checkpoint's processor lacks from its other files."""

from __future__ import annotations

import warnings
from contextlib import suppress
from operator import attrgetter
from typing import Any

from aim_sdk.errors import CorruptArtifactError

_IN_CONFIG = {
    "patch_size": "vision_config.patch_size",
    "vision_feature_select_strategy": "vision_feature_select_strategy",
}
"""What LLaVA's processors count visual tokens by, and where the model's configuration says it."""


def find_template(processor: Any, source: str) -> None:
    """Take the tokenizer's chat template if the processor has none, as in many fine-tuned checkpoints.

    One that has no place for images (a text model's) is not taken, with a warning.
    """
    template = getattr(processor.tokenizer, "chat_template", None)
    if getattr(processor, "chat_template", None) or not template:
        return
    processor.chat_template = template.get("default") if isinstance(template, dict) else template
    text = {"type": "text", "text": "What is it?"}
    try:
        alone, both = (
            str(processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
            for content in ([text], [{"type": "image"}, text])
        )
        mark = getattr(processor, "image_token", None)
        usable = text["text"] in both and "'type'" not in both and (mark in both if mark else both != alone)
    except Exception:  # a template is a program, and can fail in any way
        usable = False
    if not usable:
        processor.chat_template = None
        warnings.warn(
            f"{source}: the chat template in its tokenizer_config.json has no place for images and is not used: "
            "prompts are written in the backend's plain format. Next: put the family's chat_template.jinja into the "
            "folder, or pass prompt_format.",
            stacklevel=2,
        )


def check_counts(processor: Any, config: Any, source: str) -> None:
    """Refuse a processor that cannot tell how many tokens an image has.

    Raises:
        CorruptArtifactError: it names the option that says it.
    """
    found = {}
    for name, place in _IN_CONFIG.items():
        if getattr(processor, name, "") is None:
            with suppress(AttributeError):  # of another family, which does not count this way
                found[name] = attrgetter(place)(config)
    if found:
        raise CorruptArtifactError(
            f"{source}: its processor does not say its {' and '.join(found)}, as in old checkpoints, so the number of "
            f"tokens of an image is not known.\nNext: pass processor_options={found}."
        )
