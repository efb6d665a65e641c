"""What a backend is made of: from GGUF files, or from the embedded model's packages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer

from aim_backends.llamacpp.context import LlamaContext
from aim_backends.llamacpp.gguf_file import GgufFile
from aim_backends.llamacpp.loaded import LoadedModel, Runtime
from aim_backends.llamacpp.pocket_lora import pocket_adapter
from aim_backends.llamacpp.template import plain_format
from aim_backends.llamacpp.vision import VisionFile
from aim_backends.pocket.backend import MODEL
from aim_backends.pocket.images import ImageEncoder
from aim_backends.pocket.model import DATA, DEFAULT_FORMAT, PocketText, PocketVision
from aim_backends.pocket.weights import LM, located, prepare_weights
from aim_backends.shared.rows import ImageRows
from aim_backends.shared.text import TextModel
from aim_sdk.backend.hashing import rms, tensor_hash
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import UnsupportedModelError
from aim_sdk.support.provenance import versions

POCKET: Final = "pocket"


@dataclass(frozen=True)
class Parts:
    """A backend's parts."""

    model: LoadedModel
    text: TextModel
    images: ImageRows
    default_format: PromptFormat
    fingerprint: Fingerprint
    projector: Path | None = None
    """The folder of a trained one."""


def gguf_parts(path: Path, mmproj: Path, runtime: Runtime) -> Parts:
    """A model with its own tokenizer, template and image encoder."""
    model = LoadedModel(path, runtime, title=path.name)
    _check_embeddings(model)
    images = VisionFile(model, mmproj)
    tokens, embeddings = model.tokens, model.embeddings
    embedding_hash = tensor_hash([("embedding", embeddings)], samples=4096)
    assert embedding_hash is not None
    whole = hashlib.sha256(f"{model.file.sampled()}{GgufFile(model.library, mmproj).sampled()}".encode())
    fingerprint = Fingerprint(
        backend="llama.cpp",
        model=path.name,
        weights_hash=whole.hexdigest(),
        embedding_hash=embedding_hash,
        tokenizer_hash=tokens.digest(),
        hidden_size=model.hidden_size,
        embedding_size=model.hidden_size,
        embedding_rms=rms(embeddings),
        libraries=versions("aim-icl", "xllamacpp", "gguf"),
    )
    written = plain_format(model.file.value("tokenizer.chat_template"), bos=tokens.bos, eos=tokens.eos)
    return Parts(model, tokens, images, written, fingerprint)


def _check_embeddings(model: LoadedModel) -> None:
    """Tokens, and their embeddings out of the file, must give the same logits; Gemma scales the ones alone.

    Raises:
        UnsupportedModelError: they do not, so fused tokens would be read as something else.
    """
    ids = [*model.tokens.opening_ids, *range(3, 9)]
    with LlamaContext(model, 2, len(ids)) as context:
        tokens, rows = context.run(0, ids), context.run(1, model.embed(ids))
    if not torch.allclose(tokens, rows, rtol=1e-2, atol=1e-2 * float(tokens.std())):
        raise UnsupportedModelError(
            f"{model.title}: the model changes the embeddings of tokens before its first layer, as Gemma does, and "
            "llama.cpp does not do so with embeddings that it is given.\n"
            "Next: the backend 'auto', which runs the checkpoint by transformers."
        )


def pocket_parts(runtime: Runtime) -> Parts:
    """The embedded model: its packages' GGUF file, its LoRA, and its images by torch.

    Its identity is that of the backend `pocket`, so projectors and banks are the same for both engines. The GGUF is
    quantised (Q4_1): `pocket` multiplies with what its blocks stand for, llama.cpp with the blocks themselves and with
    activations of 8 bits.
    """
    model = LoadedModel(located(LM), runtime, title="pocket", adapter=pocket_adapter())
    text = PocketText(Tokenizer.from_file(str(prepare_weights().tokenizer)))
    embedding_hash = tensor_hash([("embedding", model.embeddings)], samples=4096)
    assert embedding_hash is not None
    fingerprint = Fingerprint(
        backend="llama.cpp",
        model=MODEL,
        weights_hash=None,
        embedding_hash=embedding_hash,
        tokenizer_hash=text.tokenizer_hash,
        hidden_size=model.hidden_size,
        embedding_size=model.hidden_size,
        embedding_rms=rms(model.embeddings),
        libraries=versions("aim-icl", "xllamacpp", "gguf", "torch", "tokenizers"),
    )
    images = ImageEncoder(PocketVision.load())
    return Parts(model, text, images, DEFAULT_FORMAT, fingerprint, DATA / "projector")
