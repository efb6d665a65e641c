"""``python -m benchmarks.speed.first_token``: time to the first token on an engine that shares prefixes of requests.

One query at a time, with an image of its own, after k demonstrations: by AIM, whose fused tokens are in the bank, and
by interleaved prompting, whose prefixes the engine caches; the list of demonstrations is the same for all queries, or
another one for each. All ways are asked in turns about the same pictures. A server is timed from the request, which is
written before. Keys and values of a request are counted from the configuration.

A vLLM server is started before, on the checkpoint that ``--build FOLDER`` writes (LLaVA-1.5's layout with random
weights, by default small enough for a CPU) or on a real one:

    python -m benchmarks.speed.first_token --build FOLDER
    vllm serve FOLDER --enable-prompt-embeds --trust-request-chat-template --limit-mm-per-prompt '{"image": 33}'
    python -m benchmarks.speed.first_token --backend vllm --model FOLDER --option base_url=http://127.0.0.1:8000

llama.cpp runs in this process: ``--backend llama.cpp --model pocket``.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from PIL import Image
from transformers import AutoProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from aim_backends.vllm.injector import VllmInjector
from aim_sdk import AIMPipeline, Demonstration, FusedTokens, Query
from aim_sdk.backend.capabilities import ForeseesCost
from aim_sdk.backend.registry import get_backend
from aim_sdk.cli.options import of_backend
from aim_sdk.errors import ContextLengthError
from aim_sdk.support import figures
from aim_sdk.testing.tiny import build
from aim_sdk.testing.tiny.common import name_as_on_the_hub
from aim_sdk.types import Context
from benchmarks.speed.latency import images
from benchmarks.speed.measure import ASSETS, RESULTS, TODAY, in_turns, ratio, write_result

POOL: Final = 64
"""Demonstrations of the bank."""
QUESTION: Final = "What is it?"
WARM: Final = 3
"""Queries that fill the caches before the others are timed."""
AIM, INTERLEAVED = "AIM", "interleaved"
OWN, FIXED = "another list for each query", "the same list"
WAYS: Final = tuple((mode, lists) for lists in (FIXED, OWN) for mode in (AIM, INTERLEAVED))
_NAMES: Final = ("cat", "dog", "fox", "owl", "bee", "ant", "cow", "pig")


@dataclass(frozen=True)
class Bench:
    """A pipeline, its demonstrations, and what they become in a prompt."""

    pipe: AIMPipeline
    shown: Sequence[Any]
    """Demonstrations with their images."""
    fused: Sequence[FusedTokens]

    @classmethod
    def of(cls, pipe: AIMPipeline) -> Bench:
        """Read the demonstrations."""
        pictures = images()
        shown = [Demonstration(next(pictures), QUESTION, f"{_NAMES[n % 8]} number {n}") for n in range(POOL)]
        pipe.bank.add(shown, progress=True)
        return cls(pipe, _with_images(pipe, shown), [entry.fused for entry in pipe.bank.values()])

    def variant(self, way: tuple[str, str], k: int, queries: int) -> Callable[[], int]:
        """What is timed: the next picture after k demonstrations; it gives the positions of the prompt.

        What this process does for a server's requests (its own copy of the processor, PNG files) is done before.
        """
        mode, lists = way
        rng = random.Random(f"{k}")  # AIM and interleaved are shown the same ones
        items: Sequence[Any] = self.fused if mode == AIM else self.shown
        asked = []
        for picture in islice(images(), POOL, POOL + queries):
            places = list(range(k)) if lists == FIXED else rng.sample(range(POOL), k)
            asked.append(self._asked(_own(picture, f"{way} {k}"), [items[place] for place in places]))
        left = iter(asked)
        return lambda: next(left)()

    def _asked(self, picture: Image.Image, context: Context) -> Callable[[], int]:
        query, injector, form = Query(picture, QUESTION), self.pipe.backend.injector, self.pipe.prompt_format
        if not isinstance(injector, VllmInjector):

            def here() -> int:
                (made,) = injector.generate([query], [context], prompt_format=form, max_new_tokens=1)
                return made.prompt_tokens

            return here
        (request,) = injector.requests([query], [context], form, 1, {})
        decoding = injector.decoding(form)
        return lambda: injector.answer(request, decoding).prompt_tokens


def _with_images(pipe: AIMPipeline, shown: Sequence[Demonstration]) -> Sequence[Any]:
    """Demonstrations for interleaved prompting: a server keeps their prefixes by what they hold, llama.cpp by keys."""
    rows = getattr(pipe.backend.injector, "rows", None)
    if rows is None:
        return shown
    made = [rows.context([one], pipe.prompt_format)[0] for one in shown]
    return [FusedTokens(one, key=f"interleaved {n}") for n, one in enumerate(made)]


def _own(picture: Image.Image, name: str) -> Image.Image:
    """The picture with a pixel that no other way has: nobody finds it encoded."""
    rng = random.Random(name)
    picture = picture.copy()
    picture.putpixel((0, 0), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
    return picture


def measure(bench: Bench, shots: Sequence[int], queries: int) -> list[dict[str, Any]]:
    """Every way at every k, in turns."""
    cells = []
    footprint = _footprint(bench.pipe)
    for k in shots:
        try:
            variants = {way: bench.variant(way, k, queries + WARM) for way in WAYS}
            tokens = {way: [run() for _ in range(WARM)][-1] for way, run in variants.items()}
        except ContextLengthError as error:
            print(f"k={k} is left out: {str(error).splitlines()[0]}")
            continue
        times = in_turns({str(way): run for way, run in variants.items()}, queries)
        for way in WAYS:
            found, (mode, lists) = times[str(way)], way
            cell: dict[str, Any] = {"mode": mode, "lists": lists, "shots": k, "prompt_tokens": tokens[way]}
            cell |= {"p50_ms": _quantile(found, 50), "p99_ms": _quantile(found, 99)}
            if footprint is not None:
                cell["kv_bytes"] = footprint.kv_bytes(tokens[way], 1 + (k if mode == INTERLEAVED else 0))
            if mode == INTERLEAVED:
                cell["of_aim"] = ratio(found, times[str((AIM, lists))])
            cells.append(cell)
            print(
                f"k={k:<3} {mode:12} {lists:28} p50 {cell['p50_ms']:9.1f} ms  p99 {cell['p99_ms']:9.1f} ms", flush=True
            )
    return cells


def _footprint(pipe: AIMPipeline) -> Any:
    """Counts keys and values: as the backend itself does, or as transformers does for the same checkpoint."""
    if isinstance(pipe.backend, ForeseesCost):
        return pipe.backend.footprint
    kind: Any = get_backend("auto")
    return kind.footprint_of(pipe.backend.backbone.source)  # type: ignore[attr-defined]  # a vLLM server's


def _quantile(times: Sequence[float], percent: int) -> float:
    return round(1e3 * statistics.quantiles(times, n=100, method="inclusive")[percent - 1], 2)


def built(folder: Path, hidden: int, layers: int) -> None:
    """Write a checkpoint of LLaVA-1.5's layout with 576 visual tokens an image and random weights."""
    build("llava-1.5", folder)
    old = LlavaConfig.from_pretrained(folder)
    text = LlamaConfig(
        **{
            **old.text_config.to_dict(),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // 64,
            "num_key_value_heads": hidden // 64,
            "head_dim": 64,
            "max_position_embeddings": 32768,
        }
    )
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=old.image_token_index, image_seq_length=576
    )
    LlavaForConditionalGeneration(config).eval().save_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(folder)
    processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 336}
    processor.image_processor.crop_size = {"height": 336, "width": 336}
    processor.save_pretrained(folder)
    name_as_on_the_hub(folder)


def plot(cells: Sequence[Mapping[str, Any]], shots: Sequence[int]) -> bytes:
    """Both lists side by side; as PNG."""
    figure, panels = figures.panels(2)
    for panel, lists in zip(panels, (FIXED, OWN), strict=True):
        for number, mode in enumerate((AIM, INTERLEAVED)):
            found = [cell for cell in cells if (cell["mode"], cell["lists"]) == (mode, lists)]
            options = {"color": f"C{number}", **figures.style(number).options}
            panel.plot([c["shots"] for c in found], [c["p50_ms"] for c in found], label=f"{mode}, p50", **options)
            panel.plot(
                [c["shots"] for c in found], [c["p99_ms"] for c in found], alpha=0.4, label=f"{mode}, p99", **options
            )
        figures.title(panel, lists)
        figures.shots_axis(panel, list(shots))
        panel.set(ylabel="ms to the first token", yscale="log")
    handles, labels = panels[-1].get_legend_handles_labels()
    figures.legend(figure, dict(zip(labels, handles, strict=True)))
    return figures.png(figure)


def main() -> None:
    """Build a checkpoint, or measure an engine and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="write a checkpoint, and nothing else")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--model")
    parser.add_argument("--option", action="append", metavar="NAME=VALUE", help="one of the backend's own")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--queries", type=int, default=12, help="of each way and k")
    options = parser.parse_args()
    if options.build is not None:
        built(options.build, options.hidden, options.layers)
        return
    projector = None if options.model == "pocket" else "residual"
    pipe = AIMPipeline.from_pretrained(
        options.backend, model=options.model, projector=projector, **of_backend(options.option, trust_remote_code=False)
    )
    cells = measure(Bench.of(pipe), options.shots, options.queries)
    name = f"first-token-{options.backend.replace('.', '')}"
    (ASSETS / f"speed-{name}.png").write_bytes(plot(cells, options.shots))
    content = {
        "backend": options.backend,
        "model": pipe.backend.fingerprint.model,
        "queries": options.queries,
        "command": f"python -m benchmarks.speed.first_token --backend {options.backend} --shots "
        f"{' '.join(map(str, options.shots))} --queries {options.queries}",
        "cells": cells,
    }
    print(write_result(name, content, path=RESULTS / f"speed-{name}-{TODAY}.json"))


if __name__ == "__main__":
    main()
