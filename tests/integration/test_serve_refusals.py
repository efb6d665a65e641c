"""What a service refuses: who may not ask, and what may not be asked. Nothing that is sent stops it."""

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline
from aim_sdk.errors import InputError
from aim_sdk.serving.keys import VARIABLE, Keys, Rights, add_key, check_keys, digest_of
from aim_sdk.serving.settings import Limits, ServeSettings
from aim_sdk.serving.worker import Call
from tests.servers import Live, conversation, given, serving, turn, uri
from tests.unit.test_project_files import ROOT

READER, WRITER, SLOW = "reader-" * 4, "writer-" * 4, "slowly-" * 4


@pytest.fixture(scope="module")
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    torch.manual_seed(0)
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")


@pytest.fixture(scope="module")
def live(pipe: AIMPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    limits = Limits(body_bytes=200_000, body_seconds=2, images=6, max_tokens=16)
    with serving(pipe, ServeSettings(banks=tmp_path_factory.mktemp("banks"), limits=limits)) as made:
        yield made


@pytest.fixture(scope="module")
def locked(pipe: AIMPipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    rights = {
        "reader": Rights(sha256=digest_of(READER), banks=("cats",)),
        "writer": Rights(sha256=digest_of(WRITER), may=("ask", "write")),
        "slow": Rights(sha256=digest_of(SLOW), per_minute=3),
    }
    with serving(pipe, ServeSettings(banks=tmp_path_factory.mktemp("banks")), Keys(rights)) as made:
        yield made


def as_(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_say_who_may_do_what(locked: Live, pictures: list[Image.Image]) -> None:
    client = locked.client
    for headers, code in (
        ({}, "missing_api_key"),
        (as_("wrong-" * 5), "invalid_api_key"),
        ({"Authorization": f"Basic {WRITER}"}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
    ):
        for path in ("/v1/models", "/v1/banks", "/v1/banks/cats", "/metrics"):
            refused = client.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, code)
            assert refused.headers["www-authenticate"] == "Bearer"
        assert client.post("/v1/chat/completions", headers=headers, content=b"x" * 1000).status_code == 401
    for path in ("/health", "/ready", "/", "/page/app.js", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    for bank in ("cats", "dogs"):
        assert client.post("/v1/banks", json={"name": bank}, headers=as_(WRITER)).status_code == 201
        demonstrations = {"demonstrations": [given(pictures[0], "a lynx")]}
        at = f"/v1/banks/{bank}/demonstrations"
        assert client.post(at, json=demonstrations, headers=as_(WRITER)).status_code == 200
    assert [one["name"] for one in client.get("/v1/banks", headers=as_(READER)).json()["data"]] == ["cats"]
    assert "dogs" not in client.get("/v1/models", headers=as_(READER)).text
    messages = [turn(pictures[1], "And this?")]
    asked = {"model": "llava:cats", "messages": messages, "max_tokens": 2}
    assert client.post("/v1/chat/completions", json=asked, headers=as_(READER)).status_code == 200
    for method, path, body, status in (
        ("POST", "/v1/chat/completions", {**asked, "model": "llava:dogs"}, 404),
        ("GET", "/v1/banks/dogs", None, 404),
        ("GET", "/v1/banks/dogs/export", None, 404),
        ("POST", "/v1/banks/cats/demonstrations", demonstrations, 403),
        ("POST", "/v1/banks", {"name": "more"}, 403),
        ("DELETE", "/v1/banks/cats", None, 403),
        ("DELETE", "/v1/banks/dogs", None, 404),
        ("POST", "/v1/banks/dogs/import", None, 403),
    ):
        refused = client.request(method, path, json=body, headers=as_(READER))
        assert refused.status_code == status, (method, path, refused.text)


def test_what_one_key_reads_is_not_told_to_another(locked: Live, pictures: list[Image.Image]) -> None:
    asked = {"model": "llava", "messages": conversation(pictures, pictures[4]), "max_tokens": 2}
    read = [
        locked.client.post("/v1/chat/completions", json=asked, headers=as_(key)).json()["aim"]["read"]
        for key in (WRITER, WRITER, READER)
    ]
    assert read == [3, 0, 3]


def test_a_key_may_ask_so_often(locked: Live) -> None:
    status = [locked.client.get("/v1/models", headers=as_(SLOW)) for _ in range(5)]
    assert [one.status_code for one in status] == [200, 200, 200, 429, 429]
    assert 1 <= int(status[-1].headers["retry-after"]) <= 60
    assert status[-1].json()["error"]["type"] == "rate_limit_error"


def test_keys_are_kept_as_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.yaml"
    key = add_key(file, "alice", may=("ask",), banks=("cats",), per_minute=60)
    other = add_key(file, "bob", may=("ask", "write"), banks=None)
    assert key not in file.read_text()
    keys = Keys.read(file)
    assert keys.caller(f"Bearer {key}").name == "alice"
    assert not keys.caller(f"bearer {key}").writes
    assert keys.caller(f"Bearer {other}").writes
    with pytest.raises(InputError, match="'alice' has a key"):
        add_key(file, "alice", may=("ask",), banks=None)
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(InputError, match="at least 16"):
        Keys.read(None)
    monkeypatch.setenv(VARIABLE, other)
    with pytest.raises(InputError, match="the same key"):
        Keys.read(file)
    monkeypatch.setenv(VARIABLE, WRITER)
    assert Keys.read(None).caller(f"Bearer {WRITER}").writes
    monkeypatch.delenv(VARIABLE)
    assert not Keys.read(None).needed
    for broken in (
        "keys: {a: {sha256: short}}",
        "keys: 7",
        "[",
        "",
        "keys: {}",
        "keys: {a: {sha256: %s, may: [fly]}}" % ("0" * 64),
    ):
        file.write_text(broken)
        with pytest.raises(InputError):
            Keys.read(file)


def test_the_documented_file_of_keys_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "file-formats.md").read_text()
    (tmp_path / "keys.yaml").write_text(re.findall(r"```yaml\n(keys:.*?)```", text, re.DOTALL)[0])
    caller = Keys.read(tmp_path / "keys.yaml").caller("Bearer test")  # whose hash is shown
    assert (caller.name, caller.may, caller.sees("cats"), caller.sees("dogs")) == (
        "alice",
        ("ask", "write"),
        True,
        False,
    )


def test_a_file_of_keys_that_changes_is_read_again(pipe: AIMPipeline, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    first = add_key(file, "first", may=("ask",), banks=None)
    with serving(pipe, ServeSettings(banks=tmp_path / "banks"), Keys.read(file)) as live:
        later = add_key(file, "later", may=("ask", "write"), banks=None)
        assert live.client.get("/v1/key", headers=as_(later)).json() == {"name": "later", "may": ["ask", "write"]}
        assert live.client.get("/v1/models", headers=as_(first)).status_code == 200
        file.write_text(f"keys: {{later: {{sha256: {digest_of(later)}}}}}")
        assert live.client.get("/v1/models", headers=as_(first)).status_code == 401
        assert live.client.get("/v1/key", headers=as_(later)).json()["may"] == ["ask"]
        file.write_text("keys: [")
        assert live.client.get("/v1/models", headers=as_(later)).status_code == 200
        file.unlink()
        assert live.client.get("/v1/models", headers=as_(later)).status_code == 200


def test_a_network_is_not_let_in_without_keys(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.com"):
        with pytest.raises(InputError, match="it asks for no key"):
            check_keys(ServeSettings(banks=tmp_path, host=host), Keys(None))
        check_keys(ServeSettings(banks=tmp_path, host=host), Keys({}))
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        check_keys(ServeSettings(banks=tmp_path, host=host), Keys(None))


def test_pages_of_other_sites_may_not_ask(live: Live) -> None:
    for headers, code in (
        ({"Origin": "https://evil.example"}, "other_origin"),
        ({"Origin": "null"}, "other_origin"),
        ({"Host": "evil.example"}, "unknown_host"),
    ):
        for method in ("GET", "POST"):
            refused = live.client.request(method, "/v1/banks", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, code)
            assert not [name for name in refused.headers if name.startswith("access-control")]
    for headers in ({"Host": "[::1"}, {"Origin": "http://[::1"}):
        assert live.client.get("/health", headers=headers).status_code == 400
    own = urlsplit(live.url).netloc
    assert live.client.get("/v1/banks", headers={"Origin": f"http://{own}"}).status_code == 200
    policy = live.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_queue_that_is_full_says_when_to_come_again(
    pipe: AIMPipeline, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    with serving(pipe, ServeSettings(banks=tmp_path, queue=1, batch=1)) as live:
        begun, end = threading.Event(), threading.Event()
        live.service.worker.submit(Call(lambda: (begun.set(), end.wait(30))))
        begun.wait()
        found: list[httpx2.Response] = []
        body = {"model": "llava", "messages": [turn(pictures[0], "?")], "max_tokens": 1}
        waits = threading.Thread(target=lambda: found.append(httpx2.post(f"{live.url}/v1/chat/completions", json=body)))
        waits.start()
        while not live.service.worker.waiting:
            time.sleep(0.01)
        refused = live.client.post("/v1/chat/completions", json=body)
        streamed = live.client.post("/v1/chat/completions", json={**body, "stream": True})
        end.set()
        waits.join()
    for one in (refused, streamed):
        assert (one.status_code, one.json()["error"]["code"]) == (429, "queue_full")
        assert int(one.headers["retry-after"]) >= 1
    assert found[0].status_code == 200


def test_a_stop_that_cannot_wait_tells_all_who_do(
    pipe: AIMPipeline, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    body = {"model": "llava", "messages": conversation(pictures, pictures[4]), "max_tokens": 2000}
    with serving(pipe, ServeSettings(banks=tmp_path)) as live:
        at = f"{live.url}/v1/chat/completions"
        with httpx2.stream("POST", at, json={**body, "stream": True}, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            begun, end = threading.Event(), threading.Event()
            live.service.worker.submit(Call(lambda: (begun.set(), end.wait(30))))
            begun.wait()
            waits = ThreadPoolExecutor(1).submit(httpx2.post, at, json=body, timeout=60)
            while not live.service.worker.waiting:
                time.sleep(0.01)
            live.service.worker.abort()
            end.set()
            *_, error, last = [line for line in lines if line]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "stopping"
        assert last == "data: [DONE]"
        for refused in (waits.result(), live.client.post("/v1/chat/completions", json=body)):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
            assert refused.headers["retry-after"]
        assert live.client.get("/ready").status_code == 503


def test_images_come_from_allowed_hosts_alone(live: Live, pictures: list[Image.Image]) -> None:
    def asked(url: Any) -> httpx2.Response:
        return live.chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])

    for url in ("https://example.com/a.png", "http://127.0.0.1/a.png", "/etc/passwd", "file:///etc/passwd", "a.png"):
        assert asked(url).status_code == 400
    part = {"type": "image", "image": "/etc/passwd"}
    refused = live.chat([{"role": "user", "content": [part]}])
    assert refused.status_code == 400
    assert "expected image_url" in refused.json()["error"]["message"]
    many = [turn(pictures[n % 8], "?")["content"][0] for n in range(7)]
    assert "7 images" in live.chat([{"role": "user", "content": many}]).json()["error"]["message"]


def test_an_allowed_host_may_not_lead_inside(
    pipe: AIMPipeline, tmp_path: Path, pictures: list[Image.Image], live: Live
) -> None:
    with serving(pipe, ServeSettings(banks=tmp_path, image_hosts=frozenset({"localhost", "127.0.0.1"}))) as open_:
        at = urlsplit(live.url)
        for url in (f"http://127.0.0.1:{at.port}/", f"http://localhost:{at.port}/", "https://example.com/a.png"):
            content = [{"type": "image_url", "image_url": {"url": url}}]
            refused = open_.chat([{"role": "user", "content": content}])
            assert refused.status_code == 400
            said = refused.json()["error"]["message"]
            assert "not a public address" in said or "not one of those that are allowed" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tools": [{"type": "function"}]}, "tools is not supported here"),
        ({"shots": 2}, "no bank is named"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "send one of them"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"temperatur": 1}, "Did you mean 'temperature'"),
        ({"max_tokens": 17}, "at most 16"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"n": 2}, "greedy answers are all the same"),
        ({"bank": "none"}, "no bank named"),
        ({"selector": "nearby"}, "selector"),
        ({"mode": "nearest"}, "mode"),
        ({"stream": True, "logprobs": True}, "a stream has one answer"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "cat"}}}}, "cat"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "no image"),
        ({"model": 3}, "model"),
    ],
)
def test_fields_that_cannot_be_are_named(live: Live, pictures: list[Image.Image], fields: Any, said: str) -> None:
    body = {"model": "llava", "messages": [turn(pictures[0], "?")], **fields}
    refused = live.client.post("/v1/chat/completions", json=body)
    assert refused.status_code in (400, 404), refused.text
    assert said in refused.json()["error"]["message"]
    if refused.status_code == 400 and next(iter(fields)) not in ("messages", "bank", "response_format", "n", "stream"):
        assert refused.json()["error"]["param"] in (*fields, None)


def test_fields_without_effect_are_passed_over(live: Live, pictures: list[Image.Image]) -> None:
    body = {"messages": [turn(pictures[0], "?")], "max_completion_tokens": 3, "temperature": 0, "seed": 3, "top_p": 0.9}
    extra = {"user": "me", "metadata": {"a": "b"}, "store": False, "tools": [], "presence_penalty": 0, "n": 1}
    extra |= {"stream": False, "stop": None, "parallel_tool_calls": None, "tool_choice": "none"}
    assert live.client.post("/v1/chat/completions", json={"model": "llava", **body, **extra}).status_code == 200


def test_slow_and_half_closed_clients_do_not_hold_others_up(live: Live) -> None:
    at = urlsplit(live.url)
    head = (
        f"POST /v1/banks HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    )
    slow = [socket.create_connection((at.hostname, at.port)) for _ in range(20)]
    for number, one in enumerate(slow):
        one.sendall(head.encode()[: None if number % 2 else 40] + (b"{" if number % 2 else b""))
        if number % 4 == 3:
            one.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    assert live.client.get("/health").json() == {"status": "ok"}
    assert time.monotonic() - began < 1
    slow[1].settimeout(10)
    assert slow[1].recv(4096).startswith(b"HTTP/1.1 408")
    for one in slow:
        one.close()


def test_heads_methods_and_lengths(live: Live) -> None:
    for path in ("/health", "/ready", "/"):
        assert live.client.head(path).status_code == 200
    refused = live.client.put("/v1/banks")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    squeezed = live.client.post("/v1/banks", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (squeezed.status_code, squeezed.json()["error"]["code"]) == (415, "encoded")
    at = urlsplit(live.url)
    with socket.create_connection((at.hostname, at.port), timeout=10) as one:
        one.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection((at.hostname, at.port), timeout=10) as one:
        head = (
            f"POST /v1/banks HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        one.sendall(head.encode() + b"0\r\n\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 400")


def test_the_reference_is_whole(live: Live) -> None:
    said = live.client.get("/openapi.json").json()
    text = json.dumps(said)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', text):
        assert reference in said["components"]["schemas"]
    assert "#/$defs" not in text
    assert "422" not in text
    chat = said["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) == {"200", "4XX", "5XX"}
    assert chat["requestBody"]["content"]["application/json"]["schema"]["properties"]["n"]


def test_what_fails_unexpectedly_says_nothing(live: Live, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken() -> list[str]:
        raise RuntimeError("a secret path /srv/models")

    monkeypatch.setattr(live.service.banks, "names", broken)
    refused = live.client.get("/v1/banks")
    assert refused.status_code == 500
    assert "secret" not in refused.text
    number = refused.headers["x-request-id"]
    assert number in refused.json()["error"]["message"]
    assert any(number in record.getMessage() and record.exc_info for record in caplog.records)


def test_nothing_that_is_sent_stops_the_service(live: Live, pictures: list[Image.Image]) -> None:
    """1,000 hostile requests: none is answered by a traceback or an error of the server's, none hangs."""
    rng = random.Random(0)
    live.fill("target", [given(pictures[0], "a lynx")])
    live.client.timeout = httpx2.Timeout(20)
    found: dict[int, int] = {}
    for number in range(1000):
        method, path, content, headers = hostile(rng, number, pictures)
        try:
            answer = live.client.request(method, path, content=content, headers=headers)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.LocalProtocolError):
            continue  # the connection was closed on a body that is too large, say
        except httpx2.InvalidURL:
            continue
        found[answer.status_code] = found.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (method, path, content[:200], answer.text)
        assert "Traceback" not in answer.text
        if answer.status_code >= 400 and method != "HEAD":
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert sum(found.values()) > 900
    assert live.chat([turn(pictures[0], "And this?")], "llava:target", max_tokens=2).status_code == 200
    assert live.client.get("/v1/banks/target").json()["demonstrations"] >= 1


def hostile(rng: random.Random, number: int, pictures: list[Image.Image]) -> tuple[str, str, bytes, dict[str, str]]:
    """One request that nobody should send."""
    odd: list[Any] = [
        None,
        True,
        -1,
        1e308,
        10**400,
        "",
        "\x00",
        "ä" * 300,
        [],
        {},
        [[]],
        {"a": {"b": []}},
        "../..",
        "%00",
    ]
    valid: dict[str, Any] = {"model": "llava:target", "messages": [turn(pictures[0], "?")], "max_tokens": 1}
    paths = [
        "/v1/chat/completions", "/v1/banks", "/v1/banks/target", "/v1/banks/target/demonstrations", "/v1/models",
        "/v1/banks/target/search", "/v1/banks/target/verify", "/v1/banks/nowhere/import", "/metrics", "/health",
        "/v1/banks/../../etc/passwd", "/v1/banks/%2e%2e/demonstrations", "/page/../app.py", "/page/%2e%2e/app.py",
        "/v1/banks/target/demonstrations/%00", "/v1/banks/target/demonstrations/..%2f..%2fx/image", "/" + "a" * 5000,
        "/v1/models/llava:..", "/docs/../..", "//etc/passwd",
    ]  # fmt: skip
    json_header = {"Content-Type": "application/json"}
    kind = number % 10
    if kind == 0:
        return "POST", rng.choice(paths), rng.randbytes(rng.randrange(200)), json_header
    if kind == 1:
        cut = json.dumps(valid).encode()
        return "POST", "/v1/chat/completions", cut[: rng.randrange(len(cut))], json_header
    if kind == 2:
        name = rng.choice([*valid, "stop", "seed", "n", "temperature", "mode", "shots", "bank", "response_format"])
        body = {**valid, name: rng.choice(odd)}
        return "POST", "/v1/chat/completions", json.dumps(body).encode(), json_header
    if kind == 3:
        deep = b"[" * 50_000 if rng.random() < 0.5 else b'{"a":' * 20_000
        return "POST", rng.choice(paths[:6]), deep, json_header
    if kind == 4:
        return "POST", rng.choice(paths), b"x" * 300_000, rng.choice([json_header, {}])
    if kind == 5:
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO"]
        while ((method := rng.choice(methods)), (path := rng.choice(paths))) == ("DELETE", "/v1/banks/target"):
            pass
        return method, path, b"", {"Authorization": "Bearer " + "x" * rng.randrange(2000)}
    if kind == 6:
        parts: list[Any] = [
            *odd,
            {"type": "image", "image": "/etc/passwd"},
            {"type": "image_url"},
            {"type": "text", "text": 1},
        ]
        message = {
            "role": rng.choice(["user", "system", "tool", None, 3]),
            "content": [rng.choice(parts), rng.choice(parts)],
        }
        body = {**valid, "messages": [message, *valid["messages"]] if rng.random() < 0.5 else [message]}
        return "POST", "/v1/chat/completions", json.dumps(body).encode(), json_header
    if kind == 7:
        image = rng.choice(
            [uri(Image.new("1", (20_000, 20_000))) if number % 100 == 7 else "data:image/png;base64,", *map(str, odd)]
        )
        one = {"image": image, "text": rng.choice(odd), "answer": rng.choice([*odd, "a"]), "metadata": rng.choice(odd)}
        body = {"demonstrations": [one]}
        return "POST", "/v1/banks/target/demonstrations", json.dumps(body).encode(), json_header
    if kind == 8:
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + rng.randbytes(5) + b'"\r\n\r\n'
        form += rng.randbytes(50) + (b"\r\n--x--\r\n" if rng.random() < 0.5 else b"")
        return "POST", "/v1/banks/target/demonstrations", form, {"Content-Type": "multipart/form-data; boundary=x"}
    query = rng.choice(
        ["offset=-1", "limit=0", "limit=1e9", "where=%00", "where=a:b", "contains=%ff", "offset=" + "9" * 400]
    )
    return "GET", f"/v1/banks/target/demonstrations?{query}", b"", {}
