"""The demo's tasks, on images that no training of pocket saw.

Drawings of held-out concepts: the queries in a held-out drawing style, the demonstrations in other styles. Labels are
held-out words. easy-VQA questions come from its official test split.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from aim_backends.pocket.drawings import QUERY_STYLE, Drawing, load_drawings, load_label_words
from aim_sdk.demo.tasks import DemoTask, Episode
from aim_sdk.errors import MissingDependencyError
from aim_sdk.support.dependencies import install_command
from aim_sdk.types import Demonstration, Query

SHOTS = 8
QUERIES_A_SET = 7
QUESTION = "What is this?"


def demo_tasks(n: int, *, seed: int) -> list[DemoTask]:
    """Return easy-VQA, name binding and category labels with ``n`` episodes each."""
    drawings, labels = load_drawings(), load_label_words()
    return [
        DemoTask("easy-VQA", "test questions on coloured shapes", _easy_vqa(n, random.Random(f"easy-vqa {seed}"))),
        DemoTask(
            "name binding",
            "two drawn things are given names; which name does a drawing of one of them in another style get?",
            _name_binding(n, random.Random(f"names {seed}"), drawings, labels),
        ),
        DemoTask(
            "category label",
            "the drawings of two categories get a label word each; which label does a new drawing get?",
            _category_label(n, random.Random(f"categories {seed}"), drawings, labels),
        ),
    ]


def _easy_vqa(n: int, rng: random.Random) -> list[Episode]:
    try:
        import easy_vqa
    except ImportError as error:
        raise MissingDependencyError(f"The demo needs easy-VQA.\nNext: {install_command('pocket')}") from error
    paths = easy_vqa.get_test_image_paths()
    records = list(zip(*easy_vqa.get_test_questions(), strict=True))
    episodes: list[Episode] = []
    while len(episodes) < n:
        group = len(episodes)
        drawn = _distinct_images(records, SHOTS + QUERIES_A_SET, rng)
        shown = tuple(Demonstration(paths[i], _sentence(question), answer) for question, answer, i in drawn[:SHOTS])
        for question, answer, i in drawn[SHOTS:]:
            episodes.append(Episode(Query(paths[i], _sentence(question)), shown, answer, group))
    return episodes[:n]


def _distinct_images(
    records: Sequence[tuple[str, str, int]], count: int, rng: random.Random
) -> list[tuple[str, str, int]]:
    chosen: dict[int, tuple[str, str, int]] = {}
    while len(chosen) < count:
        record = rng.choice(records)
        chosen.setdefault(record[2], record)
    return list(chosen.values())


def _sentence(question: str) -> str:
    return question[0].upper() + question[1:]


def _name_binding(n: int, rng: random.Random, drawings: list[Drawing], labels: list[str]) -> list[Episode]:
    concepts = _by(drawings, "concept")
    category = {drawing.concept: drawing.category for drawing in drawings}
    episodes: list[Episode] = []
    while len(episodes) < n:
        group = len(episodes)
        pair = rng.sample(sorted(concepts), 2)
        if category[pair[0]] == category[pair[1]]:
            continue
        names = dict(zip(pair, rng.sample(labels, 2), strict=True))
        shown = _alternate({c: [d for d in concepts[c] if not _asks(d)] for c in pair}, names, rng)
        for concept in pair:
            query = next(d for d in concepts[concept] if _asks(d))
            episodes.append(Episode(Query(query.path, QUESTION), shown, names[concept], group))
    return episodes[:n]


def _category_label(n: int, rng: random.Random, drawings: list[Drawing], labels: list[str]) -> list[Episode]:
    categories = {name: found for name, found in _by(drawings, "category").items() if len(_by(found, "concept")) >= 10}
    episodes: list[Episode] = []
    while len(episodes) < n:
        group = len(episodes)
        pair = rng.sample(sorted(categories), 2)
        names = dict(zip(pair, rng.sample(labels, 2), strict=True))
        shown: dict[str, list[Drawing]] = {}
        asked: list[tuple[str, Drawing]] = []
        for category in pair:
            concepts = _by(categories[category], "concept")
            order = rng.sample(sorted(concepts), len(concepts))
            shown[category] = [next(d for d in concepts[concept] if not _asks(d)) for concept in order[: SHOTS // 2]]
            held_out = [d for concept in order[SHOTS // 2 :] for d in concepts[concept] if _asks(d)]
            asked += [(category, d) for d in held_out[: QUERIES_A_SET // 2 + 1]]
        rng.shuffle(asked)
        context = _alternate(shown, names, rng)
        for category, drawing in asked[:QUERIES_A_SET]:
            episodes.append(Episode(Query(drawing.path, QUESTION), context, names[category], group))
    return episodes[:n]


def _alternate(shown: dict[str, list[Drawing]], names: dict[str, str], rng: random.Random) -> tuple[Demonstration, ...]:
    """Demonstrations of both sides; every two in a row show each side once, in random order."""
    demonstrations = []
    for turn in range(SHOTS // 2):
        for side in rng.sample(sorted(shown), len(shown)):
            drawing = shown[side][turn % len(shown[side])]
            demonstrations.append(Demonstration(drawing.path, QUESTION, names[side]))
    return tuple(demonstrations)


def _asks(drawing: Drawing) -> bool:
    return drawing.style == QUERY_STYLE


def _by(drawings: Sequence[Drawing], field: str) -> dict[str, list[Drawing]]:
    groups: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in drawings:
        groups[getattr(drawing, field)].append(drawing)
    return groups
