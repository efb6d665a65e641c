"""The pipelines of a run: one backbone, one projector, and for each task the prompt format that the protocol wants."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from aim_sdk.bank.bank import NewBankWarning
from aim_sdk.evaluation.plan import TaskPlan
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.files.atomic import expanded
from aim_sdk.pipeline import AIMPipeline


class Pipelines:
    """Loads the backbone once; holds the pipeline of one task at a time, with its bank."""

    def __init__(self, settings: EvalSettings, state: PartialState) -> None:
        device = settings.device
        if device is None and state.num_processes > 1:
            device = str(state.device)
        whole = AIMPipeline.from_pretrained(
            settings.backend,
            model=settings.model,
            projector=settings.projector,
            device=device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            **settings.backend_options,
        )
        self.backend, self.projector, self._settings = whole.backend, whole.projector, settings
        self._current: tuple[str, AIMPipeline] | None = None

    def of(self, work: TaskPlan) -> AIMPipeline:
        """The pipeline of a task, with the user's bank, or with one of its own (in the cache folder, if there is one).

        Raises:
            FingerprintError: the user's bank was made with another backbone, projector or prompt format.
        """
        name = work.config.name
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._current[1].bank.close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NewBankWarning)  # the cache's
                pipe = AIMPipeline(
                    self.backend,
                    self.projector,
                    prompt_format=work.prompt.format(self.backend.default_format),
                    bank=self._bank(name),
                    prefix_bytes=0 if self._settings.timed else None,  # timing covers the whole prompt
                )
            self._current = name, pipe
        return self._current[1]

    def made_with(self) -> dict[str, Any]:
        """What decides the answers, but only has a name in the settings."""
        made = self.backend.fingerprint
        model = self._settings.model
        by_path = made.weights_hash is None and model is not None and expanded(model).exists()
        return {
            **({"model": str(expanded(str(model)).resolve())} if by_path else {}),
            "weights": made.weights_hash,
            "embeddings": made.embedding_hash,
            "tokenizer": made.tokenizer_hash,
            "projector": self.projector.identity,
            "dtype": str(self.backend.dtype).removeprefix("torch."),
        }

    def computed(self) -> dict[str, str]:
        """The dtype and device that answer, and the prompt format used by protocols that have none of their own."""
        device, form = self.backend.device, self.backend.default_format
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        return {
            "dtype": str(self.backend.dtype).removeprefix("torch."),
            "device": f"{device} ({name})" if name else str(device),
            "default_format": form.template or form.kind,
        }

    def _bank(self, task: str) -> Path | None:
        """A bank belongs to one prompt format: in the cache each task has a folder of its own."""
        bank, cache = self._settings.bank, self._settings.cache
        return bank if bank is not None or cache is None else cache / task
