"""Answers over HTTP are the pipeline's: alone, streamed, and among many others."""

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.serving.settings import ServeSettings
from tests.servers import Live, conversation, data, events, given, serving, token_ids, turn

ANSWERS = ["a lynx", "a fox", "a bear", "an owl"]


@pytest.fixture(scope="module")
def load(tiny: Callable[[str], Path]) -> Callable[[str], AIMPipeline]:
    @lru_cache
    def loaded(name: str) -> AIMPipeline:
        if name == "pocket":
            return AIMPipeline.from_pretrained("pocket", device="cpu", selector="first")
        torch.manual_seed(0)
        model = tiny("llava-1.5")
        made = AIMPipeline.from_pretrained("llava", model=model, projector="residual", device="cpu", selector="first")
        torch.nn.init.normal_(made.projector.linear.weight)
        return made

    return loaded


@pytest.fixture(scope="module", params=["pocket", "llava"])
def pipe(request: pytest.FixtureRequest, load: Callable[[str], AIMPipeline]) -> AIMPipeline:
    return load(request.param)


@pytest.fixture(scope="module")
def live(pipe: AIMPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(pipe, ServeSettings(banks=tmp_path_factory.mktemp("banks"))) as made:
        yield made


def test_a_conversation_is_answered_as_in_process(pipe: AIMPipeline, live: Live, pictures: list[Image.Image]) -> None:
    messages = conversation(pictures, pictures[5])
    expected = pipe.chat(messages, max_tokens=5, logprobs=True)
    whole = live.chat(messages, max_tokens=5, logprobs=True).json()
    assert token_ids(whole) == list(expected.answers[0].token_ids or ())
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert whole["choices"][0]["finish_reason"] == expected.answers[0].finish_reason
    assert whole["usage"]["prompt_tokens"] == expected.prompt_tokens
    assert whole["usage"]["completion_tokens"] == expected.completion_tokens
    assert live.chat(messages, max_tokens=5).json()["aim"]["read"] == 0
    streamed = events(live.chat(messages, max_tokens=5, stream=True, stream_options={"include_usage": True}))
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in streamed[:-1]) == expected.text
    assert streamed[-1]["usage"] == whole["usage"]
    assert streamed[-2]["choices"][0]["finish_reason"] == expected.answers[0].finish_reason
    assert len({one["id"] for one in streamed}) == 1


def test_a_bank_is_named_by_the_model_or_by_a_field(pipe: AIMPipeline, live: Live, pictures: list[Image.Image]) -> None:
    shown = [Demonstration(data(one), "What is it?", word) for one, word in zip(pictures, ANSWERS, strict=False)]
    live.fill("cats", [given(one, word) for one, word in zip(pictures, ANSWERS, strict=False)])
    query = Query(data(pictures[6]), "And this?")
    for options, fields in (({}, {}), ({"shots": 2}, {"shots": 2}), ({"mode": "text-only"}, {"mode": "text-only"})):
        own = AIMPipeline(pipe.backend, pipe.projector, selector="first")
        own.bank.add(shown)
        (expected,) = own.generate([query], max_new_tokens=4, **options)  # type: ignore[arg-type]
        named = live.chat([turn(pictures[6], "And this?")], f"{live.service.model}:cats", max_tokens=4, **fields).json()
        field = live.chat([turn(pictures[6], "And this?")], bank="cats", max_tokens=4, **fields).json()
        assert named["choices"] == field["choices"]
        assert named["choices"][0]["message"]["content"] == expected.text
        assert len(named["aim"]["demonstrations"]) == len(expected.demonstrations)
        assert named["aim"]["read"] == 0
    refused = live.chat(conversation(pictures, pictures[6]), bank="cats")
    assert refused.status_code == 400
    assert "bring demonstrations of their own" in refused.json()["error"]["message"]
    for model, code in ((f"{live.service.model}:dogs", "bank_not_found"), ("gpt-4o", "model_not_found")):
        missing = live.chat([turn(pictures[6], "?")], model)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, code)
    assert live.client.get("/v1/models").json()["data"][0]["id"] == live.service.model


@pytest.mark.parametrize("name", ["llava", pytest.param("pocket", marks=pytest.mark.slow)])
def test_64_concurrent_mixed_requests_over_8_banks_are_answered_as_each_alone(
    load: Callable[[str], AIMPipeline], name: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    with serving(load(name), ServeSettings(banks=tmp_path)) as live:
        for number in range(8):
            shown = [given(pictures[(number + n) % 8], ANSWERS[(number + n) % 4]) for n in range(1 + number % 4)]
            live.fill(f"bank-{number}", shown)
        asked: list[dict[str, Any]] = []
        for number in range(64):
            query = turn(pictures[number % 7], f"And this, number {number}?")
            kinds: list[dict[str, Any]] = [
                {"messages": [query], "bank": f"bank-{number % 8}"},
                {"messages": [query], "bank": f"bank-{number % 8}", "shots": 1, "selector": "reading"},
                {"messages": [query], "mode": "zero-shot"},
                {"messages": conversation(pictures[number % 5 :], pictures[number % 7])},
                {"messages": [query], "bank": f"bank-{number % 8}", "mode": "text-only"},
                {"messages": [query], "bank": f"bank-{number % 8}", "stream": True},
                {"messages": [query], "bank": f"bank-{number % 8}", "temperature": 1.0, "seed": number},
                {"messages": [query], "bank": "bank-3", "max_tokens": 2},
            ]
            asked.append(
                {"model": live.service.model, "max_tokens": 3, "logprobs": number % 8 != 5} | kinds[number % 8]
            )
        for one in asked:
            if one.get("stream"):
                del one["logprobs"]
        alone = [said(live.client.post("/v1/chat/completions", json=one)) for one in asked]
        together = asyncio.run(ask_all(live.url, asked))
    assert together == alone
    assert len({text for text, _ in alone}) > 4


def said(response: httpx2.Response) -> tuple[str, list[int] | None]:
    assert response.status_code == 200, response.text
    if "event-stream" in response.headers["content-type"]:
        return "".join(one["choices"][0]["delta"].get("content", "") for one in events(response)), None
    answer = response.json()
    return answer["choices"][0]["message"]["content"], token_ids(answer)


async def ask_all(url: str, asked: list[dict[str, Any]]) -> list[tuple[str, list[int] | None]]:
    limits = httpx2.Limits(max_connections=64)
    async with httpx2.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        sent = [client.post("/v1/chat/completions", json=one) for one in asked]
        return [said(one) for one in await asyncio.gather(*sent)]


def test_an_answer_can_be_json_of_a_schema(live: Live, pictures: list[Image.Image]) -> None:
    cats = {"cat": {"enum": ["lynx", "fox"]}}
    schema = {"type": "object", "properties": cats, "required": ["cat"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "cat", "schema": schema, "strict": True}}
    answer = live.chat(conversation(pictures, pictures[5]), response_format=form, max_tokens=64).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["cat"] in ("lynx", "fox")


def test_several_drawn_answers_and_stop_strings(live: Live, pictures: list[Image.Image]) -> None:
    messages = conversation(pictures, pictures[5])
    drawn = live.chat(messages, n=3, temperature=2.0, seed=1, max_tokens=6).json()
    assert [one["index"] for one in drawn["choices"]] == [0, 1, 2]
    assert drawn == {**live.chat(messages, n=3, temperature=2.0, seed=1, max_tokens=6).json(), **ids(drawn)}
    text = live.chat(messages, max_tokens=6).json()["choices"][0]["message"]["content"]
    if len(text) > 2:
        stopped = live.chat(messages, max_tokens=6, stop=text[1]).json()["choices"][0]
        assert (stopped["message"]["content"], stopped["finish_reason"]) == (text[:1].strip(), "stop")


def ids(answer: dict[str, Any]) -> dict[str, Any]:
    """What is another one for every answer."""
    return {name: answer[name] for name in ("id", "created", "aim")}


def test_a_stream_that_cannot_be_answered_is_refused_with_a_status(live: Live, pictures: list[Image.Image]) -> None:
    broken = live.chat([turn(pictures[0], "word " * 9000)], stream=True)
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


def test_who_leaves_a_stream_stops_it(live: Live, pictures: list[Image.Image]) -> None:
    body = {"model": live.service.model, "messages": conversation(pictures, pictures[5]), "stream": True}
    with live.client.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 512}) as stream:
        next(stream.iter_bytes())
    assert live.chat(conversation(pictures, pictures[5]), max_tokens=2).status_code == 200
