"""The training loop that all stages share; resumable."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.pocket.config import SEED, WORK

_SAVE_EVERY: Final = 120.0  # seconds
_WARM_UP: Final = 10


@dataclass
class Schedule:
    """Steps of a stage, and where its checkpoints go."""

    name: str
    steps: int

    @property
    def checkpoint(self) -> Path:
        return WORK / f"{self.name}.safetensors"

    def factor(self, step: int) -> float:
        """Warm up, then follow a cosine to one hundredth."""
        return min(1.0, (step + 1) / _WARM_UP) * (0.505 + 0.495 * math.cos(math.pi * step / self.steps))


class Loop:
    """Runs a step function with AdamW; keeps weights, optimizer and step number in one checkpoint."""

    def __init__(self, schedule: Schedule, modules: dict[str, nn.Module], rates: dict[str, float]) -> None:
        self.schedule, self.modules = schedule, modules
        self._groups = [[p for p in modules[name].parameters() if p.requires_grad] for name in rates]
        groups = [
            {"params": group, "lr": 0.0, "base": rate} for group, rate in zip(self._groups, rates.values(), strict=True)
        ]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
        self.step = 0

    def run(self, step: Callable[[random.Random], dict[str, float]]) -> None:
        """Train to the end of the schedule; ``step`` leaves gradients and returns the losses to log."""
        self._resume()
        saved = started = time.monotonic()
        first, recent = self.step, list[dict[str, float]]()
        while self.step < self.schedule.steps:
            for group in self._optimizer.param_groups:
                group["lr"] = group["base"] * self.schedule.factor(self.step)
            recent.append(step(random.Random(SEED * 1_000_003 + self.step)))
            for parameters in self._groups:
                nn.utils.clip_grad_norm_(parameters, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.step += 1
            if self.step % 20 == 0:
                means = {key: sum(entry[key] for entry in recent) / len(recent) for key in recent[0]}
                shown = " ".join(f"{key} {value:.3f}" for key, value in means.items())
                pace = (time.monotonic() - started) / (self.step - first)
                print(f"{self.schedule.name} {self.step}/{self.schedule.steps} {shown} ({pace:.2f} s/step)", flush=True)
                recent.clear()
            if time.monotonic() - saved > _SAVE_EVERY or self.step == self.schedule.steps:
                self._save()
                saved = time.monotonic()

    def _save(self) -> None:
        tensors = {
            f"{name}.{key}": value for name, module in self.modules.items() for key, value in _trained(module).items()
        }
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        temporary = self.schedule.checkpoint.with_suffix(".partial")
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, temporary, {"step": str(self.step)})
        temporary.replace(self.schedule.checkpoint)

    def _resume(self) -> None:
        if not self.schedule.checkpoint.exists():
            return
        tensors = load_file(self.schedule.checkpoint)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                states.setdefault(int(index), {})[key] = value
        for name, module in self.modules.items():
            module.load_state_dict(part(tensors, name), strict=False)
        current = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": states, "param_groups": current["param_groups"]})
        self.step = int(next(iter(states.values()))["step"]) if states else 0


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Take one module's tensors out of a checkpoint."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
