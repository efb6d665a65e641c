"""The pipelines of a run: one backbone, one projector, and for each task the prompt format that the protocol wants."""

from __future__ import annotations

from accelerate import PartialState

from aim_sdk.evaluation.plan import Work
from aim_sdk.evaluation.settings import EvalSettings
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
        )
        self.backend, self.projector, self._folder = whole.backend, whole.projector, settings.bank
        self._current: tuple[str, AIMPipeline] | None = None

    def of(self, work: Work) -> AIMPipeline:
        """The pipeline of a task. A bank on disk belongs to one prompt format: each task has a folder of its own."""
        name = work.config.name
        if self._current is None or self._current[0] != name:
            if self._current is not None:
                self._current[1].bank.close()
            pipe = AIMPipeline(
                self.backend,
                self.projector,
                prompt_format=work.prompt.format(self.backend.default_format),
                bank=None if self._folder is None else self._folder / name,
            )
            self._current = name, pipe
        return self._current[1]
