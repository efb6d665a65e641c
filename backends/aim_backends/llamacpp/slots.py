"""Fused tokens for an unmodified llama-server: their keys and values in a slot file, under labels that only they have.

A server takes tokens, no embeddings. But a slot can be restored from a file that holds keys and values and a token for
each position, and a prompt that begins with these tokens continues from there. So the tokens are labels. They are
special tokens, drawn by the content that they stand for, so that another context never looks the same.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from aim_backends.llamacpp.context import LlamaContext
from aim_backends.llamacpp.loaded import LoadedModel
from aim_backends.llamacpp.server_client import ServerClient
from aim_sdk.errors import ArtifactWriteError, BackendError, InputError
from aim_sdk.files.atomic import writing

_PREFIX: Final = "aim-"
_FILES: Final = 32
"""Files that are kept: the latest."""
_LABELS: Final = 8
"""Tokens that labels are drawn from, at most."""


@dataclass(frozen=True, eq=False)
class SlotFile:
    """Keys and values on disk, and what they are made of."""

    name: str
    labels: tuple[int, ...]
    """A token for each position, BOS first."""
    text: str
    """The labels without BOS, as a prompt begins with them."""
    rows: Float[Tensor, "positions embed"]
    """What stands at the positions."""
    flash: bool
    """How keys and values are laid out."""


class SlotFiles:
    """Writes the files of one server.

    Args:
        model: the server's model, loaded here too.
        client: the server.
        folder: its ``--slot-save-path``, as this process sees it.

    Raises:
        BackendError: the server does not take back what is written for it.
    """

    def __init__(self, model: LoadedModel, client: ServerClient, folder: Path) -> None:
        self._model, self._folder = model, folder
        self._labels = self._usable(client)
        self._flash = self._laid_out(client)

    def of(self, opening: Sequence[int], rows: Tensor) -> SlotFile:
        """The file of BOS and what comes after it; it may not be there yet.

        Args:
            opening: the tokens before, BOS first.
            rows: embeddings ``(tokens, embed)``.
        """
        return self._of(opening, rows, self._flash)

    def write(self, file: SlotFile) -> None:
        """Write a file, if it is not there.

        Raises:
            ArtifactWriteError: it cannot be written.
        """
        path = self._folder / file.name
        try:
            os.utime(path)  # it was used now
            return
        except FileNotFoundError:
            temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
        with writing(path):
            try:
                with LlamaContext(self._model, 1, len(file.rows), flash=file.flash) as context:
                    context.run(0, file.rows)
                    context.save(0, temporary, file.labels)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            files = sorted(self._folder.glob(f"{_PREFIX}*.bin"), key=lambda one: one.stat().st_mtime)
            for old in files[:-_FILES]:
                old.unlink(missing_ok=True)

    def _of(self, opening: Sequence[int], rows: Tensor, flash: bool) -> SlotFile:
        bos = self._model.tokens.opening_ids
        whole = torch.cat([self._model.embed(opening), rows])
        digest = hashlib.sha256(f"{tuple(whole.shape)} {flash} {self._model.runtime.dtype} ".encode())
        digest.update(whole.contiguous().numpy().tobytes())
        draw = random.Random(digest.digest())
        labels = [draw.choice(list(self._labels)) for _ in range(len(whole) - len(bos))]
        name = f"{_PREFIX}{digest.hexdigest()[:32]}.bin"
        return SlotFile(name, (*bos, *labels), "".join(self._labels[one] for one in labels), whole, flash)

    def _usable(self, client: ServerClient) -> dict[int, str]:
        """Special tokens that the server reads as themselves, alone and side by side."""
        tokens = self._model.tokens
        found: dict[int, str] = {}
        for token, text in tokens.special_tokens.items():
            if len(found) < _LABELS and text and client.tokens(text * 2) == [token] * 2:
                found[token] = text
        if len(found) < 2:
            raise BackendError(
                f"{client.url}: its tokenizer has {len(found)} special tokens that can be labels; expected 2 at least. "
                "Next: the backend 'llama.cpp', which needs none."
            )
        return found

    def _laid_out(self, client: ServerClient) -> bool:
        """How the server lays keys and values out: with flash attention, or without.

        Raises:
            BackendError: it takes neither.
        """
        said = ""
        for flash in (True, False):
            try:
                file = self._of(self._model.tokens.opening_ids, self._model.embeddings[:4], flash)
                self.write(file)
                if client.restore(0, file.name) == len(file.rows):
                    return flash
            except (InputError, BackendError, ArtifactWriteError) as error:
                said = str(error)
        raise BackendError(
            f"{client.url} does not restore a slot from {self._folder}.\n{said}\n"
            "Next: start it with --slot-save-path FOLDER, and pass slots=FOLDER (the same one, as it is seen "
            "here); with --parallel 1 or --kv-unified; with keys and values of 16 bits (its default), or "
            "dtype='float32' if it has --cache-type-k f32 --cache-type-v f32."
        )
