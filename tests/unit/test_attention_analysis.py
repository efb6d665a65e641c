"""Shares, densities and standard errors from attention maps made by hand, and the prompts that are measured."""

import math
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from PIL import Image

from aim_sdk import AttentionMap, Demonstration, PromptFormat, Query
from aim_sdk.analysis import report
from aim_sdk.analysis.attention import (
    InterleavedPrompt,
    LayerAttention,
    Measurement,
    measure,
    summarize,
    text_token_share,
)
from aim_sdk.analysis.prompts import from_files, from_tasks
from aim_sdk.answering.queries import NumberedQuery, QueryLine
from aim_sdk.backend import ShowsAttention
from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import CapabilityError, InputError, ShotsError
from aim_sdk.evaluation.batches import QueryInContext
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.plan import draws
from aim_sdk.evaluation.protocol import get_protocol
from aim_sdk.support.clusters import clustered_error
from aim_sdk.types import TokenKind

PICTURE = Image.new("RGB", (4, 4))
SHOWN = (Demonstration(PICTURE, "", "a"),)
FORM = PromptFormat.plain("{image} {answer}\n")
KINDS: tuple[TokenKind, ...] = (
    "first",
    *("demonstration visual",) * 4,
    *("demonstration text",) * 2,
    *("query visual",) * 4,
    "query text",
)
# layer 3: uniform; layer 5: half on the first token, the rest on one text token
WEIGHTS = torch.tensor([[1 / 12] * 12, [0.5, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]])


class Hidden:
    """A backend that generates one answer."""

    name = "shown"
    lacks: ClassVar[dict[type, str]] = {}

    def __init__(self, weights: torch.Tensor, generated: str = "") -> None:
        self.map = AttentionMap(weights, (3, 5), KINDS, 1)
        self.injector, self.generated = self, generated
        self.asked: list[str] = []

    def generate(self, *args: object, **kwargs: object) -> list["Hidden"]:
        return [self]

    @property
    def text(self) -> str:
        return self.generated


class Shown(Hidden):
    """Shows one map."""

    def attention(self, query: Query, demonstrations: Any, answer: str, *, prompt_format: PromptFormat) -> AttentionMap:
        self.asked.append(answer)
        return self.map


def measured(weights: torch.Tensor, group: str) -> Measurement:
    prompt = InterleavedPrompt(Query(PICTURE), SHOWN, "a", group)
    return measure(cast(Backend, Shown(weights)), prompt, FORM)


def estimated(row: LayerAttention) -> float:
    assert row.text_share is not None
    return row.text_share.mean


def test_shares_and_densities_of_a_map() -> None:
    uniform, peaked, both = summarize([measured(WEIGHTS, "a")])
    assert (uniform.layer, peaked.layer, both.layer) == (3, 5, None)
    assert sum(share.mean for share in uniform.shares.values()) == pytest.approx(1)
    assert uniform.shares["demonstration visual"].mean == pytest.approx(4 / 12)
    assert estimated(uniform) == pytest.approx(2 / 6)
    held = [density for density in uniform.densities.values() if density is not None]
    assert held == pytest.approx([1 / 12] * 5)
    assert uniform.densities["prefix"] is None
    assert estimated(peaked) == 1
    assert peaked.densities["demonstration text"] == pytest.approx(0.25)
    assert both.shares["first"].mean == pytest.approx((1 / 12 + 0.5) / 2)
    assert text_token_share([measured(WEIGHTS, "a")]) == pytest.approx(2 / 6)


def test_standard_errors_count_groups_and_not_queries() -> None:
    other = torch.full((2, 12), 1 / 12)
    once = [measured(WEIGHTS, "a"), measured(other, "b"), measured(other, "c")]
    error = summarize(once)[1].shares["first"].standard_error
    assert error == pytest.approx((0.5 - 1 / 12) / 3)
    twice = [*once, *once]
    assert summarize(twice)[1].shares["first"].standard_error == pytest.approx(error)
    assert summarize([measured(WEIGHTS, "a")] * 3)[0].shares["first"].standard_error is None
    assert clustered_error([1.0, 3.0, 2.0], ["a", "b", "c"]) == pytest.approx(1 / 3**0.5)


def test_an_error_that_says_nothing_is_none() -> None:
    """Two clusters with as many right answers gave 0.00 at n=14, and so do answers that are all right."""
    two = [1.0, 0.0] * 7
    assert math.isnan(clustered_error(two, ["a"] * 6 + ["b"] * 8))
    assert math.isnan(clustered_error([1.0] * 14, range(14)))
    assert math.isnan(clustered_error([0.1] * 14, range(14)))
    assert math.isnan(clustered_error(two * 2, ["a"] * 14 + ["b"] * 14))
    assert clustered_error(two, range(14)) == pytest.approx(math.sqrt(0.25 / 13))


def test_a_layer_that_sees_no_demonstration_has_no_text_share() -> None:
    blind = torch.zeros(2, 12)
    blind[:, 0] = 1
    rows = summarize([measured(blind, "a")])
    assert [row.text_share for row in rows] == [None] * 3
    assert "-" in str(list(report.table(rows, [measured(blind, "a")]).columns[8].cells))


def test_the_models_own_answer_is_taken_where_none_is_known() -> None:
    unknown = InterleavedPrompt(Query(PICTURE), SHOWN, None, "a")
    backend = Shown(WEIGHTS, "a lynx")
    assert measure(cast(Backend, backend), unknown, FORM).answer == "a lynx"
    assert backend.asked == ["a lynx"]
    with pytest.raises(InputError, match="own answer is empty"):
        measure(cast(Backend, Shown(WEIGHTS)), unknown, FORM)


def test_a_backend_without_the_capability_says_so() -> None:
    prompt = InterleavedPrompt(Query(PICTURE), SHOWN, "a", "a")
    with pytest.raises(CapabilityError, match=r"backend 'shown' lacks .*'attention' .*: its class has no `attention`"):
        measure(cast(Backend, Hidden(WEIGHTS)), prompt, FORM)
    assert measure(cast(Backend, Shown(WEIGHTS)), prompt, FORM).answer == "a"
    lacking = type("Lacking", (Shown,), {"lacks": {ShowsAttention: "its images are not in the prompt"}})(WEIGHTS)
    with pytest.raises(CapabilityError, match=r"lacks .*'attention' .*: its images are not in the prompt\."):
        measure(lacking, prompt, FORM)


def asked(number: int, **fields: str) -> NumberedQuery:
    line = QueryLine.model_validate({"image": f"{number}.png", **fields})
    return NumberedQuery(number, line, Query(line.image, line.text))


def test_demonstrations_are_drawn_for_each_query_and_never_its_own_image() -> None:
    pool = [Demonstration(f"{n}.png", "", "a") for n in range(6)]
    queries = [asked(n, answer=" " if n == 2 else "gold") for n in range(1, 6)]
    prompts = from_files(pool, queries, shots=3, seed=0)
    assert [prompt.answer for prompt in prompts] == ["gold", None, "gold", "gold", "gold"]
    assert len({prompt.group for prompt in prompts}) == 5
    for prompt in prompts:
        images = [item.image for item in prompt.demonstrations]
        assert len(set(images)) == 3
        assert prompt.query.image not in images
    assert from_files(pool, queries, shots=3, seed=0) == prompts
    assert from_files(pool, queries[2:], shots=3, seed=0) == prompts[2:], "a query's draw is its own"
    assert from_files(pool, queries, shots=3, seed=1) != prompts
    with pytest.raises(ShotsError, match="6 shots asked for, but a query has 5"):
        from_files(pool, queries, shots=6, seed=0)


def test_tasks_take_turns() -> None:
    drawn = [QueryInContext(Item(str(n), PICTURE, "", ("a",)), Query(PICTURE), [("s", SHOWN[0])]) for n in range(3)]
    prompts = from_tasks({"x": drawn, "y": drawn[:2]})
    assert [prompt.group for prompt in prompts] == ["x 0", "y 0", "x 1", "y 1", "x 2"]
    assert all((list(prompt.demonstrations), prompt.answer) == (list(SHOWN), "a") for prompt in prompts)
    with pytest.raises(ShotsError):
        draws("easy-vqa", get_protocol("demo"), shots=65, limit=1)


def test_the_plot_replaces_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "attention.png"
    path.write_bytes(b"old")
    measurements = [measured(WEIGHTS, "a")]
    report.plot(summarize(measurements), measurements, path)
    with Image.open(path) as image:
        assert image.size[0] > 1000
    assert [item.name for item in tmp_path.iterdir()] == ["attention.png"]
