"""The report says where the nearest neighbours win."""

from aim_sdk.evaluation.honest import beaten
from aim_sdk.evaluation.report import markdown
from tests.evaluation_runs import cells, run


def test_a_win_of_the_nearest_neighbours_is_one_sentence_a_task() -> None:
    won = [*cells("aim", 4, {0: [0.0, 100.0]}), *cells("nearest", 4, {0: [100.0, 100.0]})]
    lost = [*cells("aim", 8, {0: [100.0, 100.0]}), *cells("nearest", 8, {0: [0.0, 0.0]})]
    (sentence,) = beaten({"run": run(won + lost)})
    assert sentence == (
        "colours: a vote of the nearest neighbours, without any LM call, beats AIM: 100.0 against 50.0 at k=4 (n=2)."
    )
    assert sentence in markdown({"run": run(won)})
    assert beaten({"run": run(lost)}) == []
    assert beaten({"a": run(won), "b": run(won)})[1].startswith("b, colours: ")
    assert beaten({"run": run(cells("nearest", 4, {0: [100.0]}))}) == []
