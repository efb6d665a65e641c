"""One part of each kind, as a third-party distribution brings it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from aim_sdk import Demonstration, Projector, ReadingBatch, Selector, load_image
from aim_sdk.backend import AnswerLogits, Context
from aim_sdk.evaluation.items import Answered, Dataset, Item
from aim_sdk.evaluation.metrics import Metric
from aim_sdk.evaluation.tasks.config import TaskConfig
from aim_sdk.layers import LAST
from aim_sdk.training.corpora import Pair
from aim_sdk.training.corpora.formats import Format
from aim_sdk.training.corpora.shards import Shard
from aim_sdk.training.episode import Episode
from aim_sdk.training.objectives import Objective
from aim_sdk.training.targets import Target
from aim_sdk.training.teachers import Teacher


class Gated(Projector):
    """A residual of the token's own embedding, through a gate."""

    kind = "gated"

    def __init__(
        self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, gate: float = 0.0
    ) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers, gate=gate)
        self.linear = nn.Linear(self.width, embedding_size)
        self.gate = nn.Parameter(nn.init.constant_(self.linear.weight.new_empty(1), gate))

    def forward(self, batch: ReadingBatch) -> Tensor:
        fused = self.linear(batch.hidden.to(self.linear.weight.dtype))
        return batch.embeddings + (self.gate * fused).to(batch.embeddings.dtype)


class Newest(Selector):
    """The demonstrations that were added last."""

    name = "newest"

    def scores(self, view: Any, queries: Any, candidates: Any) -> Any:
        return np.broadcast_to(np.arange(len(candidates), dtype=np.float32), (len(queries), len(candidates)))


class FirstLetter(Metric):
    """Share of the answers whose first letter is that of a reference, %."""

    name = "first-letter"
    label = "first letter, %"

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        return [100.0 * any(a.text[:1].lower() == answer[:1].lower() for answer in a.item.answers) for a in answered]


def load_rows(config: TaskConfig, folder: Path) -> Dataset:
    """A task of two tables `image,text,answer`."""

    def items(name: str) -> tuple[Item, ...]:
        with (folder / config.files[name]).open(newline="", encoding="utf-8") as file:
            return tuple(
                Item(f"{name}-{place}", str(folder / row["image"]), row["text"], (row["answer"],))
                for place, row in enumerate(csv.DictReader(file))
            )

    return Dataset(items("queries"), items("support"))


class _Rows(Shard):
    def __init__(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file))

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Any:
        return self.rows

    def close(self) -> None:
        pass


class Album(Format):
    """A table `image,caption` is one document."""

    name = "album"
    suffixes = (".csv",)
    files = ".csv of image,caption"

    def recognises(self, path: Path) -> bool:
        return path.open(encoding="utf-8").readline().strip() == "image,caption"

    def open(self, path: Path, config: Any) -> Shard:
        return _Rows(path)

    def pairs(self, record: Any, source: Any) -> Iterator[Any]:
        for row in record:
            yield Pair(source.images.named(row["image"], source.shard), "", row["caption"])


class Sharpen(Objective):
    """Minus the teacher's likeliest token's log-probability."""

    needs_teacher = True

    def losses(self, student: AnswerLogits, target: Target | None) -> Tensor:
        assert target is not None
        best = target.top.argmax(-1, keepdim=True)
        wanted = best if target.ids is None else target.ids.gather(-1, best)
        return -student.logits.float().log_softmax(-1).gather(-1, wanted)[:, 0]


class OneAtATime(Teacher):
    """Sees the last demonstration alone, with its image."""

    def shown(self, episode: Episode) -> tuple[Demonstration, ...]:
        (item,) = episode.demonstrations[-1:]
        return (replace(item, image=load_image(item.image)),)

    def contexts(self, shown: Sequence[Sequence[Demonstration]]) -> list[Context]:
        return list(shown)
