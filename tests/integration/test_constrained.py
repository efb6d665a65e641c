"""Constrained answers of whole pipelines: with fused demonstrations, beams, samples, streams, from the command line."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from pydantic import BaseModel, Field

from aim_sdk import AIMPipeline, Demonstration, Query
from aim_sdk.errors import CapabilityError, CutAnswerError, FormatError, InputError, MissingDependencyError
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES
from tests.conformance.third_party.adapter import KiteBackend
from tests.conftest import CalledCli

CHOICES = ["a cat", "a", "a catfish", "no\nline", " Grüße 猫 "]


class Seen(BaseModel):
    animal: Literal["lynx", "owl 猫"]
    count: int = Field(ge=0, le=9)


JSON_SHOTS = [
    Demonstration(item.image, item.text, json.dumps({"animal": "lynx", "count": place}))
    for place, item in enumerate(DEMONSTRATIONS)
]


@pytest.fixture(scope="module", params=["llava-1.5", "qwen2.5-vl", "blip-2", "janus"])
def pipe(request: pytest.FixtureRequest, tiny: Callable[[str], Path]) -> AIMPipeline:
    with pytest.warns(UserWarning, match="no projector was given"):
        made = AIMPipeline.from_pretrained(tiny(request.param), device="cpu")
    made.bank.add(DEMONSTRATIONS)
    return made


@pytest.fixture(scope="module")
def pocket() -> AIMPipeline:
    return AIMPipeline.from_pretrained("pocket", device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True},
        {"do_sample": True, "temperature": 5.0},
        {"repetition_penalty": 3.0},
        {"log_probs": True},
    ],
)
def test_answers_are_choices_under_every_option(pipe: AIMPipeline, options: dict[str, Any]) -> None:
    for _ in range(2):  # the second time after prefixes that were kept
        made = pipe.generate(QUERIES, choices=CHOICES, max_new_tokens=1, selector="first", **options)
        assert {answer.text for answer in made} <= set(CHOICES)
        assert all(len(answer.demonstrations) == 3 for answer in made)
    found = [
        Seen.model_validate_json(a.text) for a in pipe.generate(QUERIES, schema=Seen, max_new_tokens=400, **options)
    ]
    assert len(found) == 3


def test_a_batch_is_its_queries_one_by_one_and_streamed(pipe: AIMPipeline) -> None:
    for form in ({"choices": CHOICES}, {"schema": Seen, "max_new_tokens": 400}):
        options: dict[str, Any] = {**form, "shots": 2}
        batch = [answer.text for answer in pipe.generate(QUERIES, **options)]
        assert batch == [pipe(query, **options) for query in QUERIES]
        assert batch == ["".join(pipe.stream(query, **options)) for query in QUERIES]
    assert pipe.generate(QUERIES, choices=["only this"])[1].text == "only this"


def test_an_option_that_leaves_no_token_is_named(pipe: AIMPipeline) -> None:
    (other,) = pipe.backend.backbone.tokenizer("~", add_special_tokens=False)["input_ids"][-1:]  # type: ignore[attr-defined]
    all_else = [token for token in range(pipe.backend.vocabulary.outputs.shape[0]) if token != other]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="suppress_tokens"):
        pipe(QUERIES[0], choices=["a cat"], suppress_tokens=all_else)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"choices": []}, "at least one non-blank string"),
        ({"choices": "abc"}, "at least one non-blank string"),
        ({"choices": 7}, "choices: 7"),
        ({"choices": ["a", " "]}, "' ' at 1 is blank"),
        ({"choices": ["a", None]}, "None at 1 is of the type NoneType"),
        ({"choices": ["a", "b", "a"]}, "'a' at 0 and 'a' at 2 are the same"),
        ({"choices": ["a", "a "]}, "'a' at 0 and 'a ' at 1 differ only in surrounding blanks"),
        ({"choices": ["\ud800"]}, "half of a character"),
        ({"choices": ["a"], "schema": Seen}, "pass one of them"),
        ({"schema": "x.json"}, "a JSON schema as a dict"),
        ({"schema": {"type": "objekt"}}, "objekt"),
        ({"choices": ["a"], "mode": "nearest"}, "nearest"),
        ({"choice": ["a"]}, "Did you mean 'choices'"),
    ],
)
def test_what_cannot_be_kept_is_refused(pipe: AIMPipeline, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe(QUERIES[0], **given)
    with pytest.raises(InputError, match=said):
        pipe.stream(QUERIES[0], **given)


def test_without_its_package_the_extra_is_named(pipe: AIMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r'llguidance.*\n.*"aim-icl\[constrained\]"'):
        pipe(QUERIES[0], choices=["a"])


def test_a_backend_that_cannot_says_so() -> None:
    with pytest.raises(CapabilityError, match="constraints"):
        AIMPipeline(KiteBackend())(QUERIES[0], choices=["a"])


@pytest.mark.slow
def test_what_the_model_says_of_itself_stays_token_by_token(pocket: AIMPipeline) -> None:
    """Demonstrations whose answers are JSON make pocket write JSON; the schema then changes no token."""
    options: dict[str, Any] = {"demonstrations": JSON_SHOTS, "max_new_tokens": 40}
    free = pocket.generate(QUERIES, **options)
    assert all(json.loads(answer.text) for answer in free)
    schema = {"type": "object", "properties": {"animal": {"type": "string"}, "count": {"type": "integer"}}}
    assert pocket.generate(QUERIES, schema=schema, **options) == free
    assert pocket.generate(QUERIES, choices={answer.text for answer in free}, **options) == free
    kept = pocket.generate(QUERIES[1:2], schema=Seen, **options)[0].text
    assert Seen.model_validate_json(kept)
    assert "".join(pocket.stream(QUERIES[1], schema=Seen, **options)) == kept


def test_cut_json_names_its_query(pocket: AIMPipeline) -> None:
    options: dict[str, Any] = {"demonstrations": JSON_SHOTS, "schema": Seen}
    with pytest.raises(CutAnswerError, match="after 3 tokens") as caught:
        pocket.generate(QUERIES[:2], max_new_tokens=3, batch_size=1, **options)
    assert caught.value.query == 0
    with pytest.raises(CutAnswerError):
        list(pocket.stream(QUERIES[0], max_new_tokens=3, **options))
    assert pocket(QUERIES[0], shots=0, choices=["a cat", "yes"], max_new_tokens=1) in ("a cat", "yes")


@pytest.fixture
def desk(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    for place, picture in enumerate(pictures[:4]):
        picture.save(tmp_path / f"{place}.png")
    shown = [{"image": f"{n}.png", "text": "What?", "answer": '{"animal": "lynx", "count": 1}'} for n in range(2)]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shown))
    asked = [{"image": f"{n}.png", "text": "What?"} for n in (2, 3)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    (tmp_path / "seen.json").write_text(
        json.dumps(Seen.model_json_schema() | {"additionalProperties": False}, indent=2)
    )
    return tmp_path


def test_the_command_answers_by_schema(desk: Path, tiny: Callable[[str], Path], call_cli: CalledCli) -> None:
    out = desk / "answers.jsonl"

    def run(*more: str) -> Any:
        files = ("--demos", str(desk / "demos.jsonl"), "--queries", str(desk / "queries.jsonl"), "--out", str(out))
        return call_cli("answer", "--model", str(tiny("llava-1.5")), "--backend", "llava", *files, *more)

    schema = ("--schema", str(desk / "seen.json"))
    cut = run(*schema, "--max-new-tokens", "3")
    assert cut.returncode == 3
    assert "cut after 3 tokens" in cut.stderr
    out.unlink()
    made = run(*schema, "--max-new-tokens", "400")
    assert made.returncode == 0, made.stderr
    answers = [json.loads(line)["answer"] for line in out.read_text().splitlines()]
    assert len([Seen.model_validate_json(answer) for answer in answers]) == 2
    (desk / "seen.json").write_text('{"type": "integer"}')
    assert "schema" in run(*schema, "--max-new-tokens", "400").stderr  # answers of another schema
    out.unlink()
    for text, said in (("[1]", "expected an object"), ("{", "not JSON"), ('{"type": "objekt"}', "objekt")):
        (desk / "seen.json").write_text(text)
        refused = run(*schema)
        assert refused.returncode != 0
        assert said in refused.stderr
        assert not out.exists()
    assert "cannot be read" in run("--schema", str(desk / "none.json")).stderr
    assert "pass one of them" in run(*schema, "--choices", "a,b").stderr
    assert "nearest" in run(*schema, "--mode", "nearest").stderr


def test_queries_are_answered_in_their_order(pocket: AIMPipeline) -> None:
    """Batches are sorted by length; what is constrained is not mixed up."""
    queries = [Query(query.image, query.text * times) for query, times in zip(QUERIES, (3, 1, 2), strict=True)]
    free = pocket.generate(queries, shots=0, max_new_tokens=4)
    texts = [answer.text for answer in free if answer.text]
    again = pocket.generate(queries, shots=0, choices=dict.fromkeys(texts), batch_size=2)
    assert [one.text for one in again if one.text] == [one.text if one.text else "" for one in free if one.text]


def test_a_choice_that_spells_a_special_token_is_refused(pipe: AIMPipeline, pictures: list[Image.Image]) -> None:
    """No answer can be it: the model would take it for the token."""
    backend: Any = pipe.backend
    special = str(backend.backbone.tokenizer.eos_token)
    with pytest.raises(FormatError, match=re.escape(special)):
        pipe(pictures[0], "What is it?", shots=0, choices=["a fox", f"a {special}"])
