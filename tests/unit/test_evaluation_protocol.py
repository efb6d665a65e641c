"""Protocols are data: complete, validated, and applied to the letter."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.evaluation.protocol import PromptSettings, get_protocol, list_protocols, shown_answer


def test_the_protocols_of_the_field_are_there() -> None:
    assert [p.name for p in list_protocols()] == ["aim", "demo", "lmms-eval", "openflamingo-v2", "qwen-vl", "vl-icl"]
    for protocol in list_protocols():
        assert protocol.source
        assert protocol.prompts
        assert get_protocol(protocol.name) == protocol


def test_openflamingo_asks_as_openflamingo_does() -> None:
    protocol = get_protocol("openflamingo-v2")
    assert (protocol.pool, protocol.seeds, protocol.shots) == (2048, 3, (0, 4, 8, 16, 32))
    assert protocol.zero_shot_texts == 2
    vqa = protocol.prompts["vqa"]
    assert vqa.template == "{image}Question:{text} Short answer:{answer}\n"
    assert vqa.generation == {"num_beams": 3, "length_penalty": 0.0}
    assert vqa.finish(" red, blue Question: and") == "red"
    assert vqa.finish("two dogs\nShort answer:") == "two dogs"
    assert protocol.prompts["caption"].finish(" A dog.Output: A cat.") == "A dog."
    assert protocol.prompts["meme"].normalize == "tokens"


@pytest.mark.parametrize("protocol", list_protocols(), ids=lambda p: p.name)
def test_every_template_is_a_prompt_format(protocol: object) -> None:
    for prompt in protocol.prompts.values():  # type: ignore[attr-defined]
        form = prompt.format(PromptFormat.chat())
        assert form.kind == ("chat" if prompt.template is None else "plain")
        assert isinstance(prompt.text.format(text="{braces}"), str)


@given(st.text(), st.lists(st.sampled_from(["Output", ", ", "a|b", r"\n"]), max_size=3))
def test_a_cut_answer_begins_what_was_generated(text: str, cut: list[str]) -> None:
    finished = PromptSettings(cut=tuple(cut)).finish(text)
    assert finished in text
    assert PromptSettings(cut=tuple(cut)).finish(finished) == finished


def test_which_answer_a_demonstration_shows() -> None:
    answers = ("b", "a", "a", "b", "c")
    assert shown_answer(answers, "first") == "b"
    assert shown_answer(answers, "majority") == "b"
    assert shown_answer(("b", "a", "a"), "majority") == "a"


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    content = get_protocol("aim").model_dump(mode="json") | {"name": "mine", "seeds": 7}
    (path := tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert get_protocol(path).seeds == 7
    path.write_text(yaml.safe_dump(content | {"sede": 3}))
    with pytest.raises(InputError, match="Did you mean 'seeds'"):
        get_protocol(path)
    content["prompts"]["vqa"]["template"] = "{image}{question}"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="not a prompt"):
        get_protocol(path)
    content["prompts"]["vqa"] |= {"template": None, "cut": ["("]}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="not a regular expression"):
        get_protocol(path)
