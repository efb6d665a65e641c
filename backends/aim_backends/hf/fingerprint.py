"""What identifies a loaded transformers backbone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aim_sdk.config import Fingerprint
from aim_sdk.fingerprint import rms, tensor_hash, versions

if TYPE_CHECKING:
    from aim_backends.hf.backend import TransformersBackend

_EMBEDDING_SAMPLES = 4096


@torch.no_grad()
def fingerprint(backend: TransformersBackend, source: str) -> Fingerprint:
    """Measure a backbone's fingerprint: samples of its weights, its tokenizer, the scale of its embeddings."""
    embeddings = backend.input_embeddings
    places = torch.linspace(0, len(embeddings) - 1, min(_EMBEDDING_SAMPLES, len(embeddings))).long()
    # The matrix itself, for what Gemma's module gives differs between precisions; quantised ones have only the latter.
    matrix = backend.model.get_input_embeddings().named_parameters()
    embedding_hash = tensor_hash(matrix, _EMBEDDING_SAMPLES) or tensor_hash([("", embeddings)], _EMBEDDING_SAMPLES)
    assert embedding_hash is not None
    folder = Path(source).expanduser()
    return Fingerprint(
        backend=backend.name,
        model=folder.resolve().name if folder.is_dir() else source,
        revision=getattr(backend.model.config, "_commit_hash", None),
        weights_hash=tensor_hash(backend.model.named_parameters()),
        embedding_hash=embedding_hash,
        tokenizer_hash=_tokenizer_hash(backend.tokenizer),
        hidden_size=backend.output_embeddings.shape[1],
        embedding_size=backend.embedding_size,
        embedding_rms=rms(embeddings[places.to(embeddings.device)]),
        libraries=versions("aim-icl", "torch", "transformers"),
    )


def _tokenizer_hash(tokenizer: Any) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two are settings of the last call.
    state.pop("padding", None)
    state.pop("truncation", None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
