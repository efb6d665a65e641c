"""What a vLLM server must be able to do, found out before the first query."""

from __future__ import annotations

import math
import warnings
from typing import Final

import torch
from PIL import Image

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.backend import TransformersBackend
from aim_backends.vllm.client import VllmClient
from aim_backends.vllm.prompts import ServerPrompts
from aim_sdk.errors import BackendError, InputError, UnsupportedModelError
from aim_sdk.types import FusedTokens, Query

_APART: Final = 0.5
"""Nats that precision and quantisation may change."""
_SURE: Final = 0.5
"""A probability that a token has which is not the likeliest by chance alone."""
_COMMAND: Final = "vllm serve MODEL --enable-prompt-embeds --trust-request-chat-template"
_ADVICE: Final = (
    ("--enable-prompt-embeds", f"start it as `{_COMMAND}`"),
    ("trust-request-chat-template", f"start it as `{_COMMAND}`"),
    ("Unsupported chat content part type", "a newer vLLM: 0.32 takes embeddings in chats"),
    ("hidden_size", "model=<the checkpoint that the server runs>"),
    ("prompt replacement", "model=<the checkpoint that the server runs>"),
    ("encoder cache", "a server with a larger --max-num-batched-tokens"),
)
"""What is in a refusal, and what to do."""


def check_server(client: VllmClient, prompts: ServerPrompts, reads: TransformersBackend | None) -> None:
    """Ask it for one token after a fused token and an image.

    Warns if ``reads``, the same checkpoint in this process, says something else: other weights. How much quantisation
    changes is not known, so it is no error.

    Raises:
        UnsupportedModelError: it runs another model, or one that it cannot serve so.
        BackendError: it lacks an option; the message names it.
    """
    check_family(prompts.backbone)
    if client.adapters:
        raise UnsupportedModelError(
            f"{client.url} serves LoRA adapters ({', '.join(client.adapters)}): vLLM may crash on embeddings then.\n"
            "Next: a server of the merged checkpoint, without --lora-modules."
        )
    backbone = prompts.backbone
    query, fused = Query(Image.new("RGB", (64, 64), "gray"), "What is it?"), torch.zeros(1, backbone.embedding_size)
    context, form = [FusedTokens(fused)], backbone.default_format
    (prompt,) = prompts.write([query], [context], form, 1)
    body = {"max_tokens": 1, "temperature": 0.0, "return_token_ids": True, "logprobs": True}
    try:
        found = client.complete(prompt.body | body)
    except (InputError, BackendError) as error:
        said = str(error)
        advice = next((next_ for words, next_ in _ADVICE if words in said), None)
        runs = f"{client.url} runs {client.root!r}: {said}"
        raise BackendError(f"{runs}\nNext: {advice}." if advice else runs) from error
    ids = found.get("prompt_token_ids")
    if ids is None or tuple(ids) != prompt.ids:
        raise UnsupportedModelError(
            f"{client.url} runs {client.root!r} and makes other tokens of a prompt than {backbone.source!r} does "
            f"({ids} instead of {list(prompt.ids)}).\nNext: model=<the checkpoint that the server runs>."
        )
    if reads is not None:
        (ours,) = reads.injector.generate([query], [context], prompt_format=form, max_new_tokens=1, log_probs=True)
        (choice,) = found["choices"]
        theirs = (choice["token_ids"][0], choice["logprobs"]["content"][0]["logprob"])
        if not _alike((ours.token_ids[0], (ours.log_probs or (0.0,))[0]), theirs):
            warnings.warn(
                f"{client.url} ({client.root!r}) answers a test prompt otherwise than {backbone.source!r} does here: "
                "does it run the same weights? What is read here fits these weights alone.",
                stacklevel=4,
            )


def _alike(ours: tuple[int, float], theirs: tuple[int, float]) -> bool:
    """Whether the likeliest tokens and their log-probabilities may be those of the same weights."""
    if ours[0] == theirs[0]:
        return abs(ours[1] - theirs[1]) < _APART
    return max(ours[1], theirs[1]) < math.log(_SURE)


def check_family(backbone: Backbone) -> None:
    """Refuse families for which vLLM goes wrong with an image next to embeddings.

    Raises:
        UnsupportedModelError: naming the reason.
    """
    vision = getattr(backbone.model.config, "vision_config", None)
    if getattr(vision, "deepstack_visual_indexes", None):
        raise UnsupportedModelError(
            f"model_type {backbone.model.config.model_type!r} puts visual features into several layers (DeepStack): "
            "vLLM crashes on an image next to embeddings.\nNext: a transformers backend."
        )
    if backbone.cross_attends:
        raise UnsupportedModelError(
            f"model_type {backbone.model.config.model_type!r} sees images through cross-attention, which vLLM does not "
            "serve.\nNext: a transformers backend."
        )
