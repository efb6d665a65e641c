"""Paired comparisons and reports: hand-computed, symmetric, honest about what is not there."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError, InputError
from aim_sdk.evaluation import report
from aim_sdk.evaluation.compare import compare, permutation_p, table
from aim_sdk.evaluation.results import RESULT, Answers, Cell, Prediction, Run, Score
from aim_sdk.types import Mode


def cells(mode: Mode, shots: int, by_seed: dict[int, list[float | None]], task: str = "colours") -> list[Answers]:
    return [
        Answers(
            cell=Cell(task=task, mode=mode, shots=shots, seed=seed),
            predictions=tuple(
                Prediction(
                    item=f"q{number}",
                    demonstrations=("s1",) * shots,
                    raw="x",
                    answer="x",
                    score=value,
                    prompt_tokens=9,
                    seconds=0.1,
                )
                for number, value in enumerate(values)
            ),
            peak_bytes=2**20,
        )
        for seed, values in by_seed.items()
    ]


def run(answers: list[Answers], protocol: str = "aim", **changes: Any) -> Run:
    groups: dict[tuple[str, Mode, int], list[Answers]] = {}
    for cell in answers:
        groups.setdefault((cell.cell.task, cell.cell.mode, cell.cell.shots), []).append(cell)
    scores = []
    for (task, mode, shots), found in groups.items():
        by_seed = {c.cell.seed: sum(p.score or 0 for p in c.predictions) / len(c.predictions) for c in found}
        values: dict[str, Any] = {
            "value": sum(by_seed.values()) / len(by_seed),
            "standard_error": 3.0,
            "too_long": 0,
            **changes,
        }
        scores.append(
            Score(
                task=task,
                mode=mode,
                shots=shots,
                metric="exact_match",
                seeds_error=math.nan,
                by_seed=by_seed,
                queries=len(found[0].predictions),
                prompt_tokens=9,
                seconds=0.1,
                peak_bytes=None,
                **values,
            )
        )
    return Run(
        date="2026-11-25",
        command=None,
        settings={"selector": "random", "left_out": {"interleaved": "one image a prompt"}},
        protocol={"name": protocol, "description": "<b>plain</b>"},
        tasks={},
        metrics={"exact_match": "exact match, %"},
        backbone={"model": "m|<script>", "backend": "b"},
        projector={"kind": "carrier", "hash": "0" * 64},
        revision=None,
        versions={"python": "3"},
        machine={"cores": 2},
        reading_seconds=1.0,
        scores=tuple(scores),
        answers=tuple(answers),
    )


FIRST = run(cells("aim", 2, {0: [0, 0, 100, 0], 1: [0, 100, 100, 0]}))
SECOND = run(cells("aim", 2, {0: [100, 0, 100, 100], 1: [100, 0, 100, 100]}))


def test_a_difference_is_paired_by_query_and_seed() -> None:
    (found,) = compare(FIRST, SECOND)
    assert (found.first, found.second, found.difference) == (37.5, 75, 37.5)
    assert (found.pairs, found.better, found.worse) == (8, 4, 1)
    assert found.same_demonstrations
    # Queries differ by +200, -100, 0 and +200 over their seeds: of the eight signs, two reach +-300, two more +-500.
    assert found.p == pytest.approx(permutation_p([200, -100, 200])) == pytest.approx(4 / 8)
    assert found.standard_error == pytest.approx(math.sqrt(4 / 3 * (125**2 + 175**2 + 75**2 + 125**2)) / 8)
    assert table([found]).row_count == 1


def test_a_run_does_not_differ_from_itself_and_order_turns_the_sign() -> None:
    (same,) = compare(FIRST, FIRST)
    assert (same.difference, same.standard_error, same.p, same.better, same.worse) == (0, 0, 1, 0, 0)
    (one,), (other,) = compare(FIRST, SECOND), compare(SECOND, FIRST)
    assert (one.difference, one.p, one.better, one.worse) == (-other.difference, other.p, other.worse, other.better)


@given(st.integers(1, 12), st.integers(0, 12))
def test_of_equal_differences_the_test_is_the_sign_test(plus: int, minus: int) -> None:
    count = plus + minus
    if count > 12:
        return
    tail = sum(math.comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= abs(plus - minus))
    assert permutation_p([1.0] * plus + [-1.0] * minus) == pytest.approx(tail / 2**count)


def test_many_queries_are_flipped_at_random() -> None:
    assert permutation_p([1.0] * 40 + [-1.0] * 40) == pytest.approx(1.0)
    assert permutation_p([1.0] * 40) == pytest.approx(1 / 10_001)
    assert permutation_p([1.0] * 30 + [-1.0] * 18) == pytest.approx(0.111, abs=0.02)  # the exact sign test's


def test_p_values_are_corrected_for_their_number() -> None:
    first = [*FIRST.answers, *cells("aim", 4, {0: [0] * 8}), *cells("text-only", 4, {0: [0, 100] * 4})]
    second = [*SECOND.answers, *cells("aim", 4, {0: [100] * 8}), *cells("text-only", 4, {0: [100, 0] * 4})]
    found = compare(run(first), run(second))
    assert [d.p for d in found] == pytest.approx([0.5, 2 / 256, 1.0])
    assert [d.p_holm for d in found] == pytest.approx([1.0, 6 / 256, 1.0])


def test_modes_are_compared_and_zero_shot_goes_with_every_seed() -> None:
    whole = run(
        cells("zero-shot", 0, {0: [0, 0]})
        + cells("aim", 2, {0: [100, 0], 1: [100, 100]})
        + cells("aim", 4, {0: [0, 0]})
    )
    two, four = compare(whole, whole, modes=("zero-shot", "aim"))
    assert (two.shots, two.difference, two.pairs) == ((0, 2), 75, 4)
    assert (four.shots, four.difference, four.pairs) == ((0, 4), 0, 2)
    assert not two.same_demonstrations


def test_without_scores_of_their_own_the_errors_are_combined() -> None:
    one, other = (run(cells("aim", 2, {0: [None, None]}), value=value) for value in (50.0, 58.0))
    (found,) = compare(one, other)
    assert (found.difference, found.p, found.p_holm) == (8, None, None)
    assert found.standard_error == pytest.approx(math.sqrt(18))


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(InputError, match="different protocols"):
        compare(FIRST, run(list(FIRST.answers), protocol="qwen-vl"))
    with pytest.raises(InputError, match="nothing to compare"):
        compare(FIRST, run(cells("aim", 3, {0: [0]})))
    with pytest.raises(InputError, match="nothing to compare"):
        compare(FIRST, run(list(SECOND.answers), too_long=1))
    with pytest.raises(InputError, match="other queries or seeds"):
        compare(FIRST, run(cells("aim", 2, {0: [0], 1: [0]})))


def test_a_report_names_everything_and_escapes_it(tmp_path: Path) -> None:
    runs = {"one": FIRST, "two": run(cells("zero-shot", 0, {0: [0, 100]}), too_long=1, value=math.nan)}
    written = report.write(runs, tmp_path / "report")
    assert [path.name for path in written] == ["scores.png", "costs.png", "report.md", "report.html"]
    text, page = written[2].read_text(), written[3].read_text()
    assert "37.5 ± 3.0" in text
    assert "1 of 2 too long" in text
    assert "protocol aim" in text
    assert "interleaved: one image a prompt" in text
    assert "m\\|&lt;script&gt;" in text
    assert "<script>" not in page
    assert "<b>plain" not in page
    assert page.count("data:image/png;base64,") == 2


def test_a_result_file_is_read_back_and_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="aim-icl eval"):
        Run.load(tmp_path)
    path = FIRST.save(tmp_path)
    assert Run.load(tmp_path).model_dump_json() == FIRST.model_dump_json()
    assert Run.load(path).scores[0].value == 37.5
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptArtifactError, match=RESULT):
        Run.load(tmp_path)
