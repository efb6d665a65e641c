"""The model that lmms-eval runs."""

from __future__ import annotations

import inspect
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.api.task import Task
from lmms_eval.utils import eval_logger
from tqdm import tqdm

from aim_sdk.config import PromptFormat
from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.lmms_eval.arguments import (
    batch_size_of,
    check_bank,
    check_known,
    generation_of,
    stopped,
    text_of,
)
from aim_sdk.evaluation.lmms_eval.few_shot import FewShotArguments
from aim_sdk.evaluation.lmms_eval.likelihood import likelihoods
from aim_sdk.evaluation.lmms_eval.prepared import PreparedTask, prepare
from aim_sdk.evaluation.lmms_eval.sampler import hand_over_tasks
from aim_sdk.evaluation.lmms_eval.split_shots import SplitShots
from aim_sdk.evaluation.lmms_eval.splits import image_file
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.shots import Shots
from aim_sdk.pipeline import AIMPipeline
from aim_sdk.selection.registry import DEFAULT_SELECTOR
from aim_sdk.types import Mode, Query


class AimModel(lmms):  # type: ignore[misc]
    """Answers lmms-eval's requests after demonstrations: of the task's own training split, or of a bank.

    With ``--num_fewshot N`` each query of a task is shown N documents of its training split, or of the bank if one is
    given.

    Args:
        backend: a registered name.
        model, projector, dtype, trust_remote_code: as in `aim_sdk.AIMPipeline.from_pretrained`.
        bank: the folder of a bank (``aim-icl bank add``) of this backbone, projector and format; None: demonstrations
            come from the task's own data, if ``--num_fewshot`` asks for some.
        shots: demonstrations per query; None: ``--num_fewshot``, or without it up to 8 of the bank's, as many as fit
            the context. The two must agree.
        selector: which ones (`aim_sdk.selection`); a document's own is never shown to it.
        fewshot_split: the split that they come from; None: the task's own for it.
        fewshot_answer: the column that holds their answers; None: the task's ``doc_to_target``.
        pool: they are chosen from so many random documents of the split; None: 2048.
        mode: ``aim``, or a baseline on the same demonstrations.
        template: a plain prompt format; None: the backend's.
        batch_size, device: lmms-eval's own options.

    Raises:
        InputError: an argument is unknown or cannot be used.
        ArtifactNotFoundError: no bank is there.
    """

    is_simple = True

    def __init__(
        self,
        backend: str,
        model: str | None = None,
        projector: str | None = None,
        bank: str | None = None,
        shots: int | None = None,
        selector: str = DEFAULT_SELECTOR,
        mode: Mode = "aim",
        fewshot_split: str | None = None,
        fewshot_answer: str | None = None,
        pool: int | None = None,
        template: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int | str = 1,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        unknown.pop("max_batch_size", None)  # lmms-eval always passes it
        check_known(unknown, [name for name in inspect.signature(type(self)).parameters if name != "unknown"])
        check_bank(bank)
        self._few_shot = FewShotArguments(shots, bank, selector, mode, fewshot_split, fewshot_answer, pool)
        self._batch_size = batch_size_of(batch_size)
        self._of_bank = Shots(shots, selector=selector, mode=mode)
        self._tasks: dict[str, PreparedTask] = {}
        self.accelerator = Accelerator()
        # lmms-eval's base class reads both
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.pipe = AIMPipeline.from_pretrained(
            backend,
            model=model,
            projector=projector,
            bank=bank,
            prompt_format=None if template is None else PromptFormat.plain(template),
            device=str(self.accelerator.device) if self._world_size > 1 else device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        if bank is not None and not len(self.pipe.bank):
            raise InputError(f"{bank}: the bank is empty. `aim-icl bank add {bank} demos.jsonl` fills it.")
        hand_over_tasks(self)

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts the tensors that its processes exchange."""
        return torch.device(self.accelerator.device)

    def take(self, task: Task, seed: int | None) -> None:
        """Decide what the queries of a task are shown, and write it into its configuration, which the results hold.

        Raises:
            InputError: what was asked for is not possible with this task.
        """
        prepared = prepare(self._few_shot, task, seed, self.pipe.encoder, show=self.rank == 0)
        self._tasks[task.config.task] = prepared
        if prepared.said and self.rank == 0:
            eval_logger.info(prepared.said)

    def clean(self) -> None:
        """Leave the backbone's memory to the model that judges the answers."""
        self.pipe.bank.close()
        self._tasks.clear()
        del self.pipe
        super().clean()

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer the requests; their answers come in the same order."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            groups[json.dumps([request.task_name, request.args[1]], sort_keys=True)].append(place)
        answers: dict[int, str] = {}
        with self._bar(len(requests)) as bar:
            for places in groups.values():
                for start in range(0, len(places), self._batch_size):
                    batch = places[start : start + self._batch_size]
                    answers |= zip(batch, self._answers([requests[place] for place in batch]), strict=True)
                    bar.update(len(batch))
        return [answers[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Return each continuation's mean negative log-probability per token, and whether it is the greedy answer.

        lmms-eval's tasks choose the *lowest* number, because its own models return the loss. The pair is the ``text``
        of a result: lmms-eval 0.7.3 turns a bare pair into a string, and then fails on it.
        """
        found: list[GenerationResult] = []
        with self._bar(len(requests)) as bar:
            for _, group in groupby(requests, key=lambda request: (request.args[0], *request.args[3:6])):
                choices = list(group)  # of one document: its prompt is computed once
                model, (query,), shots = self._asked(choices[:1])
                pairs = likelihoods(model, query, map(self._continuation, choices), shots)
                found += [GenerationResult(pair) for pair in pairs]
                bar.update(len(choices))
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported: a later round's prompt holds the rounds before it, with their images."""
        raise NotImplementedError(
            "model aim answers single-round tasks only; multi-round tasks need one of lmms-eval's own models."
        )

    def _bar(self, total: int) -> tqdm[Any]:
        return tqdm(total=total, disable=self.rank != 0, desc="Model Responding")

    def _answers(self, requests: Sequence[Instance]) -> list[str]:
        given = requests[0].args[1]
        options, until = generation_of(given)
        model, queries, shots = self._asked(requests)
        made = model.generate(queries, batch_size=len(queries), shots=shots, **options)
        answers = [stopped(answer.text, until) for answer in made]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("generate_until", (request.args[0], given), answer)
        return answers

    def _asked(self, requests: Sequence[Instance]) -> tuple[FewShotModel, list[Query], Shots]:
        """What answers requests of one task, as which queries, and what these are shown."""
        for request in requests:
            if len(request.args) < 6:
                raise InputError(f"task {request.task_name} asks without a document; model aim needs its image.")
        prepared = self._tasks.get(requests[0].args[4])
        if prepared is not None:
            prepared.check()
            if prepared.split is not None:
                return prepared.split.model, *self._with_documents(requests, prepared.split)
        elif self._few_shot.bank is None:
            self._few_shot.check_zero_shot(requests[0].args[4])
        bank = self._few_shot.bank
        shots = prepared.of_bank if prepared else self._of_bank if bank else Shots(mode="zero-shot")
        return self.pipe, [self._query(request) for request in requests], shots

    def _with_documents(self, requests: Sequence[Instance], split: SplitShots) -> tuple[list[Query], Shots]:
        """The queries and what they are shown, which is added to the requests: lmms-eval logs a sample's arguments."""
        items = []
        for request in requests:
            context, _, to_visual, doc_id, task, name = request.args[:6]
            visuals = to_visual(self.task_dict[task][name][doc_id])
            file = image_file(visuals, f"task {task}, document {doc_id} of split {name!r}")
            items.append(Item(f"{name}/{doc_id}", file, text_of(context), (), named=True))
        shots, names = split.before(items)
        for request, shown in zip(requests, names, strict=True):
            request.arguments = (*request.args[:6], {"demonstrations": shown})
        return [split.query(item) for item in items], shots

    def _continuation(self, request: Instance) -> str:
        _, target, _, doc_id, task, split = request.args[:6]
        return str(target if isinstance(target, str) else target(self.task_dict[task][split][doc_id]))

    def _query(self, request: Instance) -> Query:
        context, _, to_visual, doc_id, task, split = request.args[:6]
        visuals: Sequence[Any] = to_visual(self.task_dict[task][split][doc_id]) or []
        if len(visuals) != 1:
            raise InputError(f"task {task}, document {doc_id}: {len(visuals)} images; model aim expects one.")
        return Query(visuals[0], text_of(context), id=f"{task}/{doc_id}")
