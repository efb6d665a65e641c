"""Constrained decoding with real tokenizers of several kinds, and scores of no model: whatever they are, it is kept."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from transformers import AutoTokenizer

from aim_sdk.backend.constraints import Constraint, JsonSchema, OneOf
from aim_sdk.backend.grammar import AnswerGrammar, token_bytes
from aim_sdk.errors import CutAnswerError, InputError
from aim_sdk.injection.choices import checked_choices

KINDS = ("llava-1.5", "qwen2.5-vl", "kosmos-2", "paligemma")
"""Byte fallback with and without a leading blank, byte-level, Metaspace, tokens of places."""
STOPS = (None, "\n\n###", "a")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny(request.param))


@pytest.fixture(scope="module")
def spelled(tokenizer: Any) -> Any:
    return token_bytes(tokenizer.backend_tokenizer.to_str())


def grammar(spelled: Any, tokenizer: Any, constraint: Constraint, stop: str | None = None) -> AnswerGrammar:
    return AnswerGrammar(spelled, constraint, ends=[tokenizer.eos_token_id], stop=stop)


def decoded(
    made: AnswerGrammar, limit: int, seed: int, rows: int = 1, wanted: Sequence[int] = (), width: int = 1700
) -> list[list[int]]:
    """Greedy tokens of random scores, in which the tokens that are wanted stand out; ended rows are padded."""
    drawn, ids = np.random.default_rng(seed), [list[int]() for _ in range(rows)]
    for step in range(limit):
        scores = torch.from_numpy(drawn.standard_normal((rows, width)))
        if step < len(wanted):
            scores[:, wanted[step]] += 100
        best = made.admit(ids, scores).argmax(-1).tolist()
        over = made.over(ids)
        ids = [[*row, 0 if ended else token] for row, ended, token in zip(ids, over, best, strict=True)]
        if all(made.over(ids)):
            break
    return [made.cut(row) for row in ids]


def pieces_of(made: AnswerGrammar, row: list[int]) -> Iterator[str]:
    """An answer's text, whole characters at a time."""
    sent = ""
    for n in range(len(row) + 1):
        text = made.text(row[:n])
        if not text.endswith("\ufffd"):
            yield text[len(sent) :]
            sent = text


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
words = st.lists(
    st.sampled_from(["a", "ab", "a b", "cat", "cat fish", " cat ", "é", "猫", "\n"]), min_size=1, max_size=4
)


def distinct(choices: list[str]) -> list[str]:
    kept = {choice.strip(): choice for choice in choices if choice.strip()}
    return list(kept.values()) or ["x"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(texts | words.map("".join), min_size=1, max_size=6).map(distinct),
    st.sampled_from([*STOPS, "\n", " "]),
    st.integers(0, 2**32),
)
def test_an_answer_is_a_choice_whatever_the_scores(
    tokenizer: Any, spelled: Any, choices: list[str], stop: str | None, seed: int
) -> None:
    made = grammar(spelled, tokenizer, OneOf(tuple(checked_choices(choices, fewest=1))), stop)
    batch = decoded(made, made.limit(1), seed, rows=3)
    answers = [made.answer(row) for row in batch]
    assert set(answers) <= set(choices)
    if len(choices) == 1:
        assert answers == choices * 3
    assert ["".join(made.pieces(map(chr, range(3)), row)) for row in batch] == answers  # a choice comes in one piece


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words.map("".join), min_size=1, max_size=6).map(distinct), st.data())
def test_what_is_said_is_said_in_the_same_tokens(
    tokenizer: Any, spelled: Any, choices: list[str], data: st.DataObject
) -> None:
    said = data.draw(st.sampled_from(choices))
    ids = tokenizer(said.strip(), add_special_tokens=False)["input_ids"]
    if spelled.decode_bytes(ids).decode().strip() != said.strip():
        return  # its tokenizer writes that text otherwise
    made = grammar(spelled, tokenizer, OneOf(tuple(choices)))
    wanted = [*ids, tokenizer.eos_token_id]
    (row,) = decoded(made, made.limit(1), 0, wanted=wanted)
    assert made.answer(row) == said
    assert row in (wanted, ids)  # where nothing may follow, no end is needed


class Node(BaseModel):
    name: Literal["lynx", "猫 ☃", 'quo"te\\']
    child: "Node | None" = None


class Sighting(BaseModel):
    code: Annotated[str, Field(pattern=r"^[A-C]{2}-\d{1,3}$")]
    count: Annotated[int, Field(ge=-3, le=12)]
    share: Annotated[float, Field(ge=0, le=1)]
    seen: bool
    note: Annotated[str, Field(max_length=4)] | None
    tags: Annotated[list[Literal["a", "b"]], Field(min_length=1, max_length=3)]


@pytest.mark.parametrize("model", [Node, Sighting])
@pytest.mark.parametrize("stop", STOPS)
def test_json_is_whole_and_of_its_schema_or_refused(
    tokenizer: Any, spelled: Any, model: type[BaseModel], stop: str | None
) -> None:
    made, whole = grammar(spelled, tokenizer, JsonSchema.of(model), stop), 0
    for seed in range(5):
        (row,) = decoded(made, 250, seed)
        try:
            answer = made.answer(row)
        except CutAnswerError:
            assert len(row) == 250
            continue
        model.model_validate_json(answer)
        assert answer == answer.strip()
        assert "".join(made.pieces(pieces_of(made, row), row)) == answer
        whole += 1
        for length in range(0, len(row), 5):  # no beginning of it passes for it
            try:
                assert made.answer(row[:length]) == answer
            except CutAnswerError:
                continue
    assert whole


def test_json_that_is_said_is_said_in_the_same_tokens(tokenizer: Any, spelled: Any) -> None:
    kept = {"name": "猫 ☃", "child": {"name": "lynx", "child": None}}
    for separators in ((", ", ": "), (",", ":")):
        text = json.dumps(kept, ensure_ascii=False, separators=separators)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if spelled.decode_bytes(ids).decode().strip() != text:
            continue
        made = grammar(spelled, tokenizer, JsonSchema.of(Node), "\n")
        (row,) = decoded(made, 500, 0, wanted=[*ids, tokenizer.eos_token_id])
        assert row == [*ids, tokenizer.eos_token_id]
        assert made.answer(row) == text


class _Short(BaseModel):
    a: Literal["red", "blue"]
    n: Annotated[int, Field(ge=0, le=9)]


@pytest.mark.parametrize("text", ['{ "a": "red"}', '{"a":  "red"}', '{"a":\n"red"}', '{"a" :"red"}', '{"a":\t"red"}'])
def test_json_has_no_blanks_but_one_after_a_comma_or_a_colon(tokenizer: Any, spelled: Any, text: str) -> None:
    made = grammar(spelled, tokenizer, JsonSchema.of(_Short))
    ids = spelled.tokenize_str(text)
    assert made.cut(ids) != ids
    blanks = torch.zeros(1, 1700)
    for token in spelled.tokenize_str(" ") + spelled.tokenize_str("\t") + spelled.tokenize_str("\n"):
        blanks[:, token] = 100  # a model that would write nothing but blanks
    row: list[int] = []
    while not made.over([row])[0]:
        row.append(int(made.admit([row], blanks).argmax()))
        assert len(row) < 60
    _Short.model_validate_json(made.answer(row))


def test_an_escape_does_not_write_a_declared_name(tokenizer: Any, spelled: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    made = grammar(spelled, tokenizer, JsonSchema.of(schema))
    ids = spelled.tokenize_str('{"\\u0061":"x"}')  # is {"a": "x"}
    assert made.cut(ids) != ids


def test_a_number_that_may_go_on_is_cut(tokenizer: Any, spelled: Any) -> None:
    made = grammar(spelled, tokenizer, JsonSchema.of({"type": "integer", "minimum": 10, "maximum": 12345}))
    digits = tokenizer("123", add_special_tokens=False)["input_ids"]
    with pytest.raises(CutAnswerError, match=r"cut after \d tokens, before it was whole; it ends in '123'"):
        made.answer(digits)
    assert made.answer([*digits, tokenizer.eos_token_id]) == "123"
    five = tokenizer("12345", add_special_tokens=False)["input_ids"]
    assert made.over([five]) == [True]
    assert made.answer(five) == "12345"


def test_any_json_is_of_the_empty_schema(tokenizer: Any, spelled: Any) -> None:
    made = grammar(spelled, tokenizer, JsonSchema.of({}), "\n")
    for text in ('[1, {"a": null}]', '"x"', "true"):
        wanted = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        (row,) = decoded(made, 50, 0, wanted=wanted)
        assert made.answer(row) == text


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            {"type": "object", "properties": {"a": {"enum": ["x"], "type": "integer"}}, "required": ["a"]},
            "properties.a: nothing is of it",
        ),
        ({"type": "string", "pattern": "^(?=a)"}, "pattern '^(?=a)' is not kept: look-around"),
        ({"type": "string", "pattern": "("}, "pattern '(' is not kept: unclosed group"),
        ({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 5}, "no multiple of multipleOf"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "Next: anyOf"),
        ({"properties": {"a": {"type": "string"}}, "minProperties": 1}, "only where every property is required"),
        ({"$defs": {"a/b": {"oneOf": [True, True]}}, "items": {"$ref": "#/$defs/a~1b"}}, "$defs.a/b: oneOf"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_at_its_place(
    tokenizer: Any, spelled: Any, schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match="schema: ") as caught:
        grammar(spelled, tokenizer, JsonSchema.of(schema))
    assert said in str(caught.value)
    assert "start: " not in str(caught.value)  # no grammar of ours
    assert len(str(caught.value)) < 250


def test_a_schema_that_was_not_checked_is_refused(tokenizer: Any, spelled: Any) -> None:
    with pytest.raises(InputError, match="uniqueItems"):
        grammar(spelled, tokenizer, JsonSchema(json.dumps({"uniqueItems": True, "x-guidance": {"lenient": True}})))


@pytest.mark.parametrize(
    ("constraint", "stop", "said"),
    [
        (OneOf(("No", "No.")), ".\n", "No."),
        (OneOf(("a", "a#")), "##", "a#"),
        (JsonSchema('{"type": "integer"}'), "0\n", "10"),
    ],
)
def test_what_an_end_token_ends_is_not_cut_by_a_part_of_the_stop_string(
    tokenizer: Any, spelled: Any, constraint: Constraint, stop: str, said: str
) -> None:
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert grammar(spelled, tokenizer, constraint, stop).answer([*ids, tokenizer.eos_token_id]) == said


def test_padding_after_an_answer_is_cut(tokenizer: Any, spelled: Any) -> None:
    """A batch puts its padding there, which may be a token that ends texts elsewhere."""
    for constraint, text in ((OneOf(("cat", "dog")), "cat"), (JsonSchema.of({"type": "object"}), "{}")):
        made = grammar(spelled, tokenizer, constraint)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for pad in {tokenizer.eos_token_id, tokenizer.pad_token_id, *spelled.eos_tokens} - {None}:
            kept = made.cut([*ids, pad, pad])
            assert kept in (ids, [*ids, tokenizer.eos_token_id])
            assert made.answer(kept) == text


def test_an_option_that_excludes_all_that_may_follow_is_named(tokenizer: Any, spelled: Any) -> None:
    made = grammar(spelled, tokenizer, OneOf(("cat",)))
    with pytest.raises(InputError, match="suppress_tokens"):
        made.admit([[]], torch.full((1, 1700), -torch.inf))


def test_tokens_that_no_constraint_admits_are_not_an_answer(tokenizer: Any, spelled: Any) -> None:
    made = grammar(spelled, tokenizer, OneOf(("cat", "dog")))
    wrong = tokenizer("bird", add_special_tokens=False)["input_ids"]
    assert made.admit([wrong], torch.zeros(1, 1700)).isfinite().all()  # a beam without a chance
    with pytest.raises(InputError, match="does not admit"):
        made.answer(wrong)
