"""An unmodified llama-server as the engine: it answers; demonstrations are read in this process, by the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from aim_backends.llamacpp.backend import LlamaCppBackend
from aim_backends.llamacpp.reader import LlamaCppReader
from aim_backends.llamacpp.server_client import ServerClient
from aim_backends.llamacpp.server_injector import ServerInjector
from aim_backends.llamacpp.slots import SlotFiles
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import InputError, UnsupportedModelError
from aim_sdk.files.atomic import expanded
from aim_sdk.projectors.base import Projector
from aim_sdk.types import Vocabulary


class LlamaServerBackend(Backend):
    """llama.cpp in this process reads; a server on the same GGUF file answers."""

    name = "llama-server"

    def __init__(self, local: LlamaCppBackend, client: ServerClient, slots: Path) -> None:
        self._local = local
        files = SlotFiles(local.model, client, slots)
        self._injector = ServerInjector(local.model, local.injector.rows, client, files)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        url: str | None = None,
        slots: str | Path | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> Self:
        """Connect to a server.

        Args:
            model: the GGUF file that the server runs.
            device: see `LlamaCppBackend.from_pretrained`.
            dtype: of keys and values, as the server keeps them; None: float16, which is a server's default.
            url: the server's address, ``http://127.0.0.1:8080``.
            slots: the folder of its ``--slot-save-path``, as this process sees it.
            api_key: of the server.
            **options: those of `LlamaCppBackend.from_pretrained`.

        Raises:
            BackendError: there is no server, or it restores no slots.
            UnsupportedModelError: it runs another model.
        """
        if url is None or slots is None:
            raise InputError(
                "llama-server: expected url='http://127.0.0.1:8080' and slots=FOLDER, the folder of the server's "
                "--slot-save-path."
            )
        folder = expanded(slots)
        if not folder.is_dir():
            raise InputError(f"slots: {folder} is no folder. Expected the one of the server's --slot-save-path.")
        client = ServerClient(url, api_key)
        local = LlamaCppBackend.from_pretrained(model, device=device, dtype=dtype, **options)
        _check_same(local, client)
        return cls(local, client, folder)

    @property
    def reader(self) -> LlamaCppReader:
        return self._local.reader

    @property
    def injector(self) -> ServerInjector:
        return self._injector

    @property
    def fingerprint(self) -> Fingerprint:
        return self._local.fingerprint

    @property
    def default_format(self) -> PromptFormat:
        return self._local.default_format

    @property
    def device(self) -> torch.device:
        return self._local.device

    @property
    def dtype(self) -> torch.dtype:
        return self._local.dtype

    @property
    def vocabulary(self) -> Vocabulary:
        return self._local.vocabulary

    @property
    def decoder_layers(self) -> int:
        return self._local.decoder_layers

    @property
    def most_images(self) -> None:
        return None

    def default_projector(self) -> Projector:
        return self._local.default_projector()


def _check_same(local: LlamaCppBackend, client: ServerClient) -> None:
    """Raises: UnsupportedModelError: the server's model is not the file that is loaded here."""
    library, model = local.model.library, local.model
    ours = {
        "n_embd": model.hidden_size,
        "n_vocab": model.vocabulary_size,
        "n_params": int(library.llama_model_n_params(model.pointer)),
    }
    theirs = {name: client.meta.get(name) for name in ours}
    if theirs != ours:
        raise UnsupportedModelError(
            f"{client.url} runs another model than {model.title}: {theirs}, expected {ours}.\n"
            "Next: model=FILE, the file that the server runs."
        )
    if not client.sees:
        raise UnsupportedModelError(f"{client.url} takes no images. Next: start it with --mmproj FILE.")
