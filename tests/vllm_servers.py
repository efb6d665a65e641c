"""Real vLLM servers for tests, from an environment of their own: `.ci/vllm FOLDER` makes it; AIM_VLLM names it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor

from aim_sdk.testing.tiny import build
from aim_sdk.testing.tiny.common import name_as_on_the_hub, save

VLLM = os.environ.get("AIM_VLLM")
FLAGS = ("--enable-prompt-embeds", "--trust-request-chat-template")


def needs_vllm() -> pytest.MarkDecorator:
    return pytest.mark.skipif(VLLM is None, reason="AIM_VLLM names no environment with vLLM")


def build_served(variant: str, folder: Path) -> Path:
    """A tiny model whose heads have 32 dimensions, as vLLM's kernels for CPUs need, with the weights' names of the hub.

    It never says a token that no tokenizer knows: vLLM 0.32 ends when it is to name one with its log-probability.
    """
    build(variant, folder)
    config = AutoConfig.from_pretrained(folder)
    text = config.text_config
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads = 64, 2, 1
    if hasattr(text, "head_dim"):
        text.head_dim = 32
    if hasattr(config.vision_config, "out_hidden_size"):
        config.vision_config.out_hidden_size = 64
    if "mrope_section" in text.rope_parameters:
        text.rope_parameters["mrope_section"] = [8, 4, 4]
    processor = AutoProcessor.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save(folder, getattr(transformers, config.architectures[0])(config), processor)
    file = folder / "model.safetensors"
    weights = load_file(file)
    (head,) = (name for name in weights if name.endswith("lm_head.weight"))
    weights[head][len(processor.tokenizer) :] = 0
    save_file(weights, file, metadata={"format": "pt"})
    name_as_on_the_hub(folder)
    return folder


@contextmanager
def serving(model: Path, *flags: str, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server in float32 on the CPU, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert VLLM is not None
    command = [
        str(Path(VLLM) / "bin" / "python"),
        *("-m", "vllm.entrypoints.openai.api_server"),  # the CPU wheel's own command fails: it looks for another name
        *("--model", str(model)),
        *("--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        *("--max-num-seqs", "16", "--limit-mm-per-prompt", '{"image": 9}', *flags),
    ]
    chosen = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    left_out = ("PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | chosen
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url, process
    finally:
        end_server(process)


def end_server(process: subprocess.Popen[bytes]) -> None:
    """Kill a server with the processes of its engine."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session
    process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
