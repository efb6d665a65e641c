"""From scores to one sentence: use the examples, and how, or do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, computed_field

from aim_sdk.assessment.candidates import BLIND, Candidate
from aim_sdk.assessment.choice import Comparison, Scores, best, compared, cross_fitted, error_of, of_chosen

SURE = 0.05
"""A difference with a smaller p value is one."""
FEW = 40
"""With fewer items only large differences show, and the sentence says so."""


class Verdict(BaseModel):
    """What an assessment says."""

    model_config = ConfigDict(frozen=True)
    helps: bool = Field(description="whether examples are better than none")
    harms: bool = Field(description="whether the best setting with examples is worse than none")
    run: Candidate = Field(description="what to run: the best setting, or zero-shot if examples do not help")
    best: Candidate = Field(description="the best setting with examples")
    settings: int = Field(description="how many were compared")
    n: int = Field(description="items")
    unit: str = Field(description="of the scores, as it stands after a number")
    score: float = Field(description="of the chosen setting, on items that did not choose it")
    standard_error: float | None = Field(description="of the score")
    against_zero_shot: Comparison = Field(
        description="of the chosen setting, on items that did not choose it; p is doubled if the images are tested, too"
    )
    against_text_only: Comparison | None = Field(
        description="likewise, against as many texts drawn at random; none if those were not asked, or are what is run"
    )

    @property
    def looked_at(self) -> Candidate:
        """What is looked at closely: what is run or, if that is zero-shot, the best setting with examples."""
        return self.run if self.helps else self.best

    @computed_field(description="whether demonstrations with images are better than their texts alone")  # type: ignore[prop-decorator]
    @property
    def images_matter(self) -> bool:
        """Whether demonstrations with images are better than their texts alone."""
        other = self.against_text_only
        return other is not None and other.gain > 0 and other.p < SURE

    @computed_field(description="the verdict, for people")  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        """The verdict, for people."""
        zero = self.against_zero_shot
        numbers = f"{self._value(self.score, self.standard_error)} against {self._value(zero.value)} zero-shot"
        sure = f"(p {p_of(zero.p)}, n = {self.n})"
        few = f" With {self.n} items only large differences show." if self.n < FEW else ""
        if self.helps:
            return f"Use {self.run}: {numbers} {sure}{self._images()}.{few}"
        among = "the one setting" if self.settings == 1 else f"the best of {self.settings} settings"
        tried = f"{among} with examples ({self.best}) gives {numbers} {sure}"
        if self.harms:
            return f"Do not use examples, they harm: {tried}.{few}"
        return f"Do not use examples: {tried}; no evidence that they help.{few}"

    def _images(self) -> str:
        other = self.against_text_only
        if other is None:
            return "; no image is used" if _blind(self.run) else ""
        gain = f"{other.gain:+.0f} over texts drawn at random, p {p_of(other.p)}"
        return (
            f"; the images matter ({gain})" if self.images_matter else f"; no evidence that the images matter ({gain})"
        )

    def _value(self, value: float, error: float | None = None) -> str:
        return f"{value:.0f}{self.unit}" + ("" if error is None else f" ± {error:.0f}")


def verdict_of(candidates: Sequence[Candidate], scores: Scores, folds: NDArray[np.intp], unit: str) -> Verdict:
    """Choose, and compare what was chosen.

    Args:
        candidates: the settings; the first is zero-shot.
        scores: ``(settings, items)``.
        folds: of each item; the setting of a fold is chosen on the others.
        unit: of the scores.
    """
    winner, favourite = best(scores), 1 + best(scores[1:])
    chosen, with_examples = cross_fitted(scores, folds), 1 + cross_fitted(scores[1:], folds)
    zero = scores[0]
    gained, tried = (compared(of_chosen(scores, one), zero, "zero-shot") for one in (chosen, with_examples))
    text = _text_only(candidates, scores, chosen)
    if text is not None:
        gained, tried, text = _doubled(gained), _doubled(tried), _doubled(text)
    helps = winner != 0 and gained.gain > 0 and gained.p < SURE
    ours = of_chosen(scores, chosen if helps else with_examples)
    return Verdict(
        helps=helps,
        harms=not helps and tried.gain < 0 and tried.p < SURE,
        run=candidates[winner] if helps else candidates[0],
        best=candidates[favourite],
        settings=len(candidates) - 1,
        n=scores.shape[1],
        unit=unit,
        score=float(ours.mean()),
        standard_error=error_of(ours.tolist()),
        against_zero_shot=gained if helps else tried,
        against_text_only=text if helps and not _blind(candidates[winner]) else None,
    )


def _doubled(comparison: Comparison) -> Comparison:
    """Corrected for the two questions of a verdict (Bonferroni): do examples help, and do their images?"""
    return comparison.model_copy(update={"p": min(1.0, 2 * comparison.p)})


def _blind(candidate: Candidate) -> bool:
    """Whether no image of a demonstration is looked at, neither to choose it nor to show it."""
    return candidate.mode == "text-only" and candidate.selector == BLIND


def _text_only(candidates: Sequence[Candidate], scores: Scores, chosen: NDArray[np.intp]) -> Comparison | None:
    """The chosen settings against as many texts that no image chose; None if those were not asked."""
    places = {one: place for place, one in enumerate(candidates)}
    twins = [places.get(Candidate("text-only", one.shots, BLIND), -1) if one.shots else 0 for one in candidates]
    theirs = np.array(twins)[chosen]
    if (theirs < 0).any():
        return None
    return compared(of_chosen(scores, chosen), of_chosen(scores, theirs), "texts that no image chose")


def p_of(value: float) -> str:
    """A p value as it is written after a p."""
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".") if value < 1 else "= 1"
