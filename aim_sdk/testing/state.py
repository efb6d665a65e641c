"""What a call leaves in the process, and what it keeps of images: nothing that a later call can notice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aim_sdk.backend.interfaces import Backend
from aim_sdk.testing.compare import flat, require, require_close
from aim_sdk.testing.kit import check
from aim_sdk.testing.precision import close
from aim_sdk.testing.process import process_kept, process_state, seed_the_process
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES, picture
from aim_sdk.types import FusedTokens, Query

_BEFORE, _AFTER = picture(48, 40, 15), picture(48, 40, 165)
"""Two pictures of one size: they take as many tokens."""


@check
def check_leaves_the_process_alone(backend: Backend) -> None:
    """No call changes torch's gradient mode, default dtype or threads, or a random generator of the process.

    Catches `torch.set_grad_enabled(False)` instead of `torch.no_grad()`, and seeds that are set for the whole process:
    a training would resume without gradients, or draw the same episodes after each answer.
    """
    for call, run in _calls(backend).items():
        with process_kept(), torch.enable_grad():
            seed_the_process()
            before = process_state()
            run()
            changed = [name for name, value in process_state().items() if value != before[name]]
            require(not changed, f"`{call}` has changed, for the whole process: {', '.join(changed)}")


@check
@close("log-probabilities, states", bfloat16=0.004, float16=0.0005)
def check_images_are_seen_again(backend: Backend) -> None:
    """A file that was overwritten, and a picture that was painted over, are seen as they are now.

    Catches images that are kept by their path or by Python's `id`: an answer would be about another picture.
    """
    form, first, query = backend.default_format, DEMONSTRATIONS[0], QUERIES[0]

    def read(image: Any) -> torch.Tensor:
        (reading,) = backend.reader.read([replace(first, image=image)], prompt_format=form)
        return reading.hidden

    def score(image: Any) -> torch.Tensor:
        return flat(backend.injector.score(Query(image, query.text), [], CHOICES, prompt_format=form))

    with tempfile.TemporaryDirectory() as folder:
        for call, see in (("read", read), ("score", score)):
            expected = see(_AFTER)
            held, path = _BEFORE.copy(), Path(folder) / f"{call}.png"
            _BEFORE.save(path)
            see(held), see(path)
            held.paste(_AFTER)
            _AFTER.save(path)
            for kind, given in (
                ("an image file that was overwritten", path),
                ("a picture that was painted over", held),
            ):
                require_close(see(given), expected, backend, f"`{call}` of {kind}, and of a new one like it")


def _calls(backend: Backend) -> dict[str, Callable[[], object]]:
    """Each kind of call once, by its name."""
    form, reader, injector = backend.default_format, backend.reader, backend.injector
    shots = DEMONSTRATIONS[:1]
    options: dict[str, Any] = {"prompt_format": form, "max_new_tokens": 2}

    def fused() -> list[FusedTokens]:
        return reader.text_only(shots, prompt_format=form)

    return {
        "reader.text_only": fused,
        "reader.read": lambda: reader.read(shots, prompt_format=form),
        "reader.prepare": lambda: reader.run(reader.prepare(shots, prompt_format=form)),
        "injector.generate": lambda: injector.generate(QUERIES[:1], [fused()], **options),
        "injector.stream": lambda: list(injector.stream(QUERIES[0], fused(), **options)),
        "injector.score": lambda: injector.score(QUERIES[0], fused(), CHOICES[:1], prompt_format=form),
        "injector.score_batch": lambda: injector.score_batch(QUERIES[:1], [fused()], CHOICES[:1], prompt_format=form),
        "injector.score_each": lambda: injector.score_each(QUERIES[:1], [fused()], [CHOICES[:1]], prompt_format=form),
    }
