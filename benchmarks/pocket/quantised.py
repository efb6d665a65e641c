"""``python -m benchmarks.pocket.quantised``: one projector on one backbone in several quantisations, by llama.cpp.

Pocket's language model (its packaged blocks of 4 bits with the LoRA, as torch multiplies with them) is written as GGUF
files of several types. Trials of names are answered by torch and by each file: demonstrations are read by the one that
answers, read by torch and injected into the file, and read from the file and injected into torch. The trials come from
``python -m benchmarks.pocket.trials --n 167``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file

from aim_backends.llamacpp.backend import LlamaCppBackend
from aim_backends.llamacpp.loaded import LoadedModel, Runtime
from aim_backends.llamacpp.pocket_lora import NAMES, turned
from aim_backends.llamacpp.sources import pocket_parts
from aim_backends.pocket.backend import PocketBackend
from aim_backends.pocket.lm import LlamaSpec
from aim_backends.pocket.model import DATA
from aim_backends.pocket.weights import LM, located
from aim_sdk import AIMPipeline, Demonstration, FusedTokens
from aim_sdk.support.progress import advancing
from benchmarks.pocket.table_scores import mean
from benchmarks.pocket.trials import TRIALS
from benchmarks.selection.pools import Asked, pools
from benchmarks.speed.measure import RESULTS, TODAY, write_result

TYPES: Final = ("F16", "Q8_0", "Q5_0", "Q4_0")
SHOTS: Final = 4
TASKS: Final = ("names-of-2", "names-of-4")
TORCH: Final = "torch"
_DISTANCE: Final = "relative distance of fused tokens"


def written(path: Path, kind: str) -> Path:
    """Pocket's language model with its LoRA, every matrix of one type."""
    source, quantisation = gguf.GGUFReader(located(LM)), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    for field in source.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    lora = _lora()
    for tensor in source.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values + lora.get(tensor.name.removesuffix(".weight"), np.float32(0))
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(values, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _lora() -> dict[str, Any]:
    """What the LoRA adds to each matrix, in llama.cpp's order of rows."""
    spec, tensors = LlamaSpec(), load_file(DATA / "lora.safetensors")
    heads, found = {"q_proj": spec.heads, "k_proj": spec.key_value_heads}, {}
    for name, first in tensors.items():
        if name.endswith(".lora_a"):
            _, layer, _, projection, _ = name.split(".")
            added = (tensors[name.removesuffix("a") + "b"].float() @ first.float()).numpy()
            added = turned(added, heads[projection]) if projection in heads else added
            found[f"blk.{layer}.{NAMES[projection]}"] = added
    return found


def loaded(folder: Path) -> dict[str, AIMPipeline]:
    """Torch, and llama.cpp on each file; all with the shipped projector."""
    runtime = Runtime(torch.float16, 0, torch.get_num_threads())
    parts = pocket_parts(runtime)
    made = {TORCH: AIMPipeline(PocketBackend.from_pretrained(device="cpu"))}
    for kind in TYPES:
        file = written(folder / f"{kind}.gguf", kind)
        made[kind] = AIMPipeline(LlamaCppBackend(replace(parts, model=LoadedModel(file, runtime, title=kind))))
    return made


def _right(pipe: AIMPipeline, asked: Asked, context: Sequence[FusedTokens]) -> float:
    scores = pipe.backend.injector.score(asked.query, context, asked.choices, prompt_format=pipe.prompt_format)
    totals = [sum(row) for row in scores]
    return float(totals.index(max(totals)) == asked.right)


def trial(pipes: dict[str, AIMPipeline], shown: Sequence[Demonstration], asked: Asked) -> dict[str, float]:
    """Whether each row's likeliest answer is right."""
    fused = {name: pipe.encoder.encode(shown) for name, pipe in pipes.items()}
    texts = {
        name: pipe.backend.reader.text_only(shown, prompt_format=pipe.prompt_format) for name, pipe in pipes.items()
    }
    found = {}
    for name, pipe in pipes.items():
        found[f"text-only, {name}"] = _right(pipe, asked, texts[name])
        found[f"read and answered by {name}"] = _right(pipe, asked, fused[name])
        if name != TORCH:
            found[f"read by {TORCH}, answered by {name}"] = _right(pipe, asked, fused[TORCH])
            found[f"read by {name}, answered by {TORCH}"] = _right(pipes[TORCH], asked, fused[name])
            pairs = zip(fused[name], fused[TORCH], strict=True)
            apart = [float((one.embeddings - two.embeddings).norm() / two.embeddings.norm()) for one, two in pairs]
            found[f"{_DISTANCE}, {name}"] = statistics.fmean(apart)
    return found


def _minus(values: dict[tuple[str, str], float], base: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {one: values[one] - base[one] for one in values}


def _estimate(values: dict[tuple[str, str], float]) -> dict[str, Any]:
    found = mean(values)
    assert found is not None
    return found.as_json()


def main() -> None:
    """Ask, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each of three seeds and each task")
    options = parser.parse_args()
    rows: dict[str, dict[tuple[str, str], float]] = {}
    with tempfile.TemporaryDirectory() as folder, advancing("trials", 3 * len(TASKS) * options.trials) as advance:
        pipes = loaded(Path(folder))
        for task in TASKS:
            for pool in pools(
                str(TRIALS / task), data=Path("data"), numbers=range(options.trials), seeds=(1, 2, 3), size=SHOTS
            ):
                for name, value in trial(pipes, pool.demonstrations[:SHOTS], pool.asked[0]).items():
                    rows.setdefault(name, {})[task, pool.name] = value
                advance(1)
    base = rows[f"read and answered by {TORCH}"]
    content = {
        "what": f"right answers of pocket on trials of names, k={SHOTS}, by quantisation; differences are paired",
        "command": "python -m benchmarks.pocket.quantised",
        "tasks": TASKS,
        "n": len(base),
        "rows": {
            name: _estimate(values)
            | ({} if name.startswith(_DISTANCE) else {"minus_torch": _estimate(_minus(values, base))})
            for name, values in rows.items()
        },
    }
    for name, row in content["rows"].items():  # type: ignore[attr-defined]
        print(f"{name:45} {row}")
    packages = ["gguf", "xllamacpp"]
    print(write_result("quantised", content, packages=packages, path=RESULTS / f"pocket-quantised-{TODAY}.json"))


if __name__ == "__main__":
    main()
