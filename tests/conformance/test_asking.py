"""What a processor writes for an image is learned by asking it, and refused if it cannot be learned."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from aim_backends.hf.asking import Written, placeholder_of, written
from aim_backends.llava import LlavaBackend
from aim_sdk.errors import CorruptArtifactError, FormatError, UnsupportedModelError
from aim_sdk.testing.tiny import build

COUNTING = """{{ messages | length }}:{% for message in messages %}{% for part in message['content'] %}\
{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}|{% endfor %}"""
"""A template whose beginning depends on what follows."""
LARGE = 1000
"""From this width or height on the pictures here are large."""


class Processor:
    """Writes an image as ``small`` or ``large`` say; ``per_token`` is one of its outputs for each token."""

    def __init__(
        self, tokenizer: Any, small: str, large: str, start: str = "", end: str = "", per_token: int | None = None
    ) -> None:
        self.tokenizer, self._small, self._large, self._start, self._end = tokenizer, small, large, start, end
        self._per_token = per_token

    def __call__(self, text: str, image: Image.Image) -> dict[str, torch.Tensor]:
        shown = self._large if max(image.size) >= LARGE else self._small
        expanded = self._start + text.replace("<image>", shown) + self._end
        ids = torch.tensor([self.tokenizer(expanded, add_special_tokens=False)["input_ids"]])
        outputs = {"input_ids": ids, "pixel_values": torch.zeros(1, 3)}
        return outputs if self._per_token is None else outputs | {"kinds": torch.full_like(ids, self._per_token)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build("minicpmv4.6", tmp_path_factory.mktemp("asking") / "model")
    return AutoProcessor.from_pretrained(folder).tokenizer


def ask(tokenizer: Any, *words: str, **options: Any) -> Written:
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return written(tokenizer, [pad], "<image>", Processor(tokenizer, *words, **options))


def test_tokens_of_tiles_are_learned_from_large_pictures(tokenizer: Any) -> None:
    found = ask(tokenizer, "<|image_pad|>", "<slice><|image_pad|></slice>")
    assert found.expansion == "<|image_pad|><|image_pad|>"
    names = tokenizer.convert_ids_to_tokens(sorted(found.ids))
    assert set(names) == {"<|image_pad|>", "<slice>", "</slice>"}


def test_words_and_line_ends_among_the_added_tokens_stay_text(tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["\n", "tile"])
    found = ask(other, "<|image_pad|>", "tile\n<|image_pad|>")
    assert other.convert_ids_to_tokens(sorted(found.ids)) == ["<|image_pad|>"]


def test_text_beside_an_image_is_text_if_it_never_changes(tokenizer: Any) -> None:
    same = ask(tokenizer, "one:<|image_pad|>\n", "one:<|image_pad|><|image_pad|>\n")
    assert same.expansion == "one:<|image_pad|><|image_pad|>\n"
    other = ask(tokenizer, "one:<|image_pad|>\n", "two:<|image_pad|>")
    assert other.expansion == "<|image_pad|><|image_pad|>"


def test_what_stands_before_every_prompt_is_no_part_of_the_image(tokenizer: Any) -> None:
    found = ask(tokenizer, "<|image_pad|>", "<|image_pad|>", start="<|im_start|>")
    assert (found.start, found.expansion) == ("<|im_start|>", "<|image_pad|><|image_pad|>")
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") not in found.ids


def test_what_stands_after_every_prompt_is_no_part_of_the_image(tokenizer: Any) -> None:
    found = ask(tokenizer, "<|image_pad|>", "<|image_pad|>", end="<|im_end|>")
    assert (found.end, found.expansion) == ("<|im_end|>", "<|image_pad|><|image_pad|>")


def test_outputs_for_each_token_must_be_0_for_text(tokenizer: Any) -> None:
    assert ask(tokenizer, "<|image_pad|>", "<|image_pad|>", per_token=0).start == ""
    with pytest.raises(UnsupportedModelError, match="'kinds' for each token, and it is not 0 for text"):
        ask(tokenizer, "<|image_pad|>", "<|image_pad|>", per_token=1)


def test_a_size_that_is_refused_is_left_out(tokenizer: Any) -> None:
    processor = Processor(tokenizer, "<|image_pad|>", "<slice><|image_pad|></slice>")

    def no_banner(text: str, image: Image.Image) -> Any:
        if image.width > image.height * 2:
            raise ValueError("the aspect ratio is too large")
        return processor(text, image)

    assert len(written(tokenizer, [], "<image>", no_banner).ids) == 3

    def nothing(text: str, image: Image.Image) -> Any:
        raise TypeError("patch_size is None")

    with pytest.raises(CorruptArtifactError, match="cannot write an image: patch_size is None"):
        written(tokenizer, [], "<image>", nothing)


def test_a_processor_without_image_tokens_is_refused(tokenizer: Any) -> None:
    with pytest.raises(FormatError, match="writes no image token for '<image>'"):
        ask(tokenizer, "a picture", "a picture")


def test_the_placeholder_is_what_the_processor_takes() -> None:
    def refuse(text: str, image: Image.Image) -> Any:
        raise ValueError("no frame")

    def strict(text: str, image: Image.Image) -> Any:
        if "<b><i><e>" not in text:
            refuse(text, image)
        return expanding(text, image)

    def expanding(text: str, image: Image.Image) -> Any:
        return {"input_ids": [words(text.replace("<i>", "<i>" * 4))["input_ids"]]}

    def other(text: str, image: Image.Image) -> Any:
        return {"input_ids": [words(text.replace("<b><i><e>", "<b>" + "<i>" * 4 + "<e>"))["input_ids"]]}

    def words(text: str, **_: Any) -> Any:
        return {"input_ids": text.split(">")[:-1]}

    def render(messages: Any, tokenize: bool) -> str:
        kinds = [part["type"] for part in messages[0]["content"]]
        return f"<s>{'<b><i><e>' if 'image' in kinds else ''}x</s>"

    framed = SimpleNamespace(tokenizer=words, image_token="<i>", chat_template="...", apply_chat_template=render)
    assert placeholder_of(framed, strict) == "<b><i><e>"
    assert placeholder_of(framed, expanding) == "<i>"
    assert placeholder_of(framed, other) == "<b><i><e>"
    assert placeholder_of(framed, lambda text, image: {"input_ids": [words(text)["input_ids"]]}) == "<i>"
    nameless = SimpleNamespace(tokenizer=words, chat_template="...", apply_chat_template=render)
    assert placeholder_of(nameless, strict) == "<b><i><e>"
    with pytest.raises(UnsupportedModelError, match=r"names no image token.*\(no frame\)") as caught:
        placeholder_of(nameless, refuse)
    assert "Next: " in str(caught.value)


def test_a_template_that_cannot_be_cut_gives_the_plain_format(tiny: Callable[[str], Path], tmp_path: Path) -> None:

    folder = shutil.copytree(tiny("llava-1.5"), tmp_path / "model")
    (folder / "chat_template.jinja").write_text(COUNTING)
    backend = LlavaBackend.from_pretrained(str(folder), device="cpu")
    with pytest.warns(UserWarning, match="cannot be cut .*\n.*is therefore the plain one"):
        assert backend.default_format.kind == "plain"
    assert backend.default_format.kind == "plain"
