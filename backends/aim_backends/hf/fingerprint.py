"""What identifies a loaded transformers backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from aim_backends.hf.tap import lm_head
from aim_sdk.backend.hashing import rms, tensor_hash
from aim_sdk.config import Fingerprint
from aim_sdk.files.atomic import expanded
from aim_sdk.support.provenance import versions

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

_EMBEDDING_SAMPLES = 4096


@torch.no_grad()
def fingerprint(name: str, backbone: Backbone, saved: Callable[[], Any] | None = None) -> Fingerprint:
    """Measure a backbone's fingerprint: samples of its weights, its tokenizer, the scale of its embeddings.

    ``name`` is the backend's. ``saved`` gives the model in the dtype of its files. float16 rounds differently from
    float32 and bfloat16, so the samples are taken from that model: an artifact fits whatever dtype the backbone runs
    in.
    """
    rounded = backbone.model.dtype == torch.float16 and not getattr(backbone.model, "is_quantized", False)
    model = saved() if saved and rounded else backbone.model
    module = model.get_input_embeddings()
    places = torch.linspace(0, backbone.rows - 1, min(_EMBEDDING_SAMPLES, backbone.rows)).long()
    embedded = backbone.embed(places.tolist())
    # The matrix itself, if it can be sampled: what Gemma's module makes of it differs between precisions.
    embedding_hash = tensor_hash(module.named_parameters(), _EMBEDDING_SAMPLES) or tensor_hash([("", embedded)])
    assert embedding_hash is not None
    folder = expanded(backbone.source)
    return Fingerprint(
        backend=name,
        model=_printable(folder.resolve().name) if folder.is_dir() else backbone.source,
        revision=getattr(backbone.model.config, "_commit_hash", None),
        weights_hash=tensor_hash(model.named_parameters()),
        embedding_hash=embedding_hash,
        tokenizer_hash=tokenizer_hash(backbone.tokenizer),
        hidden_size=int(lm_head(backbone.model).in_features),
        embedding_size=backbone.embedding_size,
        embedding_rms=rms(embedded),
        libraries=versions("aim-icl", "torch", "transformers"),
    )


def _printable(name: str) -> str:
    """A folder's name may hold bytes that are not text, which a JSON file cannot hold."""
    return name.encode("utf-8", "replace").decode()


def tokenizer_hash(tokenizer: Any) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two are settings of the last call.
    state.pop("padding", None)
    state.pop("truncation", None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
