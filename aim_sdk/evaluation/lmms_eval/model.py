"""The model that lmms-eval runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.evaluation.lmms_eval.arguments import generation_of, stopped, text_of
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.selection import get_selector
from aim_sdk.types import Mode, Query


class AimModel(lmms):  # type: ignore[misc]
    """Answers lmms-eval's requests behind demonstrations from a bank.

    Args:
        backend: a registered name.
        model, projector, dtype: as in :meth:`aim_sdk.AIMPipeline.from_pretrained`.
        bank: the folder of a bank (``aim-icl bank add``) of this backbone, projector and format; None: zero-shot.
        shots: demonstrations a query; None: all of the bank.
        selector: which ones (:mod:`aim_sdk.selection`); a document's own is never shown to it.
        mode: ``aim``, or a baseline on the same demonstrations.
        template: a plain prompt format; None: the backend's.
        batch_size, device: lmms-eval's own options.
    """

    is_simple = True

    def __init__(
        self,
        backend: str,
        model: str | None = None,
        projector: str | None = None,
        bank: str | None = None,
        shots: int | None = None,
        selector: str = "random",
        mode: Mode = "aim",
        template: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        unknown.pop("max_batch_size", None)  # lmms-eval always passes it
        if unknown:
            raise InputError(f"model aim: no such arguments: {', '.join(unknown)}. See the docstring of {type(self)}.")
        self.accelerator = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._shots, self._selector, self._batch_size = shots, get_selector(selector), int(batch_size)
        self._mode: Mode = mode if bank is not None else "zero-shot"
        self.pipe = AIMPipeline.from_pretrained(
            backend,
            model=model,
            projector=projector,
            bank=bank,
            prompt_format=None if template is None else PromptFormat.plain(template),
            device=str(self.accelerator.device) if self._world_size > 1 else device,
            dtype=dtype,
        )

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer the requests; their answers come in the same order."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(place)
        answers: dict[int, str] = {}
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding") as bar:
            for places in groups.values():
                for start in range(0, len(places), self._batch_size):
                    batch = places[start : start + self._batch_size]
                    answers |= zip(batch, self._answers([requests[place] for place in batch]), strict=True)
                    bar.update(len(batch))
        return [answers[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return each continuation's mean negative log-probability a token, and whether it is the greedy answer.

        lmms-eval's tasks take the *lowest* number as the choice, as its own models return the loss.
        """
        found = []
        for request in tqdm(requests, disable=self.rank != 0, desc="Model Responding"):
            context, target, to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            continuation = target if isinstance(target, str) else target(doc)
            query = self._query(context, to_visual(doc), task, doc_id)
            (mean,) = self.pipe.score(query, [continuation], normalize="tokens", **self._asked())
            (whole,) = self.pipe.score(query, [continuation], **self._asked())
            (greedy,) = self.pipe.generate([query], max_new_tokens=max(1, round(whole / mean)), **self._asked())
            found.append((-mean, greedy.text == continuation.strip()))
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not there: a later round's prompt holds the rounds before it, with their images."""
        raise NotImplementedError("model aim answers single rounds; tasks of several rounds need a model of lmms-eval.")

    def _answers(self, requests: Sequence[Instance]) -> list[str]:
        _, given, *_ = requests[0].args
        options, until = generation_of(given)
        queries = [
            self._query(context, to_visual(self.task_dict[task][split][doc_id]), task, doc_id)
            for context, _, to_visual, doc_id, task, split in (request.args for request in requests)
        ]
        made = self.pipe.generate(queries, batch_size=len(queries), **self._asked(), **options)
        answers = [stopped(answer.text, until) for answer in made]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", (request.args[0], given), answer)
        return answers

    def _asked(self) -> dict[str, Any]:
        return {"shots": self._shots, "selector": self._selector, "mode": self._mode}

    def _query(self, context: str, visuals: Sequence[Any] | None, task: str, doc_id: int) -> Query:
        if not visuals or len(visuals) != 1:
            raise InputError(
                f"task {task}, document {doc_id}: {len(visuals or ())} images; model aim answers questions on one."
            )
        return Query(visuals[0], text_of(context), id=f"{task}/{doc_id}")
