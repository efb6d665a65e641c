"""Clients that people have, unchanged, with pocket's answers: OpenAI's, LangChain's, DSPy's, and curl."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.serving.keys import Keys, Rights, digest_of
from aim_sdk.serving.settings import ServeSettings
from tests.servers import Live, conversation, data, given, serving, turn, uri
from tests.unit.test_project_files import ROOT

KEY = "a key of the clients' tests"
WORDS = ["a lynx", "a fox", "a small brown bear"]


@pytest.fixture(scope="module")
def pipe() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu", selector="first")


@pytest.fixture(scope="module")
def live(pipe: AIMPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    rights = {"client": Rights(sha256=digest_of(KEY), may=("ask", "write"))}
    with serving(pipe, ServeSettings(banks=tmp_path_factory.mktemp("banks")), Keys(rights)) as made:
        made.client.headers["Authorization"] = f"Bearer {KEY}"
        made.fill("shapes", [given(shape("red"), "a dax"), given(shape("blue"), "a blick")])
        yield made


def shape(color: str) -> Image.Image:
    made = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(made).rectangle((20, 20, 76, 76), fill=color)
    return made


def test_openai(live: Live, pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key=KEY, max_retries=0)
    assert [one.id for one in client.models.list()] == ["pocket", "pocket:shapes"]
    messages = conversation(pictures, pictures[5])
    expected = pipe.chat(messages, max_tokens=6, logprobs=True)
    answer = client.chat.completions.create(model="pocket", messages=messages, max_tokens=6, logprobs=True)
    assert answer.choices[0].message.content == expected.text
    found = [one.logprob for one in answer.choices[0].logprobs.content]
    assert found == pytest.approx(list(expected.answers[0].log_probs or ()), abs=1e-5)
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    usage = {"include_usage": True}
    parts = [
        *client.chat.completions.create(
            model="pocket", messages=messages, max_tokens=6, stream=True, stream_options=usage
        )
    ]
    assert "".join(one.choices[0].delta.content or "" for one in parts if one.choices) == expected.text
    assert parts[-1].usage.completion_tokens == answer.usage.completion_tokens
    banked = client.chat.completions.create(
        model="pocket:shapes", messages=[turn(shape("red"), "What is it?")], extra_body={"shots": 1}
    )
    assert len(banked.model_extra["aim"]["demonstrations"]) == 1
    # what a client answered can be sent back as a turn
    kept = [*messages, answer.choices[0].message, turn(pictures[6], "And this?")]
    assert client.chat.completions.create(model="pocket", messages=kept, max_tokens=4).choices[0].message.content
    with pytest.raises(openai.NotFoundError, match="no bank named 'dogs'"):
        client.chat.completions.create(model="pocket:dogs", messages=messages)
    with pytest.raises(openai.BadRequestError, match="no image"):
        client.chat.completions.create(model="pocket", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_langchain(live: Live, pipe: AIMPipeline) -> None:
    langchain = pytest.importorskip("langchain_openai")
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
    from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate

    part = {"type": "image_url", "image_url": {"url": "{picture}"}}
    text = {"type": "text", "text": "What is it?"}
    one = ChatPromptTemplate.from_messages([("human", [text, part]), ("ai", "{answer}")])
    shown = [{"picture": uri(shape("red")), "answer": "a dax"}, {"picture": uri(shape("blue")), "answer": "a blick"}]
    few = FewShotChatMessagePromptTemplate(example_prompt=one, examples=shown)
    prompt = ChatPromptTemplate.from_messages([("system", "Answer briefly."), few, ("human", [text, part])])
    model = langchain.ChatOpenAI(base_url=f"{live.url}/v1", api_key=KEY, model="pocket", temperature=0, max_tokens=6)
    chain = prompt | model
    form = pipe.prompt_format.model_copy(update={"system": "Answer briefly."})
    (expected,) = AIMPipeline(pipe.backend, pipe.projector, prompt_format=form).generate(
        [Query(data(shape("darkred")), "What is it?")],
        demonstrations=[
            Demonstration(data(shape(c)), "What is it?", w) for c, w in (("red", "a dax"), ("blue", "a blick"))
        ],
        max_new_tokens=6,
    )
    answer = chain.invoke({"picture": uri(shape("darkred"))})
    assert answer.content == expected.text
    assert answer.usage_metadata["input_tokens"] == expected.prompt_tokens
    assert "".join(piece.content for piece in chain.stream({"picture": uri(shape("darkred"))})) == expected.text
    said = [SystemMessage("Answer briefly."), HumanMessage([text, {**part, "image_url": {"url": uri(shape("red"))}}])]
    assert isinstance(model.invoke(said), AIMessage)


def test_dspy(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    dspy = pytest.importorskip("dspy")

    class Name(dspy.Signature):  # type: ignore[misc, name-defined]
        """Name the shape."""

        image: dspy.Image = dspy.InputField()
        name: str = dspy.OutputField()

    schema = {"type": "object", "properties": {"name": {"enum": ["a dax", "a blick"]}}, "required": ["name"]}
    form = {
        "type": "json_schema",
        "json_schema": {"name": "shape", "schema": {**schema, "additionalProperties": False}},
    }
    model = dspy.LM(
        "openai/pocket", api_base=f"{live.url}/v1", api_key=KEY, max_tokens=64, cache=False, response_format=form
    )
    predict = dspy.Predict(Name)
    predict.demos = [
        dspy.Example(image=dspy.Image(shape(color)), name=name).with_inputs("image")
        for color, name in (("red", "a dax"), ("blue", "a blick"))
    ]
    reads = live.service.metrics.registry.get_sample_value
    before = reads("aim_reads_total") or 0
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        found = [predict(image=dspy.Image(shape(color))).name for color in ("darkred", "navy", "red")]
    assert set(found) <= {"a dax", "a blick"}
    assert (reads("aim_reads_total") or 0) - before == 2  # its demonstrations, once


def test_the_examples_of_the_page(
    pipe: AIMPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[Image.Image]
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for package in ("openai", "langchain_openai", "dspy"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("a.jpg", "b.jpg", "query.jpg"), pictures, strict=False):
        picture.save(name)
    page = (ROOT / "docs" / "how-to" / "serve.md").read_text()
    found = [textwrap.dedent(one) for one in re.findall(r"^ *```python\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)]
    assert len(found) == 4
    with serving(pipe, ServeSettings(banks=tmp_path / "banks")) as live:
        live.fill("cats", [given(pictures[0], "a lynx"), given(pictures[1], "a caracal")])
        scope: dict[str, object] = {"__name__": "example"}
        for block in found:
            exec(compile(block.replace("http://127.0.0.1:8000", live.url), "serve.md", "exec"), scope)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(live: Live, tmp_path: Path) -> None:
    body = {"model": "pocket:shapes", "messages": [turn(shape("darkred"), "What is it?")], "max_tokens": 6}
    (tmp_path / "body.json").write_text(json.dumps(body))
    shape("green").save(tmp_path / "green.png")

    def curl(*arguments: str) -> Any:
        key = ["-H", f"Authorization: Bearer {KEY}"]
        command = ["curl", "--silent", "--show-error", "--fail-with-body", *key, *arguments]
        return json.loads(subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout)

    files = ["-F", f"files=@{tmp_path / 'green.png'}", "-F", "text=What is it?", "-F", "answer=a wug"]
    assert curl(f"{live.url}/v1/banks/shapes/demonstrations", *files)["data"][0]["status"] == "added"
    sent = ["-H", "Content-Type: application/json", "-d", f"@{tmp_path / 'body.json'}"]
    answer = curl(f"{live.url}/v1/chat/completions", *sent)
    assert len(answer["aim"]["demonstrations"]) == 3
    assert answer["choices"][0]["message"]["content"]
