"""An unmodified llama-server with slot files: its answers are those of the same prompt in this process, or an error."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from aim_backends.llamacpp.context import LlamaContext
from aim_backends.llamacpp.server_backend import LlamaServerBackend
from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import BackendError, CapabilityError, InputError, UnsupportedModelError
from aim_sdk.projectors import untrained
from aim_sdk.testing.tiny import gguf_files

SERVER = """
import sys, time
import xllamacpp
model, images, slots, parallel = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.mmproj.path, params.mmproj_use_gpu = model, images, False
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 2048, int(parallel), 1
params.warmup, params.port, params.endpoint_slots = False, 0, True
if slots:
    params.slot_save_path = slots + "/"
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(600)
"""


@contextmanager
def serving(
    files: tuple[Path, Path], slots: Path | str, parallel: int = 1
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server of the wheel, in a process of its own."""
    command = [sys.executable, "-c", SERVER, *map(str, files), str(slots), str(parallel)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            for _ in range(100):
                try:
                    if httpx2.get(f"{url}/health").status_code == 200:
                        break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield url, process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return gguf_files.build_gguf(tmp_path_factory.mktemp("server") / "llava")


@pytest.fixture(scope="module")
def backend(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServerBackend]:
    slots = tmp_path_factory.mktemp("slots")
    with serving(files, slots) as (url, _):
        yield connected(files, url, slots)


@pytest.fixture
def pipe(backend: LlamaServerBackend, pictures: list[Image.Image]) -> AIMPipeline:
    made = AIMPipeline(backend, untrained("residual", backend.vocabulary))
    answers = ("a lynx", "a fox", "two people on the street", "a red car")
    made.bank.add(
        [Demonstration(image, "What is it?", answer) for image, answer in zip(pictures, answers, strict=False)]
    )
    return made


def connected(files: tuple[Path, Path], url: str, slots: Path) -> LlamaServerBackend:
    return LlamaServerBackend.from_pretrained(str(files[0]), url=url, slots=slots, threads=1)


def in_process(pipe: AIMPipeline, image: Image.Image, text: str, shots: int, count: int) -> tuple[int, ...]:
    """The likeliest tokens after the same prompt: the server's own tokens of the texts, the rest as rows."""
    backend: Any = pipe.backend
    local, client = backend._local, backend.injector._client
    before, after = pipe.prompt_format.pieces()[0].format(image=client.marker, text=text).split(client.marker)
    special = local.model.tokens.special_tokens[2]
    parts: list[Any] = [local.model.tokens.opening_ids]
    parts += [entry.fused.embeddings for entry in list(pipe.bank.values())[:shots]]
    lead = 1 if shots else 0  # after a label, a text begins with a blank
    parts += [client.tokens(special * lead + before)[lead:], *local.injector.rows.images.encode([image])]
    parts += [client.tokens(after)]
    with LlamaContext(local.model, 1, 1024, flash=True) as context:
        for part in parts:
            logits = context.run(0, part)
        ids = [int(logits.argmax())]
        while len(ids) < count and ids[-1] not in local.model.tokens.end_ids:
            ids.append(int(context.step(ids[-1:])[0].argmax()))
    return tuple(ids)


@pytest.mark.parametrize("shots", [0, 1, 2, 4])
def test_answers_are_those_of_the_same_prompt(pipe: AIMPipeline, pictures: list[Image.Image], shots: int) -> None:
    (answer,) = pipe.generate([Query(pictures[6], "What is it?")], shots=shots, selector="first", max_new_tokens=8)
    assert answer.token_ids == in_process(pipe, pictures[6], "What is it?", shots, 8)


def test_a_batch_and_streams(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    queries = [Query(picture, "What is it?") for picture in pictures]
    together = pipe.generate(queries, shots=3, max_new_tokens=6)
    alone = [pipe.generate([query], shots=3, max_new_tokens=6)[0] for query in queries]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    streamed = ["".join(pipe.stream(query, shots=3, max_new_tokens=6)) for query in queries]
    for text, one in zip(streamed, alone, strict=True):  # the server keeps back a character that is cut
        assert one.text.startswith(text)
        assert text == one.text or "\ufffd" in one.text[len(text) :]


def test_more_contexts_than_files(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    """Each query of a batch has demonstrations of its own: a file that is gone is written again."""
    queries = [Query(pictures[n % 8].rotate(n), f"What is number {n}?") for n in range(40)]
    own = [[Demonstration(pictures[n % 8].rotate(n + 1), f"What is it, {n}?", f"thing {n}")] for n in range(40)]
    shown = [pipe.encoder.encode(one) for one in own]
    injector: Any = pipe.backend.injector
    asked: dict[str, Any] = {"prompt_format": pipe.prompt_format, "max_new_tokens": 2}
    together = injector.generate(queries, shown, **asked)
    alone = [injector.generate([query], [one], **asked)[0] for query, one in zip(queries, shown, strict=True)]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_text_only_and_interleaved(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    """Texts alone are fused tokens too: their embeddings."""
    query = Query(pictures[7], "What is it?")
    for mode in ("text-only", "interleaved", "zero-shot"):
        (answer,) = pipe.generate([query], demonstrations=demonstrations(pictures), mode=mode, max_new_tokens=4)
        assert answer.token_ids
    with pytest.raises(CapabilityError, match=r"llama\.cpp"):
        pipe.score(query, ["a fox"], shots=1)
    with pytest.raises(CapabilityError, match=r"llama\.cpp"):
        pipe.generate([query], shots=1, log_probs=True)


def demonstrations(pictures: Sequence[Image.Image]) -> list[Demonstration]:
    return [Demonstration(pictures[0], "What is it?", "a lynx"), Demonstration(pictures[1], "What is it?", "a fox")]


@pytest.mark.parametrize("times", [1, 2, 3, 9])
def test_a_slot_that_others_use(
    pipe: AIMPipeline, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Between restoring and asking, somebody asks something else, or restores as many other fused tokens."""
    injector: Any = pipe.backend.injector
    client, left = injector._client, [times]
    (expected,) = pipe.generate([Query(pictures[5], "What is it?")], shots=2, selector="first", max_new_tokens=4)
    entries = list(pipe.bank.values())
    swapped = injector._files.of(
        pipe.backend.reader._model.tokens.opening_ids,
        torch.cat([entries[1].fused.embeddings, entries[0].fused.embeddings]),
    )
    injector._files.write(swapped)
    complete = client.complete

    def meddled(body: dict[str, Any]) -> dict[str, Any]:
        if left[0]:
            left[0] -= 1
            if times == 1:
                complete({"prompt": "Something else, and long enough.", "n_predict": 1, "id_slot": 0})
            else:
                client.restore(0, swapped.name)
        return complete(body)

    monkeypatch.setattr(client, "complete", meddled)
    ask = Query(pictures[5], "What is it?")
    if times < 3:
        (answer,) = pipe.generate([ask], shots=2, selector="first", max_new_tokens=4)
        assert answer.token_ids == expected.token_ids
    else:
        with pytest.raises(BackendError, match="somebody else uses the server's slots"):
            pipe.generate([ask], shots=2, selector="first", max_new_tokens=4)


def test_files_are_few_and_whole(pipe: AIMPipeline, backend: LlamaServerBackend) -> None:
    folder = backend.injector._files._folder
    opening = backend._local.model.tokens.opening_ids
    rows = backend.vocabulary.inputs
    files = [backend.injector._files.of(opening, rows[n : n + 3]) for n in range(40)]
    for file in files:
        backend.injector._files.write(file)
    names = [file.name for file in files]
    assert len(set(names)) == 40
    there = {path.name for path in folder.iterdir()}
    assert len(there) == 32
    assert names[-1] in there
    assert not any(name.endswith(".tmp") for name in there)


def test_servers_that_cannot(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="url="):
        LlamaServerBackend.from_pretrained(str(files[0]))
    with pytest.raises(InputError, match="no folder"):
        LlamaServerBackend.from_pretrained(str(files[0]), url="http://127.0.0.1:9", slots=tmp_path / "none")
    with pytest.raises(BackendError, match="does not answer"):
        connected(files, "http://127.0.0.1:9", tmp_path)
    with serving(files, "") as (url, _), pytest.raises(BackendError, match="--slot-save-path FOLDER"):
        connected(files, url, tmp_path)
    with serving(files, tmp_path, parallel=2) as (url, _), pytest.raises(BackendError, match=r"--parallel 1 or\s+--kv"):
        connected(files, url, tmp_path)


def test_a_server_that_ends(files: tuple[Path, Path], tmp_path: Path, pictures: list[Image.Image]) -> None:
    with serving(files, tmp_path) as (url, process):
        backend = connected(files, url, tmp_path)
        pipe = AIMPipeline(backend, untrained("residual", backend.vocabulary))
        pipe.bank.add(demonstrations(pictures))
        assert pipe.generate([Query(pictures[4], "What?")], shots=2, max_new_tokens=2)
        process.kill()
        process.wait()
        with pytest.raises(BackendError, match="start llama-server there"):
            pipe.generate([Query(pictures[4], "What?")], shots=2, max_new_tokens=2)


def test_a_server_of_another_model(
    backend: LlamaServerBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of its vocabulary is missing."""
    monkeypatch.setitem(backend.injector._client.meta, "n_params", 1)
    from aim_backends.llamacpp import server_backend

    with pytest.raises(UnsupportedModelError, match="runs another model"):
        server_backend._check_same(backend._local, backend.injector._client)
