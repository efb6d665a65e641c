"""NaN and infinity are refused where they arise, with the dtype named, and never kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import AIMError, InputError, NonFiniteError
from aim_sdk.support.finite import are_finite

NEXT = r"computed in float16\.\nNext: .*dtype='bfloat16'"


def lm_weight(pipe: AIMPipeline) -> torch.Tensor:
    return next(value for name, value in pipe.backend.model.named_parameters() if "down_proj" in name)


@pytest.fixture
def overflowing(tiny: Callable[[str], Path]) -> AIMPipeline:
    """A backbone whose products exceed what float16 holds."""
    pipe = AIMPipeline.from_pretrained(
        "llava", model=tiny("llava-1.5"), projector="carrier", device="cpu", dtype="float16"
    )
    _ = pipe.encoder.binding
    lm_weight(pipe).fill_(60_000)
    return pipe


def test_readings_are_refused_before_they_are_kept(overflowing: AIMPipeline, pictures: list[Image.Image]) -> None:
    items = [Demonstration(picture, "What?", "a cat") for picture in pictures[:3]]
    with pytest.raises(NonFiniteError, match=f"reading of a demonstration, {NEXT}"):
        overflowing.bank.add(items)
    heard: list[InputError] = []
    overflowing.bank.add(items, on_error=lambda _, error: heard.append(error))
    assert [type(error) for error in heard] == [NonFiniteError] * 3
    assert len(overflowing.bank) == 0
    with pytest.raises(NonFiniteError, match="reading of a demonstration"):
        overflowing.generate([Query(pictures[0], "What?")], demonstrations=items)


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}, {"log_probs": True}])
def test_logits_are_refused(overflowing: AIMPipeline, pictures: list[Image.Image], options: dict[str, Any]) -> None:
    queries = [Query(picture, "What?") for picture in pictures[:2]]
    with pytest.raises(NonFiniteError, match=f"logits, {NEXT}"):
        overflowing.generate(queries, mode="zero-shot", **options)


def test_streams_and_scores_are_refused(overflowing: AIMPipeline, pictures: list[Image.Image]) -> None:
    with pytest.raises(NonFiniteError, match=f"logits, {NEXT}"):
        list(overflowing.stream(pictures[0], "What?", mode="zero-shot"))
    with pytest.raises(NonFiniteError, match=f"log-probabilities, {NEXT}"):
        overflowing.score(Query(pictures[0], "What?"), ["yes", "no, it is not"], mode="zero-shot")


@pytest.mark.parametrize("sampled", [False, True])
def test_logits_that_are_lost_later_name_their_query(
    tiny: Callable[[str], Path], pictures: list[Image.Image], sampled: bool
) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")
    steps = 0

    def lose(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps < 3:
            return output
        lost = output.clone()
        lost[1, :, 5] = math.nan
        return lost

    handle = pipe.backend.model.get_output_embeddings().register_forward_hook(lose)
    queries = [Query(picture, "What?") for picture in pictures[:3]]
    with pytest.raises(NonFiniteError, match="logits, computed in float32") as caught:
        pipe.generate(queries, mode="zero-shot", max_new_tokens=6, min_new_tokens=6, do_sample=sampled)
    assert caught.value.query == 1
    handle.remove()
    assert len(pipe.generate(queries, mode="zero-shot")) == 3


def test_a_projector_that_overflows_is_named(tiny: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="linear", device="cpu")
    torch.nn.init.constant_(next(pipe.projector.parameters()), math.inf)
    with pytest.raises(NonFiniteError, match="the projector, computed in float32"):
        pipe.bank.add([Demonstration(pictures[0], "What?", "a cat")])
    assert len(pipe.bank) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_backbone_of_nan_has_no_fingerprint_and_makes_no_bank(
    tiny: Callable[[str], Path], tmp_path: Path, value: float
) -> None:
    pipe = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", device="cpu")
    backend, projector = pipe.backend, pipe.projector
    backend.model.get_input_embeddings().weight.data.fill_(value)
    del backend.__dict__["fingerprint"]
    projector.fingerprint = None
    with pytest.raises(NonFiniteError, match="weights"):
        AIMPipeline(backend, projector, bank=tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("made", ["float32", "bfloat16", "float16"])
def test_artifacts_fit_whichever_dtype_the_backbone_runs_in(
    tiny: Callable[[str], Path], tmp_path: Path, pictures: list[Image.Image], made: str
) -> None:
    """float16 rounds otherwise than bfloat16: fingerprints are of the checkpoint's own values."""

    def load(dtype: str, projector: str | Path) -> AIMPipeline:
        return AIMPipeline.from_pretrained(
            "llava", model=tiny("llava-1.5"), projector=projector, bank=tmp_path / "bank", device="cpu", dtype=dtype
        )

    item = Demonstration(pictures[0], "What?", "a cat")
    first = load(made, "carrier")
    (key,) = first.bank.add([item])
    first.projector.save_pretrained(tmp_path / "projector")
    first.bank.close()
    for dtype in ("float32", "bfloat16", "float16"):
        again = load(dtype, tmp_path / "projector")
        assert again.bank.add([item]) == [key], "it is not read again"
        assert again(pictures[1], "What?") is not None
        again.bank.close()


def test_torch_dtype_is_dtype(tiny: Callable[[str], Path]) -> None:
    def load(**options: Any) -> AIMPipeline:
        return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="carrier", **options)

    for given in ("bfloat16", torch.bfloat16):
        assert load(torch_dtype=given, device="cpu").backend.model.dtype == torch.bfloat16
    with pytest.raises(InputError, match="leave torch_dtype out"):
        load(torch_dtype="bfloat16", dtype="float32")
    with pytest.raises(AIMError, match="bfloat15"):
        load(torch_dtype="bfloat15")


def test_groups_of_tensors_are_judged_each() -> None:
    good, bad = torch.zeros(2), torch.tensor([0.0, math.nan])
    assert are_finite([(good,), (good, bad), (bad, good), (good, good)]) == [True, False, False, True]
    assert are_finite([]) == []
