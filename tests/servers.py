"""Live servers for tests: the service under uvicorn, on a free port of this machine."""

import base64
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn
from PIL import Image

from aim_sdk import AIMPipeline
from aim_sdk.serving.app import app_of
from aim_sdk.serving.keys import Keys
from aim_sdk.serving.service import Service
from aim_sdk.serving.settings import ServeSettings

WORDS = ["a lynx", "a fox", "a small brown bear"]


@contextmanager
def serving(pipe: AIMPipeline, settings: ServeSettings, keys: Keys | None = None) -> Iterator["Live"]:
    """A service that listens until the block ends."""
    service = Service(pipe, settings, Keys(None) if keys is None else keys)
    server = uvicorn.Server(
        uvicorn.Config(app_of(service), host="127.0.0.1", port=0, log_level="critical", lifespan="on")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Live(service, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(30)


class Live:
    """A service that listens, and how it is asked."""

    def __init__(self, service: Service, url: str) -> None:
        self.service, self.url = service, url
        self.client = httpx2.Client(base_url=url, timeout=120)

    def chat(self, messages: Sequence[Any], model: str | None = None, **fields: Any) -> httpx2.Response:
        """Ask."""
        body = {"model": model or self.service.model, "messages": messages, **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def fill(self, bank: str, shown: Sequence[dict[str, Any]]) -> list[str]:
        """Make a bank of demonstrations; return their keys."""
        assert self.client.post("/v1/banks", json={"name": bank}).status_code == 201
        added = self.client.post(f"/v1/banks/{bank}/demonstrations", json={"demonstrations": shown})
        assert added.status_code == 200, added.text
        return [one["key"] for one in added.json()["data"]]


def data(image: Image.Image) -> bytes:
    """A PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def uri(image: Image.Image) -> str:
    """A data URI."""
    return f"data:image/png;base64,{base64.b64encode(data(image)).decode()}"


def turn(image: Image.Image, text: str) -> dict[str, Any]:
    """A turn of the user's."""
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": uri(image)}}, {"type": "text", "text": text}],
    }


def conversation(pictures: Sequence[Image.Image], asked: Image.Image, text: str = "And this?") -> list[dict[str, Any]]:
    """Demonstrations as turns, then a query."""
    pairs = [
        (turn(one, "What is it?"), {"role": "assistant", "content": word})
        for one, word in zip(pictures, WORDS, strict=False)
    ]
    return [*(message for pair in pairs for message in pair), turn(asked, text)]


def given(image: Image.Image, answer: str, text: str = "What is it?", **metadata: Any) -> dict[str, Any]:
    """A demonstration as it is sent."""
    return {"image": uri(image), "text": text, "answer": answer, "metadata": metadata}


def token_ids(answer: dict[str, Any]) -> list[int]:
    """Of an answer that was asked for with log-probabilities."""
    content = answer["choices"][0]["logprobs"]["content"]
    return [int(one["token"].removeprefix("token_id:")) for one in content]


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a stream, which must end as they do."""
    import json

    parts = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert parts[-1] == "[DONE]"
    return [json.loads(part) for part in parts[:-1]]
