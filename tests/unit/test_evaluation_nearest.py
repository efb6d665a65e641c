"""The report says where the nearest neighbours win, and only where that is beyond the error."""

from aim_sdk.evaluation.honest import beaten
from aim_sdk.evaluation.report import markdown
from tests.evaluation_runs import cells, run


def test_a_win_of_the_nearest_neighbours_is_one_sentence_a_task() -> None:
    won = [*cells("aim", 4, {0: [0.0, 100.0] * 8}), *cells("nearest", 4, {0: [100.0, 100.0] * 8})]
    lost = [*cells("aim", 8, {0: [100.0] * 16}), *cells("nearest", 8, {0: [0.0] * 16})]
    (sentence,) = beaten({"run": run(won + lost)})
    assert sentence == (
        "colours: a vote of the nearest neighbours, without any LM call, beats AIM: 100.0 against 50.0 at k=4 "
        "(difference +50.0 ± 12.9, p=0.0078, n=16)."
    )
    assert sentence in markdown({"run": run(won + lost)})
    assert beaten({"run": run(lost)}) == []
    assert beaten({"a": run(won), "b": run(won)})[1].startswith("b, colours: ")
    assert beaten({"run": run(cells("nearest", 4, {0: [100.0]}))}) == []


def test_without_a_difference_beyond_its_error_nothing_is_beaten() -> None:
    one = [*cells("aim", 4, {0: [0.0]}), *cells("nearest", 4, {0: [100.0]})]
    (sentence,) = beaten({"run": run(one)})
    assert "the difference is within its error" in sentence
    assert "beats" not in sentence
    unscored = [*cells("aim", 4, {0: [None]}), *cells("nearest", 4, {0: [None]})]
    for near, said in ((56.0, "difference is within"), (70.0, "beats AIM")):
        made = run(unscored)  # ROC-AUC, say: 3 points of error each
        scores = (made.scores[0].model_copy(update={"value": 50.0}), made.scores[1].model_copy(update={"value": near}))
        (sentence,) = beaten({"run": made.model_copy(update={"scores": scores})})
        assert said in sentence


def test_a_vote_of_one_seed_goes_with_every_seed() -> None:
    aim = cells("aim", 4, {seed: [0.0, 100.0] * 8 for seed in range(3)})
    (sentence,) = beaten({"run": run([*aim, *cells("nearest", 4, {0: [100.0] * 16})])})
    assert "beats AIM" in sentence
    assert "n=16" in sentence
