"""Few-shot episodes for tuning the language model: text-only ones, and ones with exactly one image."""

import random
from typing import Final

from benchmarks.pocket.corpus import NAME, PictureCorpus
from benchmarks.pocket.prompts import Prompt, Segment, Text, show

_PREFIXES: Final = (
    *(
        "",
        "a ",
        "the ",
        "my ",
        "one ",
        "see ",
        "look: ",
        "this is a ",
        "type: ",
        "name = ",
        "* ",
        "- ",
        "# ",
        "1. ",
        "[",
    ),
    *("<", "picture of ", "I see ", "a small ", "just ", "maybe ", "OK: ", "tag "),
)
_SUFFIXES: Final = (
    "",
    "!",
    ".",
    "?",
    " (icon)",
    ", yes",
    " :)",
    "!!",
    ";",
    " indeed",
    "]",
    ">",
    " here",
    " - done",
    " x1",
)
HELD_OUT_STYLES: Final = (
    ("", "", "title"),
    ("it is ", ".", "lower"),
    ("(", ")", "lower"),
    ("emoji of ", "", "lower"),
    ('"', '"', "lower"),
    ("what a ", " that is", "lower"),
)
_QUESTIONS: Final = (
    *(
        "What is it?",
        "What do you see?",
        "Which word goes with this?",
        "Name this.",
        "What is the label?",
        "What does this show?",
    ),
    *("What do we call it?", "Which group is it in?", "What is shown here?", "Label?"),
)

AnswerStyle = tuple[str, str, str]
Items = list[tuple[Segment, str]]  # content, answer


def question(rng: random.Random) -> str:
    """Draw an episode's question; the plain one in most episodes."""
    return NAME if rng.random() < 0.65 else rng.choice(_QUESTIONS)


def answer_style(rng: random.Random, held_out: bool = False) -> AnswerStyle:
    """Draw (prefix, suffix, case)."""
    if held_out:
        return rng.choice(HELD_OUT_STYLES)
    return rng.choice(_PREFIXES), rng.choice(_SUFFIXES), rng.choice(("lower", "lower", "upper"))


def styled(style: AnswerStyle, name: str) -> str:
    """Dress a name in an answer style."""
    prefix, suffix, case = style
    return f"{prefix}{getattr(name, case)()}{suffix}"


def text_only(rng: random.Random, corpus: PictureCorpus) -> Prompt:
    """Look-up, category to label, or answer style, with texts where images would stand."""
    kind = rng.random()
    if kind < 0.85:
        items = _look_up(rng, corpus) if kind < 0.62 else _categories(rng, corpus)
        answers = [answer for _, answer in items]
        return _prompt(rng, items, [answer in answers[:index] for index, answer in enumerate(answers)])
    items = _styles(rng, corpus)
    return _prompt(rng, items, [index > 0 for index in range(len(items))])


def one_image(rng: random.Random, corpus: PictureCorpus) -> Prompt:
    """Name binding, easy-VQA, category to label, or answer style; one content, mostly the query's, is an image."""
    kind = rng.random()
    if kind < 0.7:
        return _name_binding(rng, corpus) if kind < 0.5 else _visual_question(rng, corpus)
    items, query = _image_categories(rng, corpus) if kind < 0.85 else _image_styles(rng, corpus)
    return _asking_last(rng, [*items, query])


def _prompt(rng: random.Random, items: Items, targets: list[bool]) -> Prompt:
    """Put an episode's items after one question; ``targets`` says on which answers the loss falls."""
    ask = question(rng)
    return [
        segment
        for (content, answer), target in zip(items, targets, strict=True)
        for segment in show(ask, content, answer, target)
    ]


def _asking_last(rng: random.Random, items: Items) -> Prompt:
    return _prompt(rng, items, [False] * (len(items) - 1) + [True])


def _order(rng: random.Random, classes: int, shots: int) -> list[int]:
    """Draw demonstrations' classes: each at least once."""
    order = list(range(classes))
    rng.shuffle(order)
    order += [rng.randrange(classes) for _ in range(shots - classes)]
    if rng.random() < 0.5:
        rng.shuffle(order)
    return order


def _look_up(rng: random.Random, corpus: PictureCorpus) -> Items:
    classes = rng.choice((2, 2, 3, 4, 4, 6))
    labels = corpus.words.labels(rng, classes)
    if rng.random() < 0.45:
        contents = [corpus.name(concept).split() for concept in rng.sample(corpus.training, classes)]
    else:
        contents = [corpus.words.phrase(rng, (1, 1, 2, 3)).split() for _ in range(classes)]
    order = _order(rng, classes, min(8, rng.randint(classes, 2 * classes + 1)))
    order.append(rng.choice(order))
    noisy = rng.random() < 0.5
    return [(Text(_mention(rng, corpus, contents[c]) if noisy else " ".join(contents[c])), labels[c]) for c in order]


def _mention(rng: random.Random, corpus: PictureCorpus, words: list[str]) -> str:
    """Repeat a content inexactly: words left out, shuffled, or one added."""
    words = list(words)
    if len(words) > 1 and rng.random() < 0.5:
        rng.shuffle(words)
        words = words[: rng.randint(1, len(words))]
    if rng.random() < 0.15:
        words.insert(rng.randint(0, len(words)), rng.choice(corpus.words.training))
    return " ".join(words)


def _categories(rng: random.Random, corpus: PictureCorpus) -> Items:
    groups = corpus.by_key(corpus.training, rng.choice(("group", "category")))
    chosen = rng.sample(sorted(groups), rng.choice((2, 2, 3)))
    labels = corpus.words.labels(rng, len(chosen))
    pools = [rng.sample(groups[key], 6) for key in chosen]
    order = [rng.randrange(len(chosen)) for _ in range(rng.choice((4, 6, 8)) + 1)]
    return [(Text(corpus.name(rng.choice(pools[c]))), labels[c]) for c in order]


def _styles(rng: random.Random, corpus: PictureCorpus) -> Items:
    style = answer_style(rng)
    concepts = rng.sample(corpus.training, rng.choice((3, 4, 5)))
    contents = [corpus.name(c) if rng.random() < 0.6 else corpus.words.phrase(rng, (1, 2)) for c in concepts]
    return [(Text(content), styled(style, content)) for content in contents]


def _name_binding(rng: random.Random, corpus: PictureCorpus) -> Prompt:
    classes = rng.choice((2, 2, 3, 4))
    labels = corpus.words.labels(rng, classes)
    concepts = corpus.draw_distinct(rng, classes)
    order = _order(rng, classes, rng.randint(classes, classes + 2))
    asked = rng.choice(order)
    names = [corpus.name(concept) for concept in concepts]
    partial = rng.random() < 0.3
    contents = [_mention(rng, corpus, names[c].split()) if partial else names[c] for c in order]
    items: Items = [(Text(content), labels[c]) for content, c in zip(contents, order, strict=True)]
    image = corpus.any_view(rng, concepts[asked])
    if rng.random() < 0.3:  # the image stands in a demonstration, and the query is a name
        items[order.index(asked)] = (image, labels[asked])
        return _asking_last(rng, [*items, (Text(names[asked]), labels[asked])])
    return _asking_last(rng, [*items, (image, labels[asked])])


def _image_categories(rng: random.Random, corpus: PictureCorpus) -> tuple[Items, tuple[Segment, str]]:
    groups = corpus.by_key(corpus.training, rng.choice(("group", "category", "category")))
    chosen = rng.sample(sorted(groups), 2)
    labels = corpus.words.labels(rng, 2)
    order = [rng.randrange(2) for _ in range(rng.choice((3, 4, 5)))]
    items: Items = [(Text(corpus.name(rng.choice(groups[chosen[c]]))), labels[c]) for c in order]
    asked = rng.choice(order)
    return items, (corpus.any_view(rng, rng.choice(groups[chosen[asked]])), labels[asked])


def _image_styles(rng: random.Random, corpus: PictureCorpus) -> tuple[Items, tuple[Segment, str]]:
    style = answer_style(rng)
    *shown, asked = rng.sample(corpus.training, rng.choice((3, 4)))
    items: Items = [(Text(corpus.name(c)), styled(style, corpus.name(c))) for c in shown]
    return items, (corpus.any_view(rng, asked), styled(style, corpus.name(asked)))


def _visual_question(rng: random.Random, corpus: PictureCorpus) -> Prompt:
    """An image is asked about, after true answers about other images: nothing in them is to be looked up."""
    told = rng.random() < 0.6
    prompt: Prompt = []
    for _ in range(rng.randint(1, 8)):
        fact = corpus.fact(rng)
        prompt += show(fact.text, Text(corpus.described[fact.image]) if told else None, fact.answer)
    return [*prompt, *corpus.visual_question(rng)]
