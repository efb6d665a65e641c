"""What an assessment found, as it is shown and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.assessment.candidates import Candidate
from aim_sdk.assessment.choice import Comparison
from aim_sdk.assessment.influence import Doubtful, Influence
from aim_sdk.assessment.scores import Metric
from aim_sdk.assessment.verdict import Verdict
from aim_sdk.files.atomic import write_atomic


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Row(_Part):
    """One setting."""

    setting: Candidate = Field(description="how items were asked")
    value: float = Field(description="mean score")
    standard_error: float | None = Field(description="of the mean; none if all items have the same score")
    against_zero_shot: Comparison | None = Field(description="none for zero-shot itself")
    p_corrected: float | None = Field(description="for all settings of the table (Holm)")
    refused: int = Field(description="items that could not be asked; they count as wrong")


class Calibration(_Part):
    """How often answers of some probability are right: of the chosen setting, on items that did not choose it."""

    confidence: float = Field(description="mean probability of the answer")
    accuracy: float = Field(description="share of right answers")
    error: float = Field(description="expected calibration error over ten bins: mean distance of the two, 0 to 1")
    bins: tuple[tuple[int, float, float], ...] = Field(description="items, mean probability and accuracy of each bin")


class Wrong(_Part):
    """An item that the setting answers wrongly."""

    item: str = Field(description="its key, or its place in the validation set")
    text: str = Field(description="what was asked")
    answer: str = Field(description="the right one")
    said: str = Field(description="what was answered")
    probability: float | None = Field(description="of what was answered, if the answers are a closed set")
    shown: tuple[str, ...] = Field(description="keys of the demonstrations, in the order of the prompt")


class Assessment(_Part):
    """Everything that an assessment found."""

    verdict: Verdict = Field(description="use examples or not, and how")
    metric: Metric = Field(description="how answers were scored")
    validation: bool = Field(description="whether other items than the bank's own were asked")
    demonstrations: int = Field(description="of the bank")
    keys: tuple[str, ...] = Field(description="of the bank's demonstrations, in order, before anything was asked")
    left_out: tuple[str, ...] = Field(description="demonstrations that could not be asked, and why")
    choices: tuple[str, ...] | None = Field(description="the closed set of answers")
    rows: tuple[Row, ...] = Field(description="every setting")
    calibration: Calibration | None = Field(description="closed answers only")
    confusion: dict[str, dict[str, int]] | None = Field(
        description="of the setting below: how often each right answer (outer) got each answer (inner)"
    )
    without_images: Comparison | None = Field(
        description="the setting below against the same demonstrations read without their images; AIM only"
    )
    wrong: tuple[Wrong, ...] = Field(description="in the setting that is run or, with examples, would be best")
    influence: tuple[Influence, ...] = Field(description="likewise; the most harmful demonstration first")
    doubtful: tuple[Doubtful, ...] = Field(
        description="demonstrations whose answers are probably wrong, clearest first"
    )
    refused: tuple[str, ...] = Field(description="why items could not be asked; each reason once")
    seconds: float = Field(description="that it took; without what was kept of an interrupted one")
    made: dict[str, Any] = Field(description="date, versions, machine, and what the bank was made with")

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all."""
        write_atomic(file := Path(path), (self.model_dump_json(indent=1) + "\n").encode())
        return file
