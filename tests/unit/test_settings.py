"""Settings mean what they say: pydantic's lenient readings are refused."""

import pytest
from pydantic import ValidationError

from aim_sdk.evaluation import EvalSettings
from aim_sdk.training.config import TrainingConfig

TRAINING = {"output": "run", "backend": "pocket", "corpus": {"path": "pages"}}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": True},
        {"projector": {"rank": True}},
        {"episodes": {"shots": [True, 2]}},
        {"episodes": {"labels": False}},
        {"objective": {"weights": {"distill": 1, "lm": True}}},
        {"optimizer": {"learning_rate": True}},
        {"corpus": {"path": "pages", "max_images": True}},
    ],
)
def test_a_truth_value_is_not_a_number(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"expected a number, got (true|false)"):
        TrainingConfig.model_validate({**TRAINING, **changed})


@pytest.mark.parametrize(
    "changed",
    [{"output": ""}, {"projector": {"start": " "}}, {"corpus": {"path": ""}}, {"corpus": {"path": "p", "images": ""}}],
)
def test_an_empty_text_is_not_a_path(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expected a path, got an empty text"):
        TrainingConfig.model_validate({**TRAINING, **changed})


def test_a_switch_takes_a_truth_value() -> None:
    corpus = {"path": "pages", "one_to_one": False}
    assert TrainingConfig.model_validate({**TRAINING, "corpus": corpus}).corpus.one_to_one is False


def test_evaluation_settings_are_read_in_the_same_way() -> None:
    given = {"output": "run", "backend": "pocket", "limit": True}
    with pytest.raises(ValidationError, match="expected a number, got true"):
        EvalSettings.model_validate(given)
