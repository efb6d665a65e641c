"""Trains a projector on held-in documents while the backbone stays frozen; resumes where it was interrupted."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from aim_sdk.backend.capabilities import HasVocabulary, RecomputesActivations, RunsInTorch, Shards, capability
from aim_sdk.errors import ArtifactWriteError, TrainingError
from aim_sdk.files.atomic import writing
from aim_sdk.reading.encoder import Encoder
from aim_sdk.support.interrupts import interruptible
from aim_sdk.support.terminal import say
from aim_sdk.training import checkpoint, evaluation, starting
from aim_sdk.training.ahead import prepared_ahead
from aim_sdk.training.config import TrainingConfig
from aim_sdk.training.data import EpisodeBatch, training_batches
from aim_sdk.training.evaluation import Probe
from aim_sdk.training.failures import no_parameters, not_a_number, out_of_memory
from aim_sdk.training.forward import Forward
from aim_sdk.training.frozen import check_frozen, checksum
from aim_sdk.training.held_out import check_corpus, probe_episodes, with_held_out
from aim_sdk.training.journal import TrainingJournal
from aim_sdk.training.learner import Learner
from aim_sdk.training.objectives import WeightedSum
from aim_sdk.training.origin import Origin
from aim_sdk.training.progress import TrainingProgress
from aim_sdk.training.summary import summary
from aim_sdk.training.verdict import Best, verdict
from aim_sdk.training.work import Work


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    step: int
    finished: bool
    """False: it was interrupted, and resumes when it is started again."""
    projector: Path | None
    """The trained projector's folder."""
    dropped: Counter[str]
    """What was left out, by reason."""
    verdict: str = ""
    """Whether the projector is better than what training began with, and by how much."""


def train(config: TrainingConfig, *, show: bool = True) -> Result:
    """Run a training, or resume the one in ``config.output``; with torchrun, one call per process.

    Args:
        config: the settings.
        show: a progress bar on stderr, in the first process.

    Raises:
        InputError: a setting does not fit the backend or the corpus.
        TrainingError: memory ran out, a loss is NaN or infinite, or the folder is of another run.
        ArtifactWriteError: another job is writing the folder, or the disk is full; the last checkpoint stays.
        AIMError: the backend, the corpus or a projector cannot be loaded.
    """
    accelerator = Accelerator(cpu=config.device == "cpu")
    with contextlib.ExitStack() as stack:
        run = TrainingRun(config, accelerator, stack, show=show)
        return run.finish(run.loop())


class TrainingRun:
    """One process's part of a run."""

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, stack: contextlib.ExitStack, *, show: bool
    ) -> None:
        self.accelerator, self.main = accelerator, accelerator.is_main_process
        new = not config.output.exists()
        if self.main and not new:  # for all processes of the job
            starting.claim_folder(config, stack)
        check_corpus(config)
        config, unmeasured = with_held_out(config)
        self.config = config
        if unmeasured and show and self.main:
            say(unmeasured, err=True)
        self.probed = probe_episodes(config) if config.evaluation.every else []
        self.backend, self.projector = starting.load(config, accelerator)
        if self.main and new:  # a run that cannot begin makes no folder
            starting.claim_folder(config, stack)
        self.encoder = Encoder(self.backend, self.projector, config.prompt_format or self.backend.default_format)
        if config.shard:
            mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
            capability(self.backend, Shards).shard(mesh)
        if config.recompute_activations:
            capability(self.backend, RecomputesActivations).recompute_activations()
        self.modules = capability(self.backend, RunsInTorch).modules
        check_frozen(self.modules)
        self.checksum = checksum(self.modules)
        self.objective = WeightedSum(config.objective.weights)
        begins = not checkpoint.steps_taken(config.output)
        start, fitted = starting.begin(self.encoder, config, fitting=begins, show=show and self.main)
        self.learner = Learner(self.projector, start, capability(self.backend, HasVocabulary).vocabulary, config)
        self.state = checkpoint.load(config.output, self.learner)
        if begins:
            self.state.fitted = fitted
        origin = Origin.of(config, self.backend.fingerprint)
        if self.state.origin is not None:
            self.state.origin.check(origin, config.output)
        self.state.origin = origin
        accelerator.wait_for_everyone()
        self.cursors, self.dropped = self.state.cursor_of(), Counter(self.state.dropped if self.main else {})
        asked = self.objective.needs_teacher or config.evaluation.every
        self.teaching = starting.teaching(config, self.encoder, accelerator, stack) if asked else None
        self.forward = Forward(
            self.encoder,
            reading_tokens=config.reading_tokens,
            cache=starting.reading_cache(config, self.encoder, accelerator, stack),
            teaching=self.teaching if self.objective.needs_teacher else None,
        )
        # Without a checkpoint the run starts over, with its first evaluation too.
        resumed = self.state.step if checkpoint.steps_taken(config.output) else -1
        self.journal = TrainingJournal(config.output, resumed, config.evaluation.every) if self.main else None
        self.progress = TrainingProgress(config, self.state.step, shown=show and self.main)
        if self.journal:
            stack.callback(self.journal.close)
        stack.enter_context(self.progress)

    def loop(self) -> bool:
        """Take the steps that are left; return whether all were taken."""
        config, state = self.config, self.state
        probe = self._probe() if config.evaluation.every else None
        batches = training_batches(
            config,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            cursors=self.cursors,
        )
        with prepared_ahead(batches, self.forward) as ahead, interruptible() as interrupted:
            if state.step < config.steps:  # a corpus that gives no episode is known before anything is measured
                ahead = chain([next(ahead)], ahead)
            if probe and state.step == 0:
                self._evaluate(probe)
            while state.step < config.steps:
                stop = self._step(ahead, interrupted)
                last = state.step == config.steps
                if probe and state.step % config.evaluation.every == 0:
                    self._evaluate(probe)
                if state.step % config.checkpoint_every == 0 or last or stop:
                    self._save()
                if stop and not last:
                    return False
        if probe and state.step % config.evaluation.every:  # in no checkpoint: a longer run has no evaluation here
            self._evaluate(probe)
        return True

    def finish(self, finished: bool) -> Result:
        """Check that the backbone is unchanged, and write the projector: the best one by the probe."""
        if checksum(self.modules) != self.checksum:
            raise TrainingError("the backbone changed during training; the projector was not saved.")
        folder, best = self.config.output / "projector", self.state.best
        if finished and self.main:
            chosen = self.learner.average
            if best is not None:
                chosen = self.learner.best if best.better else self.learner.start
            assert self.journal is not None
            made = summary(self.config, self.state, self.journal.lines, learning_rate=self.learner.base_rate)
            chosen.fingerprint, chosen.summary = self.backend.fingerprint, made
            with writing(folder, checkpoint.KEPT):
                chosen.save_pretrained(folder)
            try:
                self.journal.plot()
            except ArtifactWriteError as error:  # the projector is there, and that is what the run was for
                say(str(error), err=True)
        dropped = Counter(self.state.dropped)
        return Result(self.state.step, finished, folder if finished else None, dropped, verdict(best))

    def _step(self, ahead: Iterator[tuple[EpisodeBatch, Work]], interrupted: Callable[[], bool]) -> bool:
        """One optimizer step; whether to stop after it."""
        config, state = self.config, self.state
        rate = self.learner.set_rate(state.step + 1)
        device = self.accelerator.device
        sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, episodes, tokens, stop
        sums[3] = float(interrupted())
        works = []
        for _ in range(config.batches_per_step // self.accelerator.num_processes):
            batch, work = next(ahead)
            works.append(work)
            sums[:3] += self._backward(work)
            self.cursors[batch.stream] = batch.cursor
            self.dropped += batch.dropped + work.dropped
        norm = self._reduce(sums)
        loss, total, used, tokens, stop = (sums[0] / sums[1]).item(), norm.item(), *sums[1:].tolist()
        if not (sums[1] > 0 and torch.isfinite(norm) and torch.isfinite(sums[0])):
            raise not_a_number(config, works, step=state.step + 1, loss=loss, norm=total, dropped=self.dropped)
        state.step += 1
        self.learner.step(state.step)
        state.tokens, state.episodes = state.tokens + int(tokens), state.episodes + int(used)
        values = self.progress.step(state.step, loss=loss, norm=total, rate=rate, tokens=int(tokens))
        if values and self.journal:
            self.journal.training(state.step, **values)
        return bool(stop)

    def _backward(self, work: Work) -> Tensor:
        """Add a batch's gradient; return the sum of its episodes' losses, their number, and all its tokens."""
        if self.config.shard:
            self._idle_as_the_others(work)
        try:
            outcome = self.forward.run(work)
            if not outcome.students:
                if self.config.shard:
                    self.forward.idle_step()
                return torch.zeros(3, dtype=torch.float64, device=self.accelerator.device)
            pairs = zip(outcome.students, work.lessons, strict=True)
            loss = torch.stack([self.objective.loss(student, lesson.target) for student, lesson in pairs]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "memory" not in str(error):
                raise
            raise out_of_memory(self.config, work, step=self.state.step + 1) from error
        counts = torch.tensor([len(work.lessons), outcome.tokens], dtype=torch.float64)
        return torch.cat([loss.detach().double().view(1), counts.to(loss.device)]).to(self.accelerator.device)

    def _reduce(self, sums: Tensor) -> Tensor:
        """Add up what the processes have, make the gradient that of the mean loss, clip it; return its norm."""
        parameters = [parameter for parameter in self.projector.parameters() if parameter.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes > 1:
            sums.copy_(self.accelerator.reduce(sums, "sum"))
            flat = torch.cat([p.grad.view(-1) for p in parameters if p.grad is not None])
            flat = self.accelerator.reduce(flat, "sum")
            for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter)
        scale = 1 / sums[1].clamp_min(1).to(torch.float32)
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
        return torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.clip)

    def _idle_as_the_others(self, work: Work) -> None:
        """With a sharded backbone every process must run the same number of forwards: make up for missing ones."""
        most = torch.tensor(work.forwards, device=self.accelerator.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        for _ in range(int(most) - work.forwards):
            self.forward.idle_forward()

    def _probe(self) -> Probe:
        """The held-out episodes: the processes share them, unless they share the backbone."""
        config = self.config
        own = (
            self.probed
            if config.shard
            else self.probed[self.accelerator.process_index :: self.accelerator.num_processes]
        )
        # With a sharded backbone all processes run the same forwards, but what is cached differs between them.
        cache = None if config.shard else self.forward.cache
        forward = Forward(self.encoder, reading_tokens=config.reading_tokens, cache=cache)
        assert self.teaching is not None
        return Probe(forward, self.teaching, own, self.learner.start, config.batch_size)

    def _evaluate(self, probe: Probe) -> None:
        """Measure the averaged weights, and keep them if they are the best so far."""
        with self.progress.evaluating(len(probe.episodes)) as done:
            scores = probe.measure(self.learner.average, done)
        if not self.config.shard and self.accelerator.num_processes > 1:
            scores = {row: [s for part in gather_object([found]) for s in part] for row, found in scores.items()}
        probe.check(scores)
        found = Best.of(self.state.step, scores)
        if self.state.best is None or found.kl < self.state.best.kl:
            self.state.best = found
            self.learner.keep_best()
        means, gains = evaluation.estimates(scores), evaluation.aim_minus(scores)
        if self.journal:
            self.journal.evaluation(self.state.step, means, gains)
        self.progress.evaluated(self.state.step, means, gains)

    def _save(self) -> None:
        """Write a checkpoint: the first process writes what all processes know."""
        places: dict[int, Any] = {}
        for part in gather_object([{stream: tuple(cursor) for stream, cursor in self.cursors.items()}]):
            places |= part
        dropped = Counter[str]()
        for part in gather_object([dict(self.dropped)]):
            dropped.update(part)
        self.state.cursors, self.state.dropped = places, dict(dropped)
        if not all(bool(parameter.isfinite().all()) for parameter in self.projector.parameters()):
            raise no_parameters(self.config, self.state.step)
        if self.main:
            checkpoint.save(self.config.output, self.state, self.learner.parts(), keep=self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()
