"""Chat messages: what is a demonstration, what is asked, and that nothing is left out silently."""

import base64
import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.chat.few_shot import few_shot_of
from aim_sdk.chat.messages import Messages, turns_of
from aim_sdk.chat.options import ChatOptions
from aim_sdk.errors import AIMError, ImageError, InputError


def png(shade: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 10, 20)).save(file, "PNG")
    return file.getvalue()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def shown(shade: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(png(shade)), "detail": "auto"}}


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ASKED = user(said("what?"), shown(9))


def test_pairs_are_demonstrations_and_the_last_turn_asks() -> None:
    chat = few_shot_of(
        turns_of(
            [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [said("One word.")]},
                user(said("what?"), shown(1)),
                assistant("a cat"),
                user(shown(2)),
                {"role": "user", "content": "and this?", "name": "example_user"},
                {"role": "assistant", "content": [said("a"), said("dog")], "refusal": None, "tool_calls": []},
                user(said("what?"), {"type": "image_url", "image_url": uri(png(3))}, said("!")),
            ]
        )
    )
    assert chat.system == "Be brief.\nOne word."
    assert [(one.image, one.text, one.answer) for one in chat.demonstrations] == [
        (png(1), "what?", "a cat"),
        (png(2), "and this?", "a\ndog"),
    ]
    assert (chat.query.image, chat.query.text) == (png(3), "what?\n!")


def test_pictures_of_this_process_are_parts_of_their_own(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), png(), Image.new("RGB", (2, 2))):
        chat = few_shot_of(turns_of([user({"type": "image", "image": image})]))
        assert chat.query.image is image
        assert chat.query.text == ""
        assert chat.system is None


def test_what_a_client_answered_can_be_sent_again() -> None:
    class Answer(BaseModel):
        role: str = "assistant"
        content: str = "a cat"
        refusal: str | None = None
        tool_calls: list[Any] | None = None

    chat = few_shot_of(turns_of(iter([user(shown(1)), Answer(), ASKED])))
    assert [one.answer for one in chat.demonstrations] == ["a cat"]


def test_a_history_may_be_ignored() -> None:
    chat = few_shot_of(turns_of([{"role": "user", "content": "hello"}, assistant("hello!"), ASKED], "ignored"))
    assert (chat.demonstrations, chat.query.image) == ((), png(9))
    odd = [
        {"role": "system", "content": "Be brief."},
        user({"type": "image_url", "image_url": "https://example.org/a.png"}),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": 7},
        "nothing",
        {"role": "user", "content": "what"},
        ASKED,
    ]
    chat = few_shot_of(turns_of(odd, "ignored"))  # type: ignore[arg-type]
    assert (chat.system, chat.demonstrations, chat.query.text) == ("Be brief.", (), "what\nwhat?")
    with pytest.raises(InputError, match=r"messages\[1\]\.content\[0\]"):
        turns_of(odd)  # type: ignore[arg-type]
    for last in (assistant("a"), "nothing"):
        with pytest.raises(InputError):
            few_shot_of(turns_of([ASKED, last], "ignored"))  # type: ignore[list-item]


def test_a_blank_system_message_is_one() -> None:
    assert few_shot_of(turns_of([{"role": "system", "content": ""}, ASKED])).system == ""
    assert few_shot_of(turns_of([ASKED])).system is None


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "no turn of the user"),
        (ASKED, "dict; expected a list of messages"),
        ("hello", "str; expected a list of messages"),
        (7, "int; expected a list of messages"),
        ([7], r"messages\[0\]: int; expected a message with a role"),
        ([ASKED, assistant("a")], "the last turn is the assistant's"),
        ([{"role": "user", "content": "what?"}], r"messages\[0\]: the last turn has no image; a query has one"),
        ([user(shown(1)), assistant("a"), user(said("and its colour?"))], "repeat that image in the last turn"),
        ([user(said("hi")), assistant("hello"), ASKED], r"messages\[0\]: a turn without an image .* history='ignored'"),
        ([assistant("hello"), ASKED], r"messages\[0\]: an answer to nothing"),
        ([user(shown(1), shown(2))], "2 images in one turn"),
        ([user(shown(1), shown(2)), assistant("a"), ASKED], r"messages\[0\]: 2 images in one turn"),
        ([user(shown(1)), assistant(" "), ASKED], r"messages\[1\]: a blank answer"),
        ([user(shown(1)), {"role": "assistant", "content": None}, ASKED], r"messages\[1\]\.content"),
        ([ASKED, {"role": "system", "content": "late"}, ASKED], r"messages\[1\]: a system message after"),
        ([{"role": "system", "content": [shown(1)]}, ASKED], r"messages\[0\]: an image in a turn of the system"),
        ([user(shown(1)), {"role": "assistant", "content": [shown(1)]}, ASKED], "an image in a turn of the assistant"),
        ([{"role": "tool", "content": "x"}, ASKED], r"messages\[0\]\.role: .*'system', 'developer', 'user' or"),
        ([{"role": "user", "content": "x", "images": ["a.png"]}], r"messages\[0\]\.images: .* It would be left out"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, ASKED], r"messages\[0\]\.tool_calls"),
        ([user({"type": "input_audio", "input_audio": {}})], r"content\[0\].* type text, image_url or image"),
        ([user({"text": "no type"})], r"content\[0\].* type text, image_url or image"),
        ([user({"type": "text", "text": "a", "image": "b.png"})], r"content\[0\]\.image: .* left out"),
        ([user({"type": "image", "image": 7})], r"content\[0\]\.image: int; expected a path"),
        ([user({"type": "image_url", "image_url": {"url": 7}})], r"messages\[0\]\.content\[0\]\.image_url"),
        ([user({"type": "image_url", "image_url": None})], r"image_url: Input should be a valid dictionary \(got None"),
        ([{"role": "user", "content": {"a": 1}}], r"content: dict; expected a text, or a list of parts\.$"),
        ([{"role": "user"}], r"messages\[0\]\.content"),
        ([user(said("\ud800"), shown(1))], r"messages\[0\]: `content` holds '\\ud800' at 0, half of a character"),
        ([{"role": "system", "content": "\ud800"}, ASKED], r"messages\[0\]: `content` holds"),
    ],
)
def test_what_is_no_such_conversation_is_refused(messages: Messages, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        few_shot_of(turns_of(messages))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a.png", "an address, and nothing is fetched"),
        ("/etc/passwd", "expected a data URI"),
        ("file:///etc/passwd", "expected a data URI"),
        ("data:text/plain;base64,aGVsbG8=", "expected a data URI"),
        ("data:image/png,%89PNG", "expected a data URI"),
        ("data:image/png;base64", "expected a data URI"),
        ("data:image/png;base64,@@@@", "not base64"),
    ],
)
def test_a_bad_image_is_named_by_its_place(url: str, expected: str) -> None:
    with pytest.raises(ImageError, match=expected) as caught:
        turns_of([user(said("what?"), {"type": "image_url", "image_url": {"url": url}})])
    assert "messages[0].content[1]" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "image", "url"]) | st.text(max_size=5),
            inner
            | st.sampled_from(
                ["user", "assistant", "system", "text", "image_url", "image", uri(png()), "data:image/png,"]
            ),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4) | JSON)
def test_any_json_is_a_conversation_or_a_clear_error(messages: Any) -> None:
    with contextlib.suppress(AIMError):
        few_shot_of(turns_of(messages))


@given(st.text("ab \n", max_size=20), st.lists(st.text("ab\n", min_size=1, max_size=3), max_size=3), st.data())
def test_a_stream_ends_where_the_answer_is_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = iter([text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)])
    whole = text
    for stop in stops:
        pieces, whole = stream_answer(pieces, stop), clean_answer(whole, stop)
    assert "".join(pieces) == whole


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_token": 3}, "no chat option named 'max_token'. Did you mean 'max_tokens'"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"stream": True}, "pipe.chat_stream"),
        ({"max_completion_tokens": 3}, "it is called max_tokens here"),
        ({"model": "x"}, "the pipeline is the model"),
        ({"stop": 5}, "expected a string, or a list of them"),
        ({"stop": {"a"}}, "expected a string, or a list of them"),
        ({"selector": 5}, "instance of Selector"),
        ({"selector": "nearst"}, "no selector named 'nearst'"),
        ({"temperature": float("nan")}, "finite number"),
        ({"temperature": 1e-320}, "expected 0 .greedy., or at least 0.001"),
        ({"temperature": 0, "top_p": 0.5}, "greedy answers are not drawn"),
        ({"mode": "zero-shot", "shots": 2}, "'zero-shot' shows none"),
        ({"mode": "zero-shot", "selector": "random"}, "none is chosen"),
        ({"shots": 0, "selector": "random"}, "none is chosen"),
        ({"n": 2}, "greedy answers are all the same"),
        ({"n": 2, "temperature": 0}, "greedy answers are all the same"),
        ({"seed": 1}, "greedy answers are not drawn"),
        ({"stop": ""}, "an empty string ends every answer"),
        ({"stop": list("abcde")}, "stop"),
        ({"mode": "nearest"}, "the demonstrations vote"),
        ({"mode": "aims"}, "mode"),
        ({"temperature": -1}, "temperature"),
        ({"history": "all"}, "history"),
    ],
)
def test_options_are_checked(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        ChatOptions.of(options)


def test_options_become_the_backends() -> None:
    assert ChatOptions().generation == ChatOptions(temperature=0).generation == {}
    assert ChatOptions(temperature=0.5, seed=1).generation == {"do_sample": True, "temperature": 0.5, "seed": 1}
    assert ChatOptions(top_p=0.5).generation == {"do_sample": True, "top_p": 0.5}
    assert ChatOptions.of({"stop": "a"}).stop == ("a",)
    assert (
        ChatOptions.of({"schema": None, **dict.fromkeys(set(ChatOptions.model_fields) - {"schema_"})}) == ChatOptions()
    )
    assert ChatOptions.of({"max_tokens": np.int64(3), "temperature": np.float32(1)}).max_tokens == 3
