"""What the vLLM backend refuses before a server is asked, or of servers that answer otherwise."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from aim_backends.auto import AutoBackend
from aim_backends.hf.backbone import Backbone
from aim_backends.llava import LlavaBackend
from aim_backends.vllm import client as client_module
from aim_backends.vllm.answering import Answering
from aim_backends.vllm.backend import VllmBackend, sketched
from aim_backends.vllm.client import VllmClient
from aim_backends.vllm.connecting import check_family
from aim_backends.vllm.prompts import PLACE, ServerPrompts
from aim_sdk import Query
from aim_sdk.cli import app
from aim_sdk.errors import BackendError, ContextLengthError, FormatError, InputError, UnsupportedModelError
from aim_sdk.testing.samples import picture
from aim_sdk.testing.tiny import build

CARD = {"id": "tiny", "root": "/a/tiny", "max_model_len": 512, "parent": None}


@contextmanager
def answering(paths: dict[str, list[tuple[int, Any]]]) -> Iterator[tuple[str, list[str]]]:
    """A server whose answers to each path are given, the last one again and again; and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answers = paths[self.path]
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, format: str, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def paths(**more: Any) -> dict[str, list[tuple[int, Any]]]:
    return {"/v1/models": [(200, {"data": [CARD]})], "/version": [(200, {"version": "0.32.0"})], **more}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return AutoBackend.from_pretrained(str(build("llava-1.5", tmp_path_factory.mktemp("llava"))), device="cpu").backbone


def test_addresses() -> None:
    with pytest.raises(InputError, match="base_url="):
        VllmBackend.from_pretrained("x")
    for odd in (8102, ["http://a"], b"http://a"):
        with pytest.raises(InputError, match="expected text"):
            VllmClient(odd)  # type: ignore[arg-type]
    for key in (0, b"x", "a\nb", "\xe9"):
        with pytest.raises(InputError, match="api_key: expected printable"):
            VllmClient("http://127.0.0.1:9", key)  # type: ignore[arg-type]
    for url in ("", "localhost:8000", "ftp://a", "http://", "http://[::1"):
        with pytest.raises(InputError, match="is no address"):
            VllmClient(url)
    with answering(paths()) as (url, _):
        for given in (url, url + "/", url + "/v1", f" {url}/v1/ "):
            client = VllmClient(given)
            assert (client.url, client.model, client.context_length) == (url, "tiny", 512)


@pytest.mark.parametrize(
    "options",
    [
        {"at_once": 0},
        {"at_once": 2.5},
        {"timeout": True},
        {"timeout": "10"},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"device": "cpu", "reader": "a bank"},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        VllmBackend.from_pretrained("x", base_url="http://127.0.0.1:9", **options)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="does not answer"):
        VllmClient("http://127.0.0.1:9")
    with pytest.raises(InputError, match="reader=int"):
        VllmBackend.from_pretrained("x", base_url="http://127.0.0.1:9", reader=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"hello", {}, {"data": []}, {"data": [{"id": "a"}]}, []])
def test_another_service(body: Any) -> None:
    answers = paths() | {"/v1/models": [(200, body)]}
    with answering(answers) as (url, _), pytest.raises(BackendError, match="as a vLLM server does"):
        VllmClient(url)


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAUSES", (0.0, 0.0))
    chat = "/v1/chat/completions"
    busy = paths(**{chat: [(503, {}), (429, {}), (200, {"done": 1})]})
    with answering(busy) as (url, asked):
        assert VllmClient(url).complete({}) == {"done": 1}
        assert asked.count(chat) == 3
    always = paths(**{chat: [(503, {"error": {"message": "no engine"}})]})
    with answering(always) as (url, asked), pytest.raises(BackendError, match="no engine"):
        VllmClient(url).complete({})
    refused = paths(**{chat: [(400, {"error": {"message": "too long"}})]})
    with answering(refused) as (url, asked):
        with pytest.raises(InputError, match="too long"):
            VllmClient(url).complete({})
        assert asked.count(chat) == 1


def test_an_answer_that_breaks_off() -> None:
    chat = "/v1/chat/completions"
    events = b'data: {"choices": []}\n\n'
    with answering(paths(**{chat: [(200, events)]})) as (url, _):
        stream = VllmClient(url).stream({})
        assert next(stream) == {"choices": []}
        with pytest.raises(BackendError, match="broken off"):
            next(stream)
    failed = b'data: {"error": {"message": "engine died"}}\n\n'
    with answering(paths(**{chat: [(200, failed)]})) as (url, _), pytest.raises(BackendError, match="engine died"):
        next(VllmClient(url).stream({}))


def test_the_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, told in (
        (["--url", "http://127.0.0.1:9"], "--url without --engine vllm"),
        (["--engine", "vllm"], "--engine needs --url"),
        (["--engine", "vlm", "--url", "x"], "Did you mean 'vllm'"),
        (["--engine", "vllm", "--url", "x", "--backend", "llava"], "leave --backend out"),
        (["--engine", "vllm", "--url", "http://127.0.0.1:9", "--option", "api_key"], "expected NAME=VALUE"),
        (["--option", "threads=1", "--option", "threads=2"], "given twice"),
        (["--engine", "vllm", "--url", "x", "--option", "base_url=y"], "mean the same"),
        (["--option", "device=cpu"], "an option of its own: --device"),
        (["--option", "prompt_format=x"], "an option of its own: --template"),
        (["--engine", "vllm", "--url", "http://127.0.0.1:9"], "expected model="),
        (["--engine", "vllm", "--url", "http://127.0.0.1:9", "--model", "m"], "does not answer"),
    ):
        done = runner.invoke(app, ["serve", *arguments])
        assert told in str(done.exception), (arguments, done.exception)


def test_adapters_are_refused(llava: Backbone) -> None:
    cards = [CARD, CARD | {"id": "mine", "parent": "tiny"}]
    answers = paths() | {"/v1/models": [(200, {"data": cards})]}
    local = LlavaBackend(llava)
    with answering(answers) as (url, _), pytest.raises(UnsupportedModelError, match="LoRA"):
        VllmBackend.from_pretrained(base_url=url, reader=local)


def test_what_samples_are_drawn_from(llava: Backbone) -> None:
    """As transformers does; and no text may hold the server's own token."""
    answering = Answering(llava)
    assert answering.options({}, 3, fused=False)["top_k"] == 0
    assert answering.options({"do_sample": True}, 3, fused=False)["top_k"] == 50
    assert answering.options({"do_sample": True, "top_k": 7}, 3, fused=True)["top_k"] == 7
    for bad in ({"seed": -1}, {"seed": 2**70}, {"temperature": 5.0, "do_sample": True}, {"top_k": -1}, {"beams": 2}):
        with pytest.raises(InputError):
            answering.options(bad, 3, fused=False)
    prompts, query = ServerPrompts(llava), Query(picture(40, 40, 0), "Is it <prompt_embeds>?")
    with pytest.raises(FormatError, match="<prompt_embeds>"):
        prompts.write([query], [[]], llava.default_format, 1)
    query = Query(picture(40, 40, 0), "Is it?")
    (prompt,) = prompts.write([query], [[]], llava.default_format, 1)
    with pytest.raises(FormatError, match="<prompt_embeds>"):
        prompts.answered(prompt, query, [], ["<prompt_embeds>"], llava.default_format)
    with pytest.raises(ContextLengthError):
        prompts.answered(prompt, query, [], ["word " * 3000], llava.default_format)


def test_families(tmp_path: Path, llava: Backbone) -> None:
    check_family(llava)
    for variant, told in (("qwen3-vl", "DeepStack"), ("mllama", "cross-attention")):
        with pytest.raises(UnsupportedModelError, match=told):
            check_family(sketched(str(build(variant, tmp_path / variant)), "refuse", {}))


def test_a_spare_row_is_needed(llava: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServerPrompts(llava).place < llava.rows
    monkeypatch.setattr(Backbone, "rows", property(lambda self: len(self.tokenizer)))
    with pytest.raises(UnsupportedModelError, match="needs one more"):
        ServerPrompts(llava)
    assert PLACE not in llava.tokenizer.get_vocab()
