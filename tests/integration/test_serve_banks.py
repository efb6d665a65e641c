"""Banks over HTTP: made, filled, looked at, changed, moved; with a model of few weights."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank, Query
from aim_sdk.serving.settings import Limits, ServeSettings
from tests.servers import Live, conversation, data, given, serving, uri

ANSWERS = ["a lynx", "a fox", "a bear", "an owl"]


@pytest.fixture(scope="module")
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    torch.manual_seed(0)
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")


@pytest.fixture
def live(pipe: AIMPipeline, tmp_path: Path) -> Iterator[Live]:
    with serving(pipe, ServeSettings(banks=tmp_path / "banks", limits=Limits(images=40, page=5))) as made:
        yield made


@pytest.fixture
def shown(pictures: list[Image.Image]) -> list[dict[str, Any]]:
    return [given(one, word, n=n, kind=word[-1]) for n, (one, word) in enumerate(zip(pictures, ANSWERS, strict=False))]


def test_a_bank_is_made_filled_and_described(live: Live, shown: list[dict[str, Any]], pictures: Any) -> None:
    keys = live.fill("cats", shown)
    client = live.client
    assert client.get("/v1/banks").json()["data"] == [{"name": "cats", "demonstrations": 4, "read_only": False}]
    about = client.get("/v1/banks/cats").json()
    assert (about["demonstrations"], about["fields"], about["verdict"]) == (4, ["kind", "n"], None)
    expected = live.service.banks.bank("cats")
    assert keys == list(expected)
    listed = client.get("/v1/banks/cats/demonstrations").json()
    assert (listed["total"], [one["key"] for one in listed["data"]]) == (4, keys)
    assert listed["data"][1]["metadata"] == {"n": 1, "kind": "x"}
    again = client.post("/v1/banks/cats/demonstrations", json={"demonstrations": shown}).json()["data"]
    assert [(one["status"], one["key"]) for one in again] == [("here", key) for key in keys]
    picture = client.get(listed["data"][0]["image"])
    assert (picture.content, picture.headers["content-type"]) == (data(pictures[0]), "image/png")
    small = client.get(listed["data"][0]["thumbnail"], params={"pixels": 16})
    assert Image.open(io.BytesIO(small.content)).size == (13, 16)
    assert client.post("/v1/banks/cats/verify").json()["problems"] == []


def test_pages_and_filters(live: Live, shown: list[dict[str, Any]], pictures: list[Image.Image]) -> None:
    keys = live.fill("cats", [*shown, *(given(one, "a wolf", "Who?", n=9) for one in pictures[4:])])

    def page(**asked: Any) -> tuple[int, list[str]]:
        found = live.client.get("/v1/banks/cats/demonstrations", params=asked).json()
        return found["total"], [one["key"] for one in found["data"]]

    assert page() == (8, keys[:5])  # a page has five here
    assert page(offset=6, limit=1) == (8, keys[6:7])
    assert page(offset=100) == (8, [])
    assert page(contains="WOLF") == (4, keys[4:])
    assert page(where="n:1") == (1, keys[1:2])
    assert page(where=["n:9", "kind:x"])[0] == 0
    assert page(where="n:7") == (0, [])
    for asked in ({"where": "n"}, {"where": "colour:red"}, {"offset": -1}, {"limit": "many"}):
        refused = live.client.get("/v1/banks/cats/demonstrations", params=asked)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error"), asked


def test_one_that_cannot_be_used_does_not_stop_the_others(live: Live, shown: list[dict[str, Any]]) -> None:
    live.client.post("/v1/banks", json={"name": "cats"})
    broken: list[Any] = [
        {**shown[0], "image": "data:image/png;base64,aGVsbG8="},
        {**shown[0], "answer": " "},
        {**shown[0], "image": "/etc/passwd"},
        {**shown[0], "image": "https://example.com/a.png"},
        {**shown[0], "colour": 1},
        7,
        {"text": "no image"},
        {**shown[0], "answer": "<image>"},
    ]
    mixed = [broken[0], shown[0], *broken[1:], shown[1]]
    found = live.client.post("/v1/banks/cats/demonstrations", json={"demonstrations": mixed}).json()["data"]
    status = [one["status"] for one in found]
    assert status == ["refused", "added", *["refused"] * 7, "added"]
    assert all(one["error"]["message"] for one in found if one["status"] == "refused")
    alone = live.client.post("/v1/banks/cats/demonstrations", json={"demonstrations": broken})
    assert (alone.status_code, len(alone.json()["data"])) == (400, 8)
    assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 2
    for body in ({}, {"demonstrations": []}, {"demonstrations": {}}, {"demonstrations": shown * 11}):
        assert live.client.post("/v1/banks/cats/demonstrations", json=body).status_code == 400


def test_files_of_a_form(live: Live, pictures: list[Image.Image]) -> None:
    live.client.post("/v1/banks", json={"name": "cats"})
    at = "/v1/banks/cats/demonstrations"
    files = [("files", (f"{n}.png", data(one), "image/png")) for n, one in enumerate(pictures[:2])]
    added = live.client.post(at, files=files, data={"text": "What is it?", "answer": "a lynx"}).json()["data"]
    assert [one["status"] for one in added] == ["added", "added"]
    listed = [
        {"image": "1.png", "answer": "a fox", "metadata": {"n": 1}},
        {"image": "2.png", "answer": "a bear"},
        {"image": "0.png", "answer": " "},
    ]
    found = live.client.post(at, files=files, data={"demonstrations": json.dumps(listed)}).json()["data"]
    assert [one["status"] for one in found] == ["added", "refused", "refused"]
    assert "it has 0.png, 1.png" in found[1]["error"]["message"]
    assert live.client.get(f"{at}/{found[0]['key']}").json()["metadata"] == {"n": 1}
    for body in (
        {"demonstrations": "[{"},
        {"demonstrations": json.dumps(listed[:1])},  # nobody names 0.png
        {
            "demonstrations": json.dumps([{"image": "0.png", "answer": "a"}, {"image": "1.png", "answer": "b"}]),
            "text": "?",
        },
        {"answer": "a lynx", "colour": "red"},
    ):
        assert live.client.post(at, files=files, data=body).status_code == 400, body
    same = [("files", ("image.jpg", data(one), "image/png")) for one in pictures[2:4]]
    assert (
        live.client.post(
            at, files=same, data={"demonstrations": json.dumps([{"image": "image.jpg", "answer": "a"}])}
        ).status_code
        == 400
    )
    both = live.client.post(at, files=same, data={"answer": "a bear", "metadata": '{"phone": true}'}).json()["data"]
    assert [one["status"] for one in both] == ["added", "added"]
    assert live.client.get(at, params={"where": "phone:true"}).json()["total"] == 2
    assert live.client.post(at, files={"file": ("a.png", data(pictures[0]))}, data={"answer": "a"}).status_code == 400
    assert live.client.post(at, files=files).json()["data"][0]["status"] == "refused"  # no answer


def test_progress_is_told_as_it_happens(live: Live, pictures: list[Image.Image]) -> None:
    live.client.post("/v1/banks", json={"name": "cats"})
    many = [given(pictures[n % 8], f"answer {n}") for n in range(36)] + [{"image": "data:,", "answer": "x"}]
    headers = {"Accept": "text/event-stream"}
    with live.client.stream(
        "POST", "/v1/banks/cats/demonstrations", json={"demonstrations": many}, headers=headers
    ) as stream:
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    assert [one["done"] for one in told] == list(range(1, 38))
    assert sorted(one["index"] for one in told) == list(range(37))
    assert {one["total"] for one in told} == {37}
    assert [one["index"] for one in told if one["status"] == "refused"] == [36]
    assert len(live.service.banks.bank("cats")) == 36


def test_tags_removal_and_search(
    live: Live, pipe: AIMPipeline, shown: list[dict[str, Any]], pictures: list[Image.Image]
) -> None:
    keys = live.fill("cats", shown)
    at = f"/v1/banks/cats/demonstrations/{keys[0]}"
    tagged = live.client.patch(at, json={"metadata": {"kind": None, "seen": True, "n": 2.5}}).json()
    assert tagged["metadata"] == {"seen": True, "n": 2.5}
    assert live.client.patch(at, json={"metadata": {"n": [1]}}).status_code == 400
    found = live.client.post(
        "/v1/banks/cats/search", json={"image": uri(pictures[2]), "text": "What is it?", "limit": 2}
    )
    best = found.json()["data"]
    assert best[0]["key"] == keys[2]
    assert best[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert len(best) == 2
    assert live.client.delete(at).json() == {"key": keys[0], "deleted": True}
    for gone in (live.client.delete(at), live.client.get(at), live.client.get(f"{at}/image")):
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "demonstration_not_found")
    assert live.client.post("/v1/banks/cats/search", json={"image": "cat.png"}).status_code == 400


def test_a_bank_moves_as_a_file(live: Live, shown: list[dict[str, Any]], tmp_path: Path) -> None:
    keys = live.fill("cats", shown)
    file = live.client.get("/v1/banks/cats/export")
    assert file.headers["content-disposition"].endswith('filename="cats.aimbank"')
    assert live.client.post("/v1/banks/copy/import", content=file.content).json() == {
        "name": "copy",
        "demonstrations": 4,
        "read_only": False,
    }
    copied = live.client.get("/v1/banks/copy/demonstrations").json()["data"]
    assert [one["key"] for one in copied] == keys
    taken = live.client.post("/v1/banks/copy/import", content=file.content)
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "bank_exists")
    cut = live.client.post("/v1/banks/other/import", content=file.content[:-9])
    assert (cut.status_code, cut.json()["error"]["code"]) == (400, "not_an_exported_bank")
    assert "the body" in cut.json()["error"]["message"]
    form = live.client.post("/v1/banks/other/import", files={"file": ("a", file.content)})
    assert form.status_code == 415
    assert str(tmp_path) not in cut.text
    assert [one["name"] for one in live.client.get("/v1/banks").json()["data"]] == ["cats", "copy"]
    assert live.client.delete("/v1/banks/copy").json() == {"name": "copy", "deleted": True}
    assert live.client.get("/v1/banks/copy").status_code == 404
    assert sorted(one.name for one in (tmp_path / "banks").iterdir()) == ["cats"]


def test_what_other_processes_write_is_seen(
    live: Live, pipe: AIMPipeline, shown: list[dict[str, Any]], pictures: list[Image.Image], tmp_path: Path
) -> None:
    live.fill("cats", shown)
    with DemonstrationBank.open(tmp_path / "banks" / "cats", encoder=pipe.encoder) as other:
        other.add(Demonstration(data(pictures[5]), "", "a wolf"))
    assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 5
    with DemonstrationBank.open(tmp_path / "banks" / "dogs", encoder=pipe.encoder, create=True) as other:
        other.add(Demonstration(data(pictures[5]), "", "a wolf"))
    assert [one["name"] for one in live.client.get("/v1/banks").json()["data"]] == ["cats", "dogs"]
    asked = AIMPipeline(pipe.backend, pipe.projector, bank=tmp_path / "banks" / "dogs")
    (expected,) = asked.generate([Query(data(pictures[0]), "And this?")], max_new_tokens=3)
    body = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri(pictures[0])}}]}]
    body[0]["content"].append({"type": "text", "text": "And this?"})  # type: ignore[attr-defined]
    assert live.chat(body, bank="dogs", max_tokens=3).json()["choices"][0]["message"]["content"] == expected.text


def test_a_bank_that_another_service_made_again_is_opened_again(
    live: Live, pipe: AIMPipeline, shown: list[dict[str, Any]], pictures: list[Image.Image], tmp_path: Path
) -> None:
    live.fill("cats", shown)
    with serving(pipe, ServeSettings(banks=tmp_path / "banks")) as other:
        assert other.client.get("/v1/banks/cats").json()["demonstrations"] == 4
        assert other.client.delete("/v1/banks/cats").status_code == 200
        assert live.client.get("/v1/banks/cats").status_code == 404
        other.fill("cats", shown[:1])
        assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 1
        query = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri(pictures[4])}}]}
        assert len(live.chat([query], bank="cats", max_tokens=2).json()["aim"]["demonstrations"]) == 1
        live.client.post("/v1/banks/cats/demonstrations", json={"demonstrations": shown[1:2]})
        assert other.client.get("/v1/banks/cats").json()["demonstrations"] == 2


def test_a_damaged_bank_can_be_deleted_and_what_is_none_is_left(
    live: Live, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    live.fill("cats", shown)
    (tmp_path / "banks" / "junk").mkdir()
    (tmp_path / "banks" / "bad").mkdir()
    (tmp_path / "banks" / "bad" / "bank.sqlite").write_bytes(b"nothing")
    assert "error" in live.client.get("/v1/banks").json()["data"][0]
    assert live.client.delete("/v1/banks/bad").status_code == 200
    assert live.client.delete("/v1/banks/junk").status_code == 404
    taken = live.client.post("/v1/banks", json={"name": "junk"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "name_taken")
    assert (tmp_path / "banks" / "junk").is_dir()


def test_one_bank_that_cannot_be_opened_does_not_hide_the_others(
    live: Live, shown: list[dict[str, Any]], tmp_path: Path
) -> None:
    live.fill("cats", shown)
    other = AIMPipeline(live.service.pipe.backend, prompt_format="{image}{text}{answer}\n")
    with DemonstrationBank.open(tmp_path / "banks" / "other", encoder=other.encoder, create=True):
        pass
    listed = live.client.get("/v1/banks").json()["data"]
    assert listed[0] == {"name": "cats", "demonstrations": 4, "read_only": False}
    assert "other: this bank was made with" in listed[1]["error"]
    refused = live.client.get("/v1/banks/other")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "made_with_another_model")
    assert str(tmp_path) not in refused.text + json.dumps(listed)


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "", "a" * 65, "-a", "a b", "%2e%2e", "ä"])
def test_names_that_are_none(live: Live, name: str, tmp_path: Path) -> None:
    refused = live.client.post("/v1/banks", json={"name": name})
    assert refused.status_code == 400
    for path in (f"/v1/banks/{name}", f"/v1/banks/{name}/demonstrations"):
        assert live.client.get(path).status_code in (400, 404) or not name
    assert list((tmp_path / "banks").iterdir()) == []


@contextmanager
def process(folder: Path, model: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A service in a process of its own, and its address."""
    command = [sys.executable, "-m", "aim_sdk.cli", "serve", "--backend", "llava", "--model", str(model)]
    command += ["--projector", "residual", "--banks", str(folder), "--port", "0", "--device", "cpu"]
    made = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert made.stderr is not None
        line = next(line for line in made.stderr if " on http://" in line)
        yield made, line.split(" on ")[1].strip()
    finally:
        made.kill()
        made.wait()


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    acknowledged: list[str] = []
    image = Image.new("RGB", (32, 32), "red")
    with process(tmp_path, tiny("llava-1.5")) as (server, url):

        def add(worker: int) -> None:
            with httpx2.Client(base_url=url, timeout=60) as client:
                for number in range(1000):
                    body = {"demonstrations": [given(image, f"answer {worker} {number}")]}
                    try:
                        added = client.post("/v1/banks/cats/demonstrations", json=body)
                    except httpx2.HTTPError:
                        return
                    acknowledged.append(added.json()["data"][0]["key"])

        httpx2.post(f"{url}/v1/banks", json={"name": "cats"})
        threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
        for one in threads:
            one.start()
        deadline = time.monotonic() + 60
        while len(acknowledged) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(server.pid, signal.SIGKILL)
        for one in threads:
            one.join()
    assert len(acknowledged) >= 40
    with process(tmp_path, tiny("llava-1.5")) as (_, url):
        assert httpx2.get(f"{url}/v1/banks/cats").json()["demonstrations"] >= len(acknowledged)
        for key in acknowledged:
            assert httpx2.get(f"{url}/v1/banks/cats/demonstrations/{key}").status_code == 200
        assert httpx2.post(f"{url}/v1/banks/cats/verify").json()["problems"] == []


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_what_has_begun_is_answered_when_it_is_stopped(
    tmp_path: Path, tiny: Callable[[str], Path], pictures: list[Image.Image], sign: signal.Signals
) -> None:
    with process(tmp_path, tiny("llava-1.5")) as (server, url):
        body = {"model": "llava", "messages": conversation(pictures, pictures[4]), "max_tokens": 400, "stream": True}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: {")
            server.send_signal(sign)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait(30) in (0, -sign, 130)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/health")
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
