"""Tasks of one's own for the real lmms-eval, whose data lies on disk, and runs of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

FUNCTIONS = """
from PIL import Image

def image(document):
    return [Image.open(path) for path in document["images"]]

def text(document, lmms_eval_specific_kwargs=None):
    return document["text"]

def score(document, answers):
    return {"correct": float(answers[0] == document["answer"])}
"""
"""What the YAML file of a task names."""

Document = Mapping[str, Any]


def documents(folder: Path, split: str, answers: Sequence[Any], **more: Any) -> list[Document]:
    """Documents of one image each; all images and texts of all splits differ."""
    made: list[Document] = []
    for place, answer in enumerate(answers):
        turned = Image.linear_gradient("L").resize((40 + place, 44)).convert("RGB").rotate(30 * place)
        image = folder / f"{split}{place}.png"
        Image.merge("RGB", [*turned.split()[:2], Image.new("L", turned.size, 40 * len(split))]).save(image)
        made.append({"images": [str(image)], "text": f"What is {split} {place}?", "answer": answer, **more})
    return made


def write_task(folder: Path, name: str, splits: Mapping[str, Sequence[Document]], **config: Any) -> Path:
    """Write a task that lmms-eval's ``--include_path`` finds in the folder; None drops a field of its configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "functions.py").write_text(FUNCTIONS)
    files = {split: folder / f"{name}-{split}.jsonl" for split in splits}
    for split, held in splits.items():
        files[split].write_text("\n".join(map(json.dumps, held)))
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
        "training_split": "train",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 6, "temperature": 0},
        "metric_list": [{"metric": "correct", "aggregation": "mean", "higher_is_better": True}],
        "doc_to_visual": "!image",
        "doc_to_text": "!text",
        "process_results": "!score",
        **config,
    }
    lines = []
    for key, value in content.items():
        if isinstance(value, str) and value.startswith("!"):
            lines.append(f"{key}: !function functions.{value[1:]}\n")
        elif value is not None:
            lines.append(yaml.safe_dump({key: value}))
    (folder / f"{name}.yaml").write_text("".join(lines))
    return folder


class Results:
    """What lmms-eval returns for the tasks of one run."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.all = results

    def config(self, task: str) -> dict[str, Any]:
        """The task's configuration as it was run."""
        return dict(self.all["configs"][task])

    def samples(self, task: str) -> list[dict[str, Any]]:
        """One for each document, in order."""
        return sorted(self.all["samples"][task], key=lambda sample: int(sample["doc_id"]))

    def answers(self, task: str) -> list[Any]:
        """Each document's."""
        return [sample["filtered_resps"][0] for sample in self.samples(task)]

    def shown(self, task: str) -> list[list[str]]:
        """The names of the demonstrations of each document."""
        records = [[one for one in sample["arguments"] if isinstance(one, dict)][-1] for sample in self.samples(task)]
        return [record["demonstrations"] for record in records]


def evaluate(folder: Path, tasks: Sequence[str], shots: int | None, arguments: str, **options: Any) -> Results:
    """Run tasks of a folder with model ``aim``, as the command does."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    found = simple_evaluate(
        model="aim",
        model_args=arguments,
        tasks=list(tasks),
        num_fewshot=shots,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False, model_name="aim"),
        batch_size=2,
        device="cpu",
        bootstrap_iters=0,
        **options,
    )
    return Results(found)
