"""An answer may leave another at a near tie, in half precision alone, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aim_backends.llava import LlavaBackend
from aim_sdk import Backend, PromptFormat
from aim_sdk.testing.compare import require_close
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import QUERIES
from aim_sdk.testing.steering import head_changed
from aim_sdk.testing.ties import is_tie

ASKED: dict[str, Any] = {"prompt_format": PromptFormat.plain("{image} Q: {text}\nA: {answer}"), "max_new_tokens": 4}


def tied(backend: Backend, other: int, apart: float, **generation: Any) -> bool:
    """Whether another third token is a tie, whose logit is made ``apart`` less than the likeliest token's."""
    options = {**ASKED, **generation}
    (alone,) = backend.injector.generate(QUERIES[:1], [[]], **options)
    ids, found = alone.token_ids, []
    changed = replace(alone, token_ids=(*ids[:2], other, *ids[3:]))

    def near(logits: Tensor) -> None:
        logits[..., other] = logits[..., ids[2]] - apart

    @close("tokens", float32=0, bfloat16=0.03, float16=0.008)
    def check_ties(backend: Backend) -> None:
        with head_changed(backend, near):
            found.append(is_tie(backend, QUERIES[0], [], changed, alone, **options))

    check_ties(backend)
    return bool(found[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_only_a_near_tie_excuses_another_token(tiny: Callable[[str], Path], dtype: str) -> None:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu", dtype=dtype)
    assert tied(backend, 7, 0.0) == (dtype != "float32")
    assert not tied(backend, 7, 1.0)
    assert tied(backend, 7, 0.0625) == (dtype == "bfloat16")
    assert not tied(backend, 7, 3.0, num_beams=3)


def test_a_comparison_without_a_stated_precision_is_a_mistake(llava: Backend) -> None:
    with pytest.raises(LookupError):
        require_close(torch.zeros(1), torch.zeros(1), llava, "nothing")
