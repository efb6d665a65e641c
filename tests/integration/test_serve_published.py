"""Banks that are made elsewhere and published: taken, swapped and refused while requests are answered."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim_sdk import AIMPipeline, Demonstration, DemonstrationBank
from aim_sdk.bank.bank import DiskBank
from aim_sdk.errors import AIMError, ArtifactNotFoundError, CorruptArtifactError, InputError
from aim_sdk.serving.published import FOLDER, publish
from aim_sdk.serving.settings import ServeSettings
from tests.servers import Live, data, given, serving, turn


@pytest.fixture(scope="module")
def pipe(tiny: Callable[[str], Path]) -> AIMPipeline:
    torch.manual_seed(0)
    return AIMPipeline.from_pretrained("llava", model=tiny("llava-1.5"), projector="residual", device="cpu")


@pytest.fixture
def source(pipe: AIMPipeline, tmp_path: Path, pictures: list[Image.Image]) -> DiskBank:
    with pytest.warns():
        made = DemonstrationBank.open(tmp_path / "source", encoder=pipe.encoder, create=True, keep_images=True)
    made.add([Demonstration(data(one), "What is it?", word) for one, word in zip(pictures, ("a", "b"), strict=False)])
    return made


def settings(tmp_path: Path, url: str, **more: Any) -> ServeSettings:
    return ServeSettings(banks=tmp_path / "banks", published={"cats": url}, refresh=3600, **more)


@pytest.mark.parametrize("scheme", ["", "file://", "memory:/"])
def test_a_published_bank_is_taken_and_swapped(
    pipe: AIMPipeline, source: DiskBank, tmp_path: Path, pictures: list[Image.Image], scheme: str
) -> None:
    url = f"{scheme}{tmp_path}/cats.aimbank"
    publish(source, url)
    with serving(pipe, settings(tmp_path, url)) as live:
        assert [one["key"] for one in live.client.get("/v1/banks/cats/demonstrations").json()["data"]] == list(source)
        before = asked(live, pictures)
        source.add(Demonstration(data(pictures[5]), "What is it?", "c"))
        publish(source, url)
        live.service.published.look()
        assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 3
        assert len(asked(live, pictures)["aim"]["demonstrations"]) == 3
        source.remove(list(source)[-1])
        publish(source, url)
        live.service.published.look()
        assert asked(live, pictures)["choices"] == before["choices"]
        assert len(list((tmp_path / "banks" / FOLDER / "cats").iterdir())) >= 2  # for what has begun with them
    with serving(pipe, settings(tmp_path, url)) as live:  # loaded before: nothing but its hash is read
        assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 2
        assert len(list((tmp_path / "banks" / FOLDER / "cats").iterdir())) == 1


def asked(live: Live, pictures: list[Image.Image]) -> dict[str, Any]:
    found: dict[str, Any] = live.chat([turn(pictures[3], "And this?")], "llava:cats", max_tokens=3).json()
    return found


def test_no_request_is_lost_while_banks_are_swapped(
    pipe: AIMPipeline, source: DiskBank, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    url = str(tmp_path / "cats.aimbank")
    publish(source, url)
    with serving(pipe, settings(tmp_path, url)) as live:
        ended, status = threading.Event(), []

        def ask() -> None:
            while not ended.is_set():
                found = live.chat(
                    [turn(pictures[3], "And this?")], "llava:cats", max_tokens=2, stream=bool(len(status) % 2)
                )
                status.append(found.status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for one in threads:
            one.start()
        for number in range(8):
            source.add(Demonstration(data(pictures[number]), "", f"more {number}"))
            publish(source, url)
            live.service.published.look()
        ended.set()
        for one in threads:
            one.join()
        assert set(status) == {200}
        assert len(status) > 8
        assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 10


def test_what_is_damaged_leaves_the_old_bank(
    pipe: AIMPipeline, source: DiskBank, tmp_path: Path, pictures: list[Image.Image], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cats.aimbank"
    publish(source, str(file))
    whole, digest = file.read_bytes(), Path(f"{file}.sha256").read_text()
    with serving(pipe, settings(tmp_path, str(file))) as live:
        other = "0" * 64

        def hashed(text: str) -> None:
            Path(f"{file}.sha256").write_text(text)

        for change, said in (
            (lambda: hashed(other), "not what its hash says"),
            (lambda: hashed("nothing"), "expected a SHA-256"),
            (lambda: Path(f"{file}.sha256").unlink(), "no such file"),
            (lambda: (hashed(other), file.unlink()), "no such file"),
        ):
            caplog.clear()
            change()
            live.service.published.look()
            assert said in caplog.text
            assert live.client.get("/v1/banks/cats").json()["demonstrations"] == 2
            file.write_bytes(whole)
        hashed(digest)
        caplog.clear()
        live.service.published.look()
        assert caplog.text == ""


def test_it_is_read_only(pipe: AIMPipeline, source: DiskBank, tmp_path: Path, pictures: list[Image.Image]) -> None:
    publish(source, str(tmp_path / "cats.aimbank"))
    with serving(pipe, settings(tmp_path, str(tmp_path / "cats.aimbank"))) as live:
        at = "/v1/banks/cats"
        key = next(iter(source))
        for method, path, body in (
            ("POST", f"{at}/demonstrations", {"demonstrations": [given(pictures[0], "a")]}),
            ("DELETE", at, None),
            ("DELETE", f"{at}/demonstrations/{key}", None),
            ("PATCH", f"{at}/demonstrations/{key}", {"metadata": {"a": 1}}),
        ):
            refused = live.client.request(method, path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "read_only")
        assert live.client.post("/v1/banks", json={"name": "cats"}).status_code == 409
        assert live.client.post(f"{at}/verify").json()["problems"] == []


def test_a_start_without_it_is_refused(pipe: AIMPipeline, source: DiskBank, tmp_path: Path) -> None:
    def start(url: str, **more: Any) -> AIMError:
        with pytest.raises(AIMError) as refused, serving(pipe, settings(tmp_path, url, **more)):
            pass
        return refused.value

    assert isinstance(start(str(tmp_path / "none")), ArtifactNotFoundError)
    assert isinstance(start("nosuch://bucket/cats"), InputError)
    file = tmp_path / "cats.aimbank"
    publish(source, str(file))
    file.write_bytes(file.read_bytes()[:-1])
    assert isinstance(start(str(file)), CorruptArtifactError)
    publish(source, str(file))
    (tmp_path / "banks").mkdir(exist_ok=True)
    source.export(tmp_path / "file")
    DemonstrationBank.import_file(tmp_path / "file", tmp_path / "banks" / "cats").close()
    assert "there is a bank named 'cats'" in str(start(str(file)))
