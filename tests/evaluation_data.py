"""Small data of every evaluation task, in files as they are published, with images of a few pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from aim_sdk.evaluation import tasks
from aim_sdk.evaluation.items import Dataset


def image(path: Path, width: int = 3, height: int = 2, colour: str = "red") -> Path:
    """An image file, in the format that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


def dump(path: Path, value: Any) -> Path:
    """A JSON file; nothing but one line, as most are published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def lines(path: Path, values: Iterable[Any]) -> Path:
    """A file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def load(name: str | Path, data: Path) -> Dataset:
    """A task's dataset, as a run has it."""
    return tasks.load(tasks.get_task(name), data)


def sentences(number: int) -> list[dict[str, Any]]:
    """Five captions of an image, as Karpathy's files have them."""
    return [
        {"tokens": ["caption", str(place)], "raw": f"Caption {place} of {number}.", "imgid": number, "sentid": place}
        for place in range(5)
    ]


def flickr30k(data: Path) -> None:
    """Two test images, two of train, one of val."""
    entries = []
    for number, split in enumerate(("train", "test", "val", "test", "train")):
        name = f"10000{number}.jpg"
        image(data / "flickr30k" / "flickr30k-images" / name)
        entry = {"sentids": [0], "imgid": number, "sentences": sentences(number), "split": split, "filename": name}
        entries.append(entry)
    dump(data / "flickr30k" / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})


def coco(data: Path) -> None:
    """Images of COCO's own train and val in Karpathy's splits."""
    entries = []
    placed = (("train", "train2014"), ("test", "val2014"), ("restval", "val2014"), ("val", "val2014"))
    for number, (split, folder) in enumerate(placed):
        name = f"COCO_{folder}_{number:012d}.jpg"
        image(data / "coco" / folder / name)
        entry = {"filepath": folder, "sentids": [0], "filename": name, "imgid": 7 + number, "split": split}
        entries.append(entry | {"sentences": sentences(number), "cocoid": number})
    dump(data / "coco" / "dataset_coco.json", {"images": entries, "dataset": "coco"})


def vqa(data: Path, prefix: str = "v2_") -> None:
    """Two questions on one image, in each of train and val; annotations are in another order."""
    for part in ("train2014", "val2014"):
        number = 42 if part == "val2014" else 9
        image(data / "coco" / part / f"COCO_{part}_{number:012d}.jpg")
        questions = [
            {"image_id": number, "question": f"What is {place}?", "question_id": number * 1000 + place}
            for place in range(2)
        ]
        annotations = [
            {
                "question_type": "what is",
                "multiple_choice_answer": "a cat",
                "answers": answers([f"a cat {entry['question_id']}"] * 9 + ["dog"]),
                "image_id": number,
                "answer_type": "other",
                "question_id": entry["question_id"],
            }
            for entry in reversed(questions)
        ]
        about = {"info": {}, "license": {}, "data_subtype": part}
        dump(data / "coco" / f"{prefix}OpenEnded_mscoco_{part}_questions.json", {**about, "questions": questions})
        dump(data / "coco" / f"{prefix}mscoco_{part}_annotations.json", {**about, "annotations": annotations})


def answers(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Annotators' answers."""
    return [{"answer": text, "answer_confidence": "yes", "answer_id": place} for place, text in enumerate(texts, 1)]


def okvqa(data: Path) -> None:
    """The same format as VQAv2's."""
    vqa(data, prefix="")


def textvqa(data: Path) -> None:
    """Two questions of val on one image, one of train."""
    for part, ids in (("val", (34602, 34603)), ("train", (0,))):
        name = f"003a8ae2ef43b90{part[0]}"
        image(data / "textvqa" / "train_images" / f"{name}.jpg")
        entries = [
            {
                "question": f"what brand is {number}?",
                "image_id": name,
                "answers": ["dakota"] * 9 + ["nous les gosses"],
                "question_id": number,
                "set_name": part,
                "image_classes": ["Camera"],
            }
            for number in ids
        ]
        content = {"dataset_type": part, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": entries}
        dump(data / "textvqa" / f"TextVQA_0.5.1_{part}.json", content)


def vizwiz(data: Path) -> None:
    """Two questions of val, two of train, the second of which has a blank answer."""
    for part in ("val", "train"):
        entries = []
        for number in range(2):
            name = f"VizWiz_{part}_{number:08d}.jpg"
            image(data / "vizwiz" / part / name)
            texts = ["unanswerable"] * 9 + ["" if number else "wine"]
            entry = {"image": name, "question": f"What is {number}?", "answers": answers(texts)}
            entries.append({**entry, "answer_type": "other", "answerable": 1})
        dump(data / "vizwiz" / "Annotations" / f"{part}.json", entries)


def hateful_memes(data: Path) -> None:
    """A meme of either label in each part; an id that begins with a zero."""
    for part, ids in (("dev_seen", (8291, 46971)), ("train", (42953, 23058))):
        memes = []
        for label, number in enumerate(ids):
            name = f"img/{number:05d}.png"
            image(data / "hateful_memes" / name)
            memes.append({"id": number, "img": name, "label": label, "text": f"words on {number}"})
        lines(data / "hateful_memes" / f"{part}.jsonl", memes)


def clevr(data: Path, name: str = "clevr", count: int = 6) -> None:
    """Counts, as numbers."""
    for part, entries in (("query", 2), ("support", count)):
        content = []
        for number in range(entries):
            file = f"{name}/{part}/{number}.png"
            image(data / "vl-icl" / file)
            content.append({"id": number, "image": [file], "question": f"shape: {number}", "answer": number})
        dump(data / "vl-icl" / name / f"{part}.json", content)


def textocr(data: Path) -> None:
    """The same format as CLEVR's."""
    clevr(data, "textocr")


def operator_induction(data: Path) -> None:
    """Sums of 7 and 2 and of what follows; a support item has an answer for each operator."""
    root = data / "vl-icl"
    queries, support = [], []
    for number, (operator, answer) in enumerate({"+": 9, "-": 5, "x": 14}.items()):
        file = image(root / "operator_induction" / "query" / f"{number}.png").relative_to(root).as_posix()
        question = "What is the result of the following mathematical expression?"
        queries.append({"id": number, "image": [file], "question": question, "answer": answer, "operator": operator})
    for number in range(5):
        file = image(root / "operator_induction" / "support" / f"{number}.png").relative_to(root).as_posix()
        support.append(
            {"id": number, "image": [file], "question": question, "answer": [number + 1, number - 1, number]}
        )
    dump(root / "operator_induction" / "query.json", queries)
    dump(root / "operator_induction" / "support.json", support)


def matching_mi(data: Path) -> None:
    """Pairs of images; no ids in the support."""
    root = data / "vl-icl"

    def pair(name: str, answer: str) -> dict[str, Any]:
        files = [f"matching_mi/{name}-{side}.jpg" for side in ("a", "b")]
        image(root / files[0], 32, 16, "red")
        image(root / files[1], 16, 32, "blue")
        return {"image": files, "question": "Do the two images satisfy the induced relationship?", "answer": answer}

    queries = [{"id": number, **pair(f"q{number}", answer)} for number, answer in enumerate(("yes", "no"))]
    support = [{"same": pair(f"s{number}", "yes"), "diff": pair(f"d{number}", "no")} for number in range(4)]
    dump(root / "matching_mi" / "query.json", queries)
    dump(root / "matching_mi" / "support.json", support)


def open_mi(data: Path) -> None:
    """Three queries of three classes with five images of each; a shared image has another name elsewhere."""
    root = data / "vl-icl"
    queries = []
    for number in range(3):
        classes = [f"dax{number}", "blicket", "slation"]
        support = {}
        for name in classes:
            files = [f"open_mi/support/{name}-{place}.jpg" for place in range(4)] + ["open_mi/support/shared.jpg"]
            support[name] = {"images": [image(root / f).relative_to(root).as_posix() for f in files], "caption": name}
        file = image(root / "open_mi" / "query" / f"{number}.jpg").relative_to(root).as_posix()
        query = {"id": number, "image": [file], "question": "This is a", "answer": classes[number], "classes": classes}
        queries.append({**query, "support": support})
    dump(root / "open_mi" / "query.json", queries)


WRITERS: dict[str, Callable[[Path], None]] = {
    "coco": coco,
    "flickr30k": flickr30k,
    "hateful-memes": hateful_memes,
    "okvqa": okvqa,
    "textvqa": textvqa,
    "vizwiz": vizwiz,
    "vl-icl-clevr": clevr,
    "vl-icl-matching-mi": matching_mi,
    "vl-icl-open-mi": open_mi,
    "vl-icl-operator-induction": operator_induction,
    "vl-icl-textocr": textocr,
    "vqav2": vqa,
}
"""Writes a built-in task's files into a data folder; the other tasks' files come with packages."""


def own_task(folder: Path, queries: Sequence[Any], support: Sequence[Any], /, **changes: Any) -> Path:
    """A user's task: a YAML file, and two of JSON lines beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines(folder / "queries.jsonl", queries)
    lines(folder / "support.jsonl", support)
    content = {
        "name": "birds",
        "title": "Birds of the garden",
        "kind": "classification",
        "metric": "exact_match",
        "loader": "jsonl",
        "files": {"queries": "queries.jsonl", "support": "support.jsonl"},
        "source": "our garden",
        "licence": "CC0-1.0",
        "splits": "photos of June are asked, demonstrations from May",
    }
    (path := folder / "task.yaml").write_text(yaml.safe_dump(content | changes))
    return path
