"""A bank of another backbone is refused in words that tell the two apart."""

import pytest

from aim_sdk.bank.binding import check_binding
from aim_sdk.config import Binding, Fingerprint, PromptFormat
from aim_sdk.errors import FingerprintError


def _binding(model: str, weights: str) -> Binding:
    made = Fingerprint(
        backend="frog",
        model=model,
        weights_hash=weights,
        embedding_hash="e",
        tokenizer_hash="t",
        hidden_size=8,
        embedding_size=8,
        embedding_rms=1.0,
    )
    return Binding(fingerprint=made, projector_kind="carrier", projector_hash="p", prompt_format=PromptFormat.chat())


def test_two_of_one_name_are_told_apart_in_the_first_line() -> None:
    with pytest.raises(FingerprintError) as caught:
        check_binding(_binding("frog", "one"), _binding("frog", "two"), "the bank", "this pipeline")
    first, second = str(caught.value).splitlines()
    assert first.endswith(
        "this pipeline has another 'frog' of backend 'frog' and a 'carrier' projector: "
        "the same name, but another weights_hash."
    )
    assert second == "  weights_hash: one in the bank, two here"


def test_two_of_different_names_are_named() -> None:
    with pytest.raises(FingerprintError, match=r"made with 'frog' of .*, but this pipeline has 'toad' of"):
        check_binding(_binding("frog", "one"), _binding("toad", "two"), "the bank", "this pipeline")
