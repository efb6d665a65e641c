"""What the service costs on top of the pipeline: requests per second and latencies over concurrency, and its memory.

The service runs as it is deployed, its clients in a process of their own. *In process* is the same work on the same
requests without HTTP, in the thread that has the backbone: messages, base64, choice from the bank, answers in batches
as large as the concurrency (up to the service's 16). Rounds of both are timed in turns. For memory, a tiny model
answers 10,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx2
import matplotlib.pyplot as plt
import numpy as np
import psutil
import torch
import uvicorn

from aim_sdk import AIMPipeline
from aim_sdk.chat.options import ChatOptions
from aim_sdk.chat.prompts import answered
from aim_sdk.serving.app import app_of
from aim_sdk.serving.keys import Keys
from aim_sdk.serving.service import Service
from aim_sdk.serving.settings import ServeSettings
from aim_sdk.serving.worker import Call
from aim_sdk.testing.tiny import build
from benchmarks.speed.latency import images
from benchmarks.speed.measure import ASSETS, write_result

CONCURRENCY: Final = (1, 2, 4, 8, 16, 32, 64)
BATCH: Final = 16
SHOTS: Final = 4
_NAMES: Final = (
    "cat",
    "dog",
    "fox",
    "owl",
    "bee",
    "ant",
    "cow",
    "pig",
    "hen",
    "rat",
    "bat",
    "elk",
    "emu",
    "yak",
    "ape",
    "eel",
)


def bodies(model: str, max_tokens: int) -> Iterator[dict[str, Any]]:
    """Requests with pictures that nobody has seen."""
    for picture in images():
        file = io.BytesIO()
        picture.save(file, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "What is it?"}]
        messages = [{"role": "user", "content": content}]
        yield {"model": f"{model}:names", "messages": messages, "max_tokens": max_tokens, "shots": SHOTS}


@contextmanager
def service(pipe: AIMPipeline, folder: Path) -> Iterator[tuple[Service, str]]:
    """A service with a bank of 16 demonstrations."""
    made = Service(pipe, ServeSettings(banks=folder, batch=BATCH), Keys(None))
    server = uvicorn.Server(uvicorn.Config(app_of(made), port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    httpx2.post(f"{url}/v1/banks", json={"name": "names"})
    shown = [
        {"image": body["messages"][0]["content"][0]["image_url"]["url"], "text": "What is it?", "answer": f"a {name}"}
        for name, body in zip(_NAMES, islice(bodies("", 1), 1000, None), strict=False)
    ]
    httpx2.post(f"{url}/v1/banks/names/demonstrations", json={"demonstrations": shown}, timeout=120).raise_for_status()
    try:
        yield made, url
    finally:
        server.should_exit = True
        thread.join()


class Clients:
    """A process that asks, so many requests at once."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.serving", "--clients", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, asked: Sequence[Mapping[str, Any]], concurrency: int) -> dict[str, Any]:
        """Seconds of all, and of each to its first byte and its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"asked": asked, "concurrency": concurrency}) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


async def ask_from_here(url: str) -> None:
    """What the process of `Clients` does: a line of requests in, a line of times out."""
    limits = httpx2.Limits(max_connections=64)
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        for line in sys.stdin:
            order = json.loads(line)
            free, times = asyncio.Semaphore(order["concurrency"]), []

            async def one(body: Any, free: asyncio.Semaphore = free, times: list[Any] = times) -> None:
                async with free:
                    began, first = time.perf_counter(), 0.0
                    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                        async for _ in answer.aiter_bytes():
                            first = first or time.perf_counter() - began
                        assert answer.status_code == 200
                    times.append((first, time.perf_counter() - began))

            began = time.perf_counter()
            await asyncio.gather(*(one(body) for body in order["asked"]))
            seconds = time.perf_counter() - began
            print(
                json.dumps({"seconds": seconds, "first": [a for a, _ in times], "end": [b for _, b in times]}),
                flush=True,
            )


def in_process(made: Service, asked: Sequence[Mapping[str, Any]], batch: int) -> float:
    """Seconds of the same work without HTTP."""
    chat = made.banks.chat(made.banks.bank("names"), "anyone")
    options = ChatOptions(max_tokens=asked[0]["max_tokens"], shots=SHOTS)
    began = time.perf_counter()
    for start in range(0, len(asked), batch):
        group = [chat.asked(body["messages"], options) for body in asked[start : start + batch]]
        for one in answered(chat.prompts(group), batch):
            if isinstance(one, Exception):
                raise one
    return time.perf_counter() - began


def throughput(requests: int, rounds: int, concurrency: Sequence[int]) -> list[dict[str, Any]]:
    """Requests per second and latencies by concurrency, and the ratio to the same work in process."""
    pipe, found = AIMPipeline.from_pretrained("pocket", device="cpu"), []
    with tempfile.TemporaryDirectory() as folder, service(pipe, Path(folder)) as (made, url):
        clients, source = Clients(url), bodies("pocket", 8)
        for at_once in concurrency:
            count = max(requests, at_once)
            over, whole, first, end = list[float](), list[float](), list[float](), list[float]()
            clients.ask(list(islice(source, at_once)), at_once)  # warm
            for _ in range(rounds):
                asked = list(islice(source, count))
                made.worker.submit(work := Call(partial(in_process, made, asked, min(BATCH, at_once))))
                alone = work.done.result()
                times = clients.ask(asked, at_once)
                over.append(alone / times["seconds"])
                whole.append(count / times["seconds"])
                end += times["end"]
                streams = [{**body, "stream": True} for body in islice(source, at_once)]
                first += clients.ask(streams, at_once)["first"]
            row = {
                "concurrency": at_once,
                "requests": count * rounds,
                "requests_per_second": round(float(np.median(whole)), 3),
                "of_in_process": [round(float(q), 3) for q in np.quantile(over, [0.25, 0.5, 0.75])],
                "seconds_p50": round(float(np.quantile(end, 0.5)), 3),
                "seconds_p99": round(float(np.quantile(end, 0.99)), 3),
                "first_piece_p50": round(float(np.quantile(first, 0.5)), 3),
                "first_piece_p99": round(float(np.quantile(first, 0.99)), 3),
            }
            print(row, flush=True)
            found.append(row)
        clients.close()
    return found


def memory(requests: int) -> list[dict[str, float]]:
    """Resident memory of the service after parts of so many requests, answered by a tiny model."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = build("llava-1.5", Path(folder) / "model")
        pipe = AIMPipeline.from_pretrained("llava", model=model, projector="residual", device="cpu")
        with service(pipe, Path(folder) / "banks") as (_, url):
            clients, source, found = Clients(url), bodies("llava", 2), []
            for part in range(11):
                count = requests // 10 if part else requests // 20  # the first one warms
                clients.ask(list(islice(source, count)), 16)
                mib = psutil.Process().memory_info().rss / 2**20
                found.append({"requests": part * (requests // 10), "resident_mib": round(mib, 1)})
                print(found[-1], flush=True)
            clients.close()
    return found


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Latencies, and the share of the in-process throughput, over concurrency."""
    at_once = [row["concurrency"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, label in (
        ("seconds_p50", "whole answer, median"),
        ("seconds_p99", "whole answer, 99 of 100"),
        ("first_piece_p50", "first piece, median"),
    ):
        left.plot(at_once, [row[name] for row in rows], marker="o", label=label)
    left.set(xscale="log", yscale="log", xlabel="requests at once", ylabel="seconds")
    left.legend(frameon=False)
    low, middle, high = zip(*(row["of_in_process"] for row in rows), strict=True)
    right.fill_between(at_once, low, high, alpha=0.2)
    right.plot(at_once, middle, marker="o")
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xscale="log", ylim=(0, 1.2), xlabel="requests at once", ylabel="throughput / in process")
    for axes in (left, right):
        axes.minorticks_off()
        axes.set_xticks(at_once, [str(one) for one in at_once])
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and write the result and its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=48, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCY))
    parser.add_argument("--memory", type=int, default=10_000, help="requests; 0: not measured")
    parser.add_argument("--plot", type=Path, metavar="RESULT", help="only plot a result again")
    parser.add_argument("--output", type=Path, help="the result file; default: benchmarks/results")
    arguments = parser.parse_args()
    if arguments.clients:
        asyncio.run(ask_from_here(arguments.clients))
        return
    if arguments.plot:
        plot(json.loads(arguments.plot.read_bytes())["by_concurrency"], ASSETS / "speed-serving.png")
        return
    rows = throughput(arguments.requests, arguments.rounds, arguments.concurrency)
    content = {"shots": SHOTS, "batch": BATCH, "rounds": arguments.rounds, "by_concurrency": rows}
    content["memory"] = memory(arguments.memory) if arguments.memory else []
    path = write_result("serving", content, packages=("fastapi", "uvicorn"), path=arguments.output)
    plot(rows, (ASSETS if arguments.output is None else path.parent) / "speed-serving.png")
    print(path)


if __name__ == "__main__":
    main()
