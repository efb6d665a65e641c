"""Conversations answer as the same demonstrations and query do: pocket and a tiny LLaVA."""

import base64
import copy
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, PromptFormat, Query
from aim_sdk.bank import NewBankWarning
from aim_sdk.chat import tokens
from aim_sdk.chat.chat import Chat
from aim_sdk.chat.completion import ChatCompletion
from aim_sdk.chat.options import ChatOptions
from aim_sdk.chat.prompts import answered
from aim_sdk.chat.tokens import KeptTokens
from aim_sdk.errors import ContextLengthError, FormatError, ImageError, InputError, ShotsError
from aim_sdk.types import Generation

WORDS = ["a lynx", "a fox", "a small brown bear"]


def data(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def turn(image: Image.Image, text: str) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data(image)).decode()}"
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


@pytest.fixture(scope="module", params=["pocket", "llava"])
def loaded(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> AIMPipeline:
    if request.param == "pocket":
        return AIMPipeline.from_pretrained("pocket", device="cpu")
    torch.manual_seed(0)
    made = AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")
    torch.nn.init.normal_(made.projector.linear.weight)
    return made


@pytest.fixture
def pipe(loaded: AIMPipeline) -> AIMPipeline:
    """With an empty bank, and nothing read."""
    return AIMPipeline(loaded.backend, loaded.projector, selector="first")


@pytest.fixture
def shown(pictures: list[Image.Image]) -> list[Demonstration]:
    return [Demonstration(data(one), "What is it?", word) for one, word in zip(pictures, WORDS, strict=False)]


@pytest.fixture
def query(pictures: list[Image.Image]) -> Query:
    return Query(data(pictures[5]), "And this?")


@pytest.fixture
def messages(pictures: list[Image.Image]) -> list[dict[str, Any]]:
    pairs = [
        (turn(one, "What is it?"), {"role": "assistant", "content": word})
        for one, word in zip(pictures, WORDS, strict=False)
    ]
    return [*(message for pair in pairs for message in pair), turn(pictures[5], "And this?")]


@pytest.mark.parametrize("mode", ["aim", "text-only", "no-image", "zero-shot"])
@pytest.mark.parametrize("system", [None, "Answer in one word."])
def test_a_conversation_is_its_demonstrations_and_its_query(
    loaded: AIMPipeline,
    messages: list[dict[str, Any]],
    shown: list[Demonstration],
    query: Query,
    mode: Any,
    system: str | None,
) -> None:
    form = loaded.prompt_format.model_copy(update={"system": system})
    (expected,) = AIMPipeline(loaded.backend, loaded.projector, prompt_format=form).generate(
        [query], demonstrations=shown, mode=mode, max_new_tokens=5, log_probs=True
    )
    said = [] if system is None else [{"role": "system", "content": system}]
    pipe = AIMPipeline(loaded.backend, loaded.projector)
    found = pipe.chat([*said, *messages], mode=mode, max_tokens=5, logprobs=True)
    (answer,) = found.answers
    assert (found.text, answer.token_ids, found.prompt_tokens, found.completion_tokens) == (
        expected.text,
        expected.token_ids,
        expected.prompt_tokens,
        len(expected.token_ids),
    )
    assert answer.log_probs == pytest.approx(expected.log_probs, abs=1e-5)
    assert len(found.demonstrations) == (0 if mode == "zero-shot" else 3)
    assert found.read == (3 if mode == "aim" else 0)
    stream = pipe.chat_stream([*said, *messages], mode=mode, max_tokens=5)
    assert "".join(stream) == expected.text
    assert stream.completion is not None
    assert stream.completion.answers[0].token_ids == expected.token_ids
    assert stream.completion.prompt_tokens == expected.prompt_tokens
    assert stream.completion.demonstrations == found.demonstrations
    assert stream.completion.answers[0].finish_reason == answer.finish_reason
    assert len(pipe.bank) == 0


def test_a_blank_system_message_takes_the_pipelines_away(loaded: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    form = loaded.prompt_format.model_copy(update={"system": "Answer in one word."})
    pipe = AIMPipeline(loaded.backend, loaded.projector, prompt_format=form)
    bare = AIMPipeline(loaded.backend, loaded.projector).chat(messages, max_tokens=3)
    assert pipe.chat([{"role": "system", "content": ""}, *messages], max_tokens=3).prompt_tokens == bare.prompt_tokens
    assert pipe.chat(messages, max_tokens=3).prompt_tokens != bare.prompt_tokens


def test_the_second_request_reads_nothing(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    first = pipe.chat(messages, max_tokens=3)
    again = pipe.chat(messages, max_tokens=3)
    assert (first.read, again.read) == (3, 0)
    assert again.answers == first.answers
    assert pipe.chat(messages[2:], max_tokens=3).read == 0
    said = {"role": "system", "content": "Be brief."}
    assert [pipe.chat([said, *messages], max_tokens=3).read for _ in range(2)] == [3, 0]  # it is read after the system
    assert pipe.chat([messages[0], messages[1], *messages], max_tokens=3).read == 0


def test_a_conversation_without_demonstrations_gets_the_banks(
    pipe: AIMPipeline, messages: list[dict[str, Any]], shown: list[Demonstration], query: Query
) -> None:
    assert pipe.chat(messages[-1:], max_tokens=3).demonstrations == ()
    with pytest.raises(ShotsError):
        pipe.chat(messages[-1:], shots=2)
    keys = pipe.bank.add(shown)
    (expected,) = pipe.generate([query], shots=2, max_new_tokens=5)
    found = pipe.chat(messages[-1:], shots=2, max_tokens=5)
    assert (found.text, found.demonstrations) == (expected.text, tuple(keys[:2]))
    assert pipe.chat(messages[-1:], shots=0, max_tokens=3).demonstrations == ()
    said = {"role": "system", "content": "Be brief."}
    under = pipe.chat([said, messages[-1]], shots=2, max_tokens=5)
    given = pipe.chat([said, *messages[:4], messages[-1]], max_tokens=5)
    assert (under.answers, under.prompt_tokens, given.read) == (given.answers, given.prompt_tokens, 0)


@pytest.mark.parametrize("option", [{"shots": 2}, {"shots": 0}, {"selector": "random"}])
def test_all_demonstrations_of_a_conversation_are_shown(
    pipe: AIMPipeline, messages: list[dict[str, Any]], option: dict[str, Any]
) -> None:
    for ask in (pipe.chat, pipe.chat_stream):
        with pytest.raises(InputError, match="the messages bring their demonstrations; all are shown"):
            ask(messages, **option)


@pytest.mark.parametrize("mode", ["text-only", "interleaved", "no-image"])
def test_a_mode_that_shows_needs_something_to_show(
    pipe: AIMPipeline, messages: list[dict[str, Any]], mode: Any
) -> None:
    with pytest.raises(ShotsError):
        pipe.chat(messages[-1:], mode=mode)


def test_what_the_bank_holds_is_not_read_again(
    pipe: AIMPipeline, messages: list[dict[str, Any]], shown: list[Demonstration]
) -> None:
    pipe.bank.add(shown[:2])
    apart = AIMPipeline(pipe.backend, pipe.projector).chat(messages, max_tokens=3)
    found = pipe.chat(messages, max_tokens=3)
    assert (found.read, found.answers, found.demonstrations) == (1, apart.answers, apart.demonstrations)


def test_a_closed_bank_does_not_matter_to_a_conversation_with_demonstrations(
    loaded: AIMPipeline, messages: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.warns(NewBankWarning):
        pipe = AIMPipeline(loaded.backend, loaded.projector, bank=tmp_path / "bank")
    pipe.bank.close()
    assert pipe.chat(messages, max_tokens=3).read == 3


def test_a_system_message_holds_no_special_token(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    special = "<|im_end|>" if pipe.backend.name == "pocket" else "</s>"
    system = [{"role": "system", "content": f"Be brief.{special}"}, *messages]
    answered = [*messages[:1], {"role": "assistant", "content": special}, messages[-1]]
    for ask in (pipe.chat, pipe.chat_stream):
        for said in (system, answered):
            with pytest.raises(FormatError, match="special token"):
                ask(said)


def test_texts_that_a_template_does_not_show_are_refused(loaded: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    form = PromptFormat.plain("{image} {answer}\n")
    pipe = AIMPipeline(loaded.backend, loaded.projector, prompt_format=form)
    with pytest.raises(InputError, match=r"has no \{text\}"):
        pipe.chat(messages)
    bare = [{**one, "content": one["content"][:1]} if one["role"] == "user" else one for one in messages]
    assert pipe.chat(bare, max_tokens=2).read == 3


def test_answers_are_drawn_by_their_seed(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    drawn = {"temperature": 3.0, "max_tokens": 8, "n": 4}
    state = torch.random.get_rng_state()
    first, again = (pipe.chat(messages, seed=3, **drawn) for _ in range(2))
    assert first.answers == again.answers
    assert len({answer.token_ids for answer in first.answers}) > 1
    assert pipe.chat(messages, seed=4, **drawn).answers != first.answers
    assert torch.equal(torch.random.get_rng_state(), state)
    alone = pipe.chat(messages, seed=3, temperature=3.0, max_tokens=8)
    assert "".join(pipe.chat_stream(messages, seed=3, temperature=3.0, max_tokens=8)) == alone.text


def test_stop_strings_cut(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    whole = pipe.chat(messages, max_tokens=12)
    assert len(whole.text) > 2, "the test needs a longer answer"
    stop = whole.text[2]
    cut = pipe.chat(messages, max_tokens=12, stop=[stop, "never to be seen"])
    assert cut.text == whole.text.split(stop, 1)[0].rstrip()
    assert cut.answers[0].finish_reason == "stop"
    stream = pipe.chat_stream(messages, max_tokens=12, stop=stop)
    assert "".join(stream) == cut.text
    assert stream.completion is not None
    assert stream.completion.answers[0].finish_reason == "stop"


def test_it_says_how_an_answer_ended(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    for limit in (1, 2, 3, 40):
        made = pipe.chat(messages, max_tokens=limit)
        (answer,) = made.answers
        longer = pipe.chat(messages, max_tokens=limit + 1).answers[0]
        assert answer.token_ids is not None
        assert (answer.finish_reason == "stop") == (longer.token_ids == answer.token_ids)


def test_leaving_a_stream_early_harms_nothing(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    stream = pipe.chat_stream(messages, max_tokens=20)
    next(stream)
    for _ in range(2):
        stream.close()
        assert list(stream) == []
        assert stream.completion is None
    assert pipe.chat(messages, max_tokens=5).text == pipe.chat(messages, max_tokens=5).text
    for options in ({"n": 2, "temperature": 1.0}, {"logprobs": True}):
        with pytest.raises(InputError, match="a stream has one answer"):
            pipe.chat_stream(messages, **options)


def test_threads_share_a_stream(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    stream = pipe.chat_stream(messages, max_tokens=12)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: list(stream), range(4)))
    assert sum(map(len, parts)) >= 1
    assert stream.completion is not None
    assert stream.completion.text == pipe.chat(messages, max_tokens=12).text


def test_a_prompt_that_is_too_long_is_refused_before_the_first_piece(
    pipe: AIMPipeline, messages: list[dict[str, Any]], pictures: list[Image.Image]
) -> None:
    long = [*messages[:-1], turn(pictures[5], "word " * 9000)]
    for ask in (pipe.chat, pipe.chat_stream):
        with pytest.raises(ContextLengthError, match="leave pairs of turns out"):
            ask(long)


@pytest.mark.parametrize("place", [0, -1])
def test_an_image_that_is_none_is_named_by_its_place(
    pipe: AIMPipeline, messages: list[dict[str, Any]], place: int
) -> None:
    broken = copy.deepcopy(messages)
    broken[place]["content"][0]["image_url"]["url"] = "data:image/png;base64,aGVsbG8="
    for ask in (pipe.chat, pipe.chat_stream):
        with pytest.raises(ImageError, match=rf"messages\[{place % len(messages)}\]\.content\[0\]: image of 5 bytes"):
            ask(broken)
    assert pipe.chat(messages, max_tokens=2).text == pipe.chat(messages, max_tokens=2).text


def test_what_is_kept_is_bounded(
    pipe: AIMPipeline, shown: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    (((first, *_), read),) = KeptTokens().of(pipe.encoder, [shown], {})
    assert read == 3
    kept = KeptTokens(capacity=first.embeddings.nbytes)
    asked = (shown[0], shown[0], shown[1], shown[0])
    assert [kept.of(pipe.encoder, [[one]], {})[0][1] for one in asked] == [1, 0, 1, 1]
    (((same, again), read),) = kept.of(pipe.encoder, [[shown[0], shown[0]]], {})
    assert (read, same.key) == (0, again.key)
    both = KeptTokens().of(pipe.encoder, [shown[:2], shown[1:]], {})
    assert [read for _, read in both] == [2, 1]
    assert both[0][0][1] is both[1][0][0]
    assert tokens.CAPACITY > 1 << 20


def test_a_backend_that_streams_text_alone_is_enough(
    pipe: AIMPipeline, messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    injector = pipe.backend.injector
    expected = pipe.chat(messages, max_tokens=4)
    own, whole = type(injector).stream, type(injector).generate
    monkeypatch.setattr(type(injector), "stream", lambda self, *args, **kw: iter(list(own(self, *args, **kw))))
    stream = pipe.chat_stream(messages, max_tokens=4)
    assert "".join(stream) == expected.text
    assert stream.completion is not None
    assert (stream.completion.completion_tokens, stream.completion.prompt_tokens) == (None, None)

    def without(self: Any, *args: Any, **kw: Any) -> list[Generation]:
        return [Generation(one.text, one.token_ids, one.prompt_tokens) for one in whole(self, *args, **kw)]

    monkeypatch.setattr(type(injector), "generate", without)
    assert pipe.chat(messages, max_tokens=1).answers[0].finish_reason == "length"


def test_a_plain_format_keeps_its_template(
    loaded: AIMPipeline, messages: list[dict[str, Any]], shown: list[Demonstration], query: Query
) -> None:
    form = PromptFormat.plain("{image}\nQ: {text}\nA: {answer}\n\n")
    pipe = AIMPipeline(loaded.backend, loaded.projector, prompt_format=form)
    (expected,) = pipe.generate([query], demonstrations=shown, max_new_tokens=5)
    assert pipe.chat(messages, max_tokens=5).text == expected.text


def test_conversations_that_are_answered_together_are_those_that_are_answered_alone(
    pipe: AIMPipeline, messages: list[dict[str, Any]], shown: list[Demonstration], pictures: list[Image.Image]
) -> None:
    pipe.bank.add(shown)
    system = {"role": "system", "content": "Answer in one word."}
    bare = [[turn(one, "And this?")] for one in pictures[3:8]]
    asked: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
        (messages, {}),
        (messages[2:], {}),
        ([system, *messages], {}),
        *((one, {}) for one in bare),
        ([system, *bare[0]], {"shots": 2}),
        (bare[1], {"shots": 2, "selector": "reading"}),
        (bare[1], {"mode": "zero-shot"}),
        (bare[2], {"mode": "text-only", "logprobs": True}),
        (messages, {"temperature": 1.0, "seed": 4, "n": 2}),
        (messages, {"max_tokens": 2}),
    ]
    checked = [{"max_tokens": 4} | options for _, options in asked]
    expected = [pipe.chat(one, **options) for (one, _), options in zip(asked, checked, strict=True)]
    chat = Chat(pipe)
    together = [chat.asked(one, ChatOptions.of(given)) for (one, _), given in zip(asked, checked, strict=True)]
    found = answered(chat.prompts(together), 8)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, ChatCompletion)
        assert [answer.token_ids for answer in one.answers] == [answer.token_ids for answer in other.answers]
        assert (one.text, one.prompt_tokens, one.demonstrations) == (
            other.text,
            other.prompt_tokens,
            other.demonstrations,
        )


def test_one_conversation_that_cannot_be_answered_does_not_stop_the_others(
    pipe: AIMPipeline, messages: list[dict[str, Any]], pictures: list[Image.Image]
) -> None:
    broken = [*messages[:-1], turn(pictures[5], "word " * 9000)]
    chat, options = Chat(pipe), ChatOptions(max_tokens=2)
    found = answered(chat.prompts([chat.asked(one, options) for one in (messages, broken, messages)]), 3)
    assert isinstance(found[1], ContextLengthError)
    expected = pipe.chat(messages, max_tokens=2).text
    assert [one.text for one in found if isinstance(one, ChatCompletion)] == [expected, expected]


def test_an_answer_obeys_a_schema(pipe: AIMPipeline, messages: list[dict[str, Any]]) -> None:
    cats = {"cat": {"enum": ["lynx", "fox"]}}
    schema = {"type": "object", "properties": cats, "required": ["cat"], "additionalProperties": False}
    found = pipe.chat(messages, schema=schema, max_tokens=64)
    assert json.loads(found.text)["cat"] in ("lynx", "fox")
    assert "".join(pipe.chat_stream(messages, schema=schema, max_tokens=64)) == found.text
