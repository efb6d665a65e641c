from typing import Any

import pytest
from PIL import Image

from aim_sdk import Demonstration, Fingerprint, PromptFormat, Query
from aim_sdk.errors import FormatError, ImageError, InputError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Demonstration("a.jpg", "What?", " \n"), "answer` is blank"),
        (lambda: Demonstration("a.jpg", None, "x"), "text` is NoneType"),  # type: ignore[arg-type]
        (lambda: Demonstration("a.jpg", "What?", 3), "answer` is int"),  # type: ignore[arg-type]
        (lambda: Query("a.jpg", b"What?"), "text` is bytes"),  # type: ignore[arg-type]
        (lambda: Query("a.jpg", "What \ud83d?"), "half of a character"),
        (lambda: Demonstration("a.jpg", "", "x", {"n": float("nan")}), "metadata 'n' is nan"),
        (lambda: Demonstration("a.jpg", "", "x", {"n": "\ud83d"}), "half of a character"),
        (lambda: Demonstration("a.jpg", "", "x", {"n": [1]}), "metadata 'n' is list"),  # type: ignore[dict-item]
    ],
)
def test_bad_fields_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_an_image_is_a_path_bytes_or_a_pil_image() -> None:
    for image in ("a.jpg", b"data", Image.new("RGB", (1, 1))):
        assert Demonstration(image, "", "x").image is image
    with pytest.raises(ImageError, match="is int"):
        Query(3)  # type: ignore[arg-type]


def test_values_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Query("a.jpg").text = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "template",
    [
        "{text} {answer}",
        "{image} {text}",
        "{image}{image}{answer}",
        "{answer}{image}",
        "{image}{question}{answer}",
        "{",
    ],
)
def test_incomplete_templates_are_refused(template: str) -> None:
    with pytest.raises(FormatError, match="prompt template"):
        PromptFormat.plain(template)


def test_a_template_splits_at_the_answer() -> None:
    form = PromptFormat.plain("{image}Q: {text} A: {answer}\n")
    assert form.pieces() == ("{image}Q: {text} A:", " ", "\n")
    assert form.stop == "\n"
    assert PromptFormat.plain("{image}{answer}").stop is None
    braces = PromptFormat.plain("{image}{{answer}} {text}: {{{answer}}}")
    query, lead, suffix = braces.pieces()
    assert (query.format(image="I", text="T"), lead, suffix) == ("I{answer} T: {", "", "}")
    assert PromptFormat.chat().stop is None


FINGERPRINT = Fingerprint(
    backend="b",
    model="m",
    weights_hash="w",
    embedding_hash="e",
    tokenizer_hash="t",
    hidden_size=4,
    embedding_size=4,
    embedding_rms=0.1,
)


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"model": "other name", "libraries": {"torch": "1"}}, set()),
        ({"weights_hash": None}, set()),
        ({"embedding_rms": 0.1001}, set()),
        ({"weights_hash": "x"}, {"weights_hash"}),
        ({"embedding_rms": 3.2}, {"embedding_rms"}),
        ({"tokenizer_hash": "x", "hidden_size": 8}, {"tokenizer_hash", "hidden_size"}),
    ],
)
def test_what_makes_two_backbones_differ(change: dict[str, Any], differs: set[str]) -> None:
    assert set(FINGERPRINT.differences(FINGERPRINT.model_copy(update=change))) == differs
