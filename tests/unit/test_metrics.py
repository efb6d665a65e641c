"""Metrics by hand-computed values and by what must hold for any answers."""

import math
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics import METRICS, get_metric
from aim_sdk.evaluation.metrics.errors import bootstrap, of_score, over_seeds
from aim_sdk.evaluation.metrics.vqa import agreement, normalize
from aim_sdk.support.cider import cider_d
from aim_sdk.support.ptb import tokenize

words = st.sampled_from(["dog", "cat", "a", "red", "bus", "on", "the", "street"])
captions = st.lists(words, min_size=1, max_size=8).map(" ".join)


def answered(text: str, *answers: str, name: str = "q", **more: Any) -> Answered:
    return Answered(Item(name, "x.png", "", answers, choices=more.pop("choices", ())), text, **more)


# CIDEr-D


def test_ciders_known_values() -> None:
    two, four = ["red car", "x y"], ["one two three four", "x"]
    assert cider_d(two, [["red car"], ["a b"]])[0] == pytest.approx(5.0)
    assert cider_d(four, [["one two three four"], ["b"]])[0] == pytest.approx(10.0)
    assert cider_d(["a dog"], [["a dog"]]) == [0.0]  # one image: every word is everywhere
    with pytest.raises(InputError, match="without a reference"):
        cider_d(["a"], [[]])


def test_cider_by_hand() -> None:
    # Two images; "red" is in both, so it weighs nothing; "car" and "red car" are in one: idf log 2.
    (score, _) = cider_d(["red car", "red"], [["red car here"], ["red dog"]])
    unigrams = 1 / math.sqrt(2)  # (car) against (car, here)
    bigrams = 1 / math.sqrt(2)  # (red car) against (red car, car here)
    assert score == pytest.approx(10 * (unigrams + bigrams) / 4 * math.exp(-1 / 72))


@given(st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=3)), min_size=2, max_size=5), st.randoms())
def test_cider_does_not_depend_on_order_or_case(pairs: list[tuple[str, list[str]]], rng: random.Random) -> None:
    scores = cider_d([c for c, _ in pairs], [r for _, r in pairs])
    assert all(0 <= score <= 10 + 1e-9 for score in scores)
    order = rng.sample(range(len(pairs)), len(pairs))
    shuffled = cider_d([pairs[i][0].upper() for i in order], [rng.sample(pairs[i][1], len(pairs[i][1])) for i in order])
    assert shuffled == pytest.approx([scores[i] for i in order])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man's dog isn't here, is it?", "a man 's dog is n't here is it"),
        ("Two black-and-white cats.", "two black-and-white cats"),
        ("It cannot be 10,000 at 5:30 p.m. today", "it can not be 10,000 at 5:30 p.m. today"),
        ("Mr. Smith in the U.S. on St. Paul Ave.", "mr. smith in the u.s. on st. paul ave."),
        ('A "Stop" sign (red)', "a stop sign -lrb- red -rrb-"),
        ("red/white bus ... with 1/2 a door!", "red/white bus with 1/2 a door"),
        ("they're gonna eat", "they 're gon na eat"),
        ("", ""),
    ],
)
def test_captions_are_read_as_penn_treebank_tokens(caption: str, expected: str) -> None:
    assert " ".join(tokenize(caption)) == expected


@given(st.text(max_size=60))
def test_any_text_has_tokens_without_blanks(text: str) -> None:
    assert all(token and not token.isspace() for token in tokenize(text))


# VQA accuracy


@pytest.mark.parametrize(("matching", "expected"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_of_ten_annotators_so_many_agree(matching: int, expected: float) -> None:
    references = ["yes"] * matching + ["no"] * (10 - matching)
    found = get_metric("vqa_accuracy").per_item([answered("yes", *references)])
    assert found == pytest.approx([expected])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog.", "dog"),
        ("Two, the DOGS!", "2 dogs"),
        ("dont", "don't"),
        ("10,000", "10000"),
        ("3.5", "3.5"),
        ("black/white", "black white"),
        ("on the\nleft", "on left"),
        ("man's", "man's"),
    ],
)
def test_answers_are_normalised_as_the_benchmark_does(text: str, expected: str) -> None:
    assert normalize(text) == expected
    assert normalize(normalize(text)) == expected


def test_openflamingos_variant_normalises_only_where_annotators_differ() -> None:
    agreed = answered("A dog.", *["dog"] * 10)
    assert get_metric("vqa_accuracy").per_item([agreed]) == [100.0]
    assert get_metric("vqa_accuracy", compat=True).per_item([agreed]) == [0.0]
    mixed = answered("A dog.", *["dog"] * 9, "cat")
    assert get_metric("vqa_accuracy", compat=True).per_item([mixed]) == [100.0]
    with pytest.raises(InputError, match="exact_match"):
        get_metric("vqa_accuracy").per_item([answered("a", "a")])


@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=12))
def test_agreement_is_the_mean_over_the_annotators_left_out(references: list[str]) -> None:
    left_out = [references[:i] + references[i + 1 :] for i in range(len(references))]
    expected = statistics.fmean(min(1, others.count("a") / 3) for others in left_out)
    assert agreement("a", references) == pytest.approx(expected)


# Exact match


@pytest.mark.parametrize(
    ("rule", "text", "answer", "right"),
    [
        ("equal", " Red ", "red", True),
        ("equal", "red.", "red", False),
        ("vl-icl", "red. It is red.", "Red", True),
        ("vl-icl", "red\nThis is a", "red", True),
        ("vl-icl-number", "The result is 12", "12", True),
        ("vl-icl-number", "twelve", "12", False),
        ("vl-icl-yes-no", "Yes, it does", "yes", True),
        ("vl-icl-yes-no", "It does not", "no", True),
        ("vl-icl-yes-no", "yes", "no", False),
    ],
)
def test_when_an_answer_is_right(rule: str, text: str, answer: str, right: bool) -> None:
    assert get_metric("exact_match", rule=rule).per_item([answered(text, answer)]) == [100.0 * right]


# ROC-AUC


def scored(label: str, yes: float, no: float = 0.0) -> Answered:
    return answered("", label, choices=("yes", "no"), log_probs=(yes, no))


def test_roc_auc_counts_the_pairs_in_order() -> None:
    metric = get_metric("roc_auc")
    some = [scored("yes", 2), scored("yes", 0), scored("no", 1), scored("no", -1)]
    assert metric.score(some) == pytest.approx(75)
    assert metric.score([scored("yes", 1), scored("no", 1)]) == pytest.approx(50)
    assert math.isnan(metric.score([scored("yes", 1), scored("yes", 0)]))
    assert get_metric("roc_auc", positive="no").score(some) == pytest.approx(75)
    assert metric.per_item(some) is None
    with pytest.raises(InputError, match="log-probability"):
        metric.score([answered("yes", "yes")])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
def test_roc_auc_of_turned_labels_is_the_rest(values: list[float]) -> None:
    labels = ["yes" if i % 2 else "no" for i in range(len(values))]
    turned = ["no" if label == "yes" else "yes" for label in labels]
    one, other = ([scored(label, v) for label, v in zip(row, values, strict=True)] for row in (labels, turned))
    metric = get_metric("roc_auc")
    assert metric.score(one) + metric.score(other) == pytest.approx(100)


# Errors


def test_errors_by_hand() -> None:
    assert over_seeds([1.0, 2.0, 3.0]) == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(over_seeds([1.0]))


@pytest.mark.slow
def test_more_seeds_do_not_stand_for_more_queries() -> None:
    labels = ["yes" if i % 2 else "no" for i in range(40)]
    items = [Item(f"q{i}", "x.png", "", (label,), ("yes", "no")) for i, label in enumerate(labels)]
    row = [replace(scored(label, i % 7), item=items[i]) for i, label in enumerate(labels)]
    once = of_score(get_metric("roc_auc"), [row])
    assert 5 < once < 15
    assert of_score(get_metric("roc_auc"), [row, row, row]) == pytest.approx(once)


def test_the_bootstrap_of_a_mean_is_its_standard_error() -> None:
    values = [float(i % 10) for i in range(200)]
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert bootstrap(statistics.fmean, values) == pytest.approx(error, rel=0.1)
    assert bootstrap(statistics.fmean, values) == bootstrap(statistics.fmean, values)
    assert math.isnan(bootstrap(statistics.fmean, [1.0]))


def test_metrics_by_name() -> None:
    for name in METRICS:
        assert get_metric(name).name == name
    with pytest.raises(InputError, match="Did you mean 'cider'"):
        get_metric("cidre")
    with pytest.raises(InputError, match="Did you mean 'compat'"):
        get_metric("vqa_accuracy", compta=True)
    with pytest.raises(InputError, match="Did you mean 'vl-icl'"):
        get_metric("exact_match", rule="vlicl")


@pytest.mark.parametrize(
    ("text", "answer", "rule", "right"),
    [
        ("cafe\u0301", "caf\u00e9", "equal", True),
        ("STRASSE", "stra\u00dfe", "equal", True),
        ("\u0130stanbul", "i\u0307stanbul", "equal", True),
        ("cafe", "caf\u00e9", "equal", False),
        ("STRASSE", "stra\u00dfe", "vl-icl", False),  # as the original code has it
    ],
)
def test_exact_match_of_letters_beyond_ascii(text: str, answer: str, rule: Any, right: bool) -> None:
    assert get_metric("exact_match", rule=rule).score([Answered(Item("1", "", "", (answer,)), text)]) == 100.0 * right


def test_vqa_accuracy_of_letters_beyond_ascii() -> None:
    item = Item("1", "", "", ("caf\u00e9",) * 10)
    assert get_metric("vqa_accuracy").score([Answered(item, "Cafe\u0301")]) == 100
    assert get_metric("vqa_accuracy", compat=True).score([Answered(item, "Cafe\u0301")]) == 0
    assert get_metric("vqa_accuracy").score([Answered(Item("1", "", "", ("stra\u00dfe",) * 10), "strasse")]) == 0


# JSON


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"shape": "circle", "colour": "red"}', 100),
        ('\n{"colour":"red","shape":"circle"} ', 100),
        ('{"shape": "circle", "colour": "blue"}', 50),
        ('{"shape": "circle"}', 50),
        ('{"shape": "circle", "colour": "red", "size": 1, "more": 2}', 50),
        ('{"shape": "Circle", "colour": ["red"]}', 0),
        ("{}", 0),
        ("circle", 0),
        ("", 0),
        ('["circle", "red"]', 0),
        ('{"shape": "circle", "colour": "red"', 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_fields_count_one_by_one(text: str, score: float) -> None:
    metric = get_metric("json_fields")
    assert metric.per_item([answered(text, '{"shape": "circle", "colour": "red"}')]) == [score]


def test_json_fields_takes_the_best_reference_and_keeps_types_apart() -> None:
    metric = get_metric("json_fields")
    assert metric.score([answered('{"n": 1}', '{"n": 2}', '{"n": 1}')]) == 100
    assert metric.score([answered('{"n": true}', '{"n": 1}')]) == 0
    assert metric.score([answered('{"n": {"a": 1, "b": 2}}', '{"n": {"b": 2, "a": 1}}')]) == 100


@pytest.mark.parametrize("reference", ["circle", "{}", "[1]"])
def test_json_fields_refuses_references_without_fields(reference: str) -> None:
    with pytest.raises(InputError, match="not a JSON object with fields"):
        get_metric("json_fields").check([answered("", reference).item])


ONE, OTHER = '{"box": [0, 0, 0.5, 1], "label": "Lynx"}', '{"box": [0.5, 0, 1, 0.5], "label": "owl"}'
HALF = '{"box": [0, 0, 0.25, 1], "label": "lynx"}'


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        (f"[{ONE}]", f"[{ONE}]", 100),
        (f"[{OTHER}, {ONE}]", f"[{ONE}, {OTHER}]", 100),  # in any order
        (f"[{HALF}]", f"[{ONE}]", 50),
        (f"[{ONE}, {HALF}]", f"[{ONE}]", 50),  # the better one is paired, the other is one too many
        (f"[{ONE}]", f"[{ONE}, {OTHER}]", 50),
        (f"[{ONE.replace('Lynx', 'owl')}]", f"[{ONE}]", 0),
        ("[]", f"[{ONE}]", 0),
        ("[]", "[]", 100),
        ("none", "[]", 100),
        (f"[{ONE}]", "[]", 0),
        (f"[{ONE}]", '[{"box": [0, 0, 0.5, 1]}]', 100),  # a reference without a label takes any
        ('[{"box": [0, 0, 0.5, 1]}]', f"[{ONE}]", 0),
        ("a lynx", f"[{ONE}]", 0),
    ],
)
def test_boxes_are_paired_by_label_and_overlap(text: str, reference: str, score: float) -> None:
    assert get_metric("box_iou").per_item([answered(text, reference)]) == [score]


def test_boxes_over_a_threshold_are_counted_and_the_best_reference_counts() -> None:
    at_half, above = get_metric("box_iou", threshold=0.5), get_metric("box_iou", threshold=0.51)
    assert at_half.score([answered(f"[{HALF}]", f"[{ONE}]")]) == 100
    assert above.score([answered(f"[{HALF}]", f"[{ONE}]")]) == 0
    assert above.score([answered(f"[{HALF}]", f"[{ONE}]", f"[{HALF}]")]) == 100


@pytest.mark.parametrize("threshold", [0, 1.5, "half", float("nan"), True])
def test_a_threshold_that_is_none_is_refused(threshold: object) -> None:
    with pytest.raises(InputError, match="threshold"):
        get_metric("box_iou", threshold=threshold)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("lynx", "the answer 'lynx' is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("null", "box 0 of its answer is None"),
        ('[{"box": [0, 0, 2, 1]}]', "box 0 of its answer, .* x2 is 2; .* Pixels"),
        ('[{"box": [1, 2, 3]}]', "box 0 of its answer is dict"),
        (f'[{ONE}, {{"bbox_2d": [0, 0, 1, 1]}}]', "box 1 of its answer is dict"),
        (f'[{ONE}, {{"box": [0, 0, 1, 1], "label": 7}}]', "box 1 of its answer, .* `label` is int"),
    ],
)
def test_references_with_any_bad_box_are_refused(reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_metric("box_iou").check([answered("", f"[{ONE}]", reference).item])
