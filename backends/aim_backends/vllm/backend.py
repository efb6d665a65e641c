"""A vLLM server as the engine, or several that share an address: it answers, and demonstrations are read elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import torch

from aim_backends.auto import AutoBackend
from aim_backends.families.table import adapter_of
from aim_backends.hf import loading
from aim_backends.hf.backbone import Backbone
from aim_backends.hf.backend import TransformersBackend
from aim_backends.hf.fingerprint import tokenizer_hash
from aim_backends.hf.roles import SpecialTokens
from aim_backends.hf.sources import source_of
from aim_backends.vllm.client import TIMEOUT, VllmClient
from aim_backends.vllm.connecting import check_server
from aim_backends.vllm.injector import VllmInjector
from aim_backends.vllm.prompts import ServerPrompts
from aim_backends.vllm.unread import UnreadReader
from aim_sdk.backend.capabilities import AnswersPlainly, HasVocabulary, Interleaves
from aim_sdk.backend.interfaces import Backend
from aim_sdk.backend.reader import DemoReader
from aim_sdk.bank import DemonstrationBank
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import ArtifactError, CapabilityError, InputError
from aim_sdk.files.atomic import expanded
from aim_sdk.projectors.base import Projector
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Demonstration, Query, Vocabulary

_DAY: Final = 86_400
AT_ONCE: Final = 64
"""Requests that a server is sent at the same time."""


class VllmBackend(Backend):
    """Transformers reads, here or on whatever machine wrote the bank; a server on the same checkpoint answers.

    Args:
        backbone: the checkpoint's configuration and processor, with or without weights.
        client: the server.
        reads: the loaded checkpoint; None: nothing can be read.
        bank: the folder of the bank that was read elsewhere, if there is no ``reads``.
        at_once: requests that the server is sent at the same time.

    Raises:
        BackendError: the server does not answer as it has to, or lacks an option; the message names it.
        UnsupportedModelError: the model's family, or the server's model, cannot be served.
        ArtifactError: the bank was read by another checkpoint.
    """

    name = "vllm"

    def __init__(
        self,
        backbone: Backbone,
        client: VllmClient,
        *,
        reads: TransformersBackend | None = None,
        bank: Path | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.backbone, self._reads = backbone, reads
        if reads is not None:
            self._reader: DemoReader = reads.reader
            self._fingerprint, self._dtype = reads.fingerprint, reads.dtype
        else:
            assert bank is not None
            self._reader, self._fingerprint, self._dtype = UnreadReader(bank), _of_bank(bank, backbone), torch.float32
        prompts = ServerPrompts(backbone, client.context_length)
        check_server(client, prompts, reads)
        self._injector = VllmInjector(prompts, client, at_once)

    @classmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        base_url: str | None = None,
        reader: TransformersBackend | str | Path | None = None,
        api_key: str | None = None,
        at_once: int = AT_ONCE,
        timeout: float = TIMEOUT,
        special_tokens: SpecialTokens = "refuse",
        **options: Any,
    ) -> Self:
        """Connect to a server.

        Args:
            model: the checkpoint that the server runs, a hub id or a folder.
            device, dtype: where and in what precision demonstrations are read here.
            base_url: the server's address, or a load balancer's: ``http://127.0.0.1:8000``.
            reader: None loads the checkpoint here with transformers, to read. A loaded backend of the same checkpoint
                is used as it is. The folder of a bank that was read before: no weights are loaded, and nothing else can
                be read.
            api_key: the server's; None: the environment's ``VLLM_API_KEY``, if it is set.
            at_once: requests that it is sent at the same time.
            timeout: seconds that an answer may take.
            special_tokens, **options: those of `TransformersBackend.from_pretrained`.

        Raises:
            (more): see the class and `TransformersBackend.from_pretrained`.
        """
        if base_url is None:
            raise InputError(
                "vllm: expected base_url='http://127.0.0.1:8000', the address of a vLLM server (on the command line "
                "`--option base_url=...`)."
            )
        at_once = whole_number("at_once", at_once, 1)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 1 <= timeout <= _DAY:
            raise InputError(f"timeout={timeout!r}: expected seconds, from 1 to {_DAY:,}.")
        if isinstance(reader, TransformersBackend):
            if model not in (None, reader.backbone.source):
                raise InputError(
                    f"model={model!r}, but reader= was loaded from {reader.backbone.source!r}; leave model out."
                )
        elif not isinstance(reader, str | Path | None):
            raise InputError(
                f"reader={type(reader).__name__}: expected a loaded transformers backend, or the folder of a bank."
            )
        elif model is None:
            raise InputError("vllm: expected model=<the checkpoint that the server runs> (`--model`).")
        elif reader is not None and device is not None:
            raise InputError(f"device={device!r}: nothing is read here, as reader= is a bank. Leave device out.")
        client = VllmClient(base_url, api_key or os.environ.get("VLLM_API_KEY"), timeout)  # before weights are loaded
        if isinstance(reader, str | Path):
            return cls(sketched(model, special_tokens, options), client, bank=expanded(reader), at_once=at_once)
        reads = reader or AutoBackend.from_pretrained(
            model, device=device, dtype=dtype, special_tokens=special_tokens, **options
        )
        return cls(reads.backbone, client, reads=reads, at_once=at_once)

    @property
    def reader(self) -> DemoReader:
        return self._reader

    @property
    def injector(self) -> VllmInjector:
        return self._injector

    @property
    def fingerprint(self) -> Fingerprint:
        return self._fingerprint.model_copy(update={"backend": self.name})

    @property
    def default_format(self) -> PromptFormat:
        return self.backbone.default_format

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def lacks(self) -> dict[type, str]:
        found: dict[type, str] = {}
        if self._reads is None:
            found[HasVocabulary] = found[AnswersPlainly] = (
                "no weights are loaded, as reader= is a bank (a projector for it comes from a folder)"
            )
        if self.most_images == 1:
            found[Interleaves] = f"a prompt of {self.backbone.model.config.model_type!r} holds one image"
        return found

    @property
    def most_images(self) -> int | None:
        return self.backbone.most_images

    @property
    def vocabulary(self) -> Vocabulary:
        return self._loaded().vocabulary

    @property
    def decoder_layers(self) -> int | None:
        return self.backbone.decoder_layers

    def default_projector(self) -> Projector:
        return self._loaded().default_projector()

    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """Of transformers in this process, for the kit to compare with."""
        return self._loaded().plain_answer(
            query,
            prompt_format=prompt_format,
            max_new_tokens=max_new_tokens,
            demonstrations=demonstrations,
            with_images=with_images,
        )

    def _loaded(self) -> TransformersBackend:
        if self._reads is None:
            raise CapabilityError(
                f"vllm: {self.lacks[HasVocabulary]}.\nNext: projector=FOLDER, the saved one that the bank was made "
                "with."
            )
        return self._reads


def sketched(model: str | None, special_tokens: SpecialTokens, options: dict[str, Any]) -> Backbone:
    """A checkpoint without its weights."""
    source = source_of(AutoBackend.name, None, model)
    sketch, processor, _, _ = loading.sketched(AutoBackend.name, source, "cpu", None, options)
    return adapter_of(sketch.config.model_type)(sketch, processor, source, special_tokens)


def _of_bank(folder: Path, backbone: Backbone) -> Fingerprint:
    """The fingerprint of the backbone that a bank was read by.

    Raises:
        ArtifactError: it has another tokenizer or another size.
    """
    with DemonstrationBank.open(folder) as bank:
        made = bank.binding.fingerprint
    ours = (tokenizer_hash(backbone.tokenizer), backbone.embedding_size)
    if (made.tokenizer_hash, made.embedding_size) != ours:
        raise ArtifactError(
            f"{folder}: this bank was read by {made.model!r}, which is another model than {backbone.source!r}.\n"
            f"Next: model=<the checkpoint of {made.model!r}>."
        )
    return made
