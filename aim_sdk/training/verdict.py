"""What a run says at its end: is what it hands out better than what it began with, and by how much?"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from aim_sdk.training.estimates import Estimate, difference, of_shares, summarize
from aim_sdk.training.evaluation import Scores, pairs

_ERRORS: Final = 2
"""A gain counts if it is more than this many standard errors."""
_FEWEST: Final = 8
"""Held-out episodes without which a standard error says little."""


class Best(BaseModel):
    """The best evaluation of a run so far, by the divergence to the teacher."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    step: int
    kl: float
    """The mean divergence."""
    closer: Estimate
    """How much nearer to the teacher it is than the start, in nats per token."""
    names: Estimate
    """How many more of the new names it binds rightly, as a share."""

    @classmethod
    def of(cls, step: int, scores: Scores) -> Best:
        """Compare ``aim`` with ``start``."""
        kl = difference(pairs(scores["start"], "kl"), pairs(scores["aim"], "kl"))
        names = of_shares(difference(pairs(scores["aim"], "names"), pairs(scores["start"], "names")))
        return cls(step=step, kl=summarize(pairs(scores["aim"], "kl")).mean, closer=kl, names=names)

    @property
    def better(self) -> bool:
        """Whether it is nearer to the teacher than the start, and does not bind fewer names, beyond the noise.

        Where the noise is not known, it is not better: a loss of names that one episode tells counts.
        """
        nearer = self.closer.n >= _FEWEST and self.closer.mean > _ERRORS * self.closer.error
        fewer = self.names.mean < 0 and not self.names.mean >= -_ERRORS * self.names.error
        return nearer and not fewer


def verdict(best: Best | None) -> str:
    """One line for people: what `projector/` holds, and why."""
    if best is None:
        return "not measured against its start: there was no held-out evaluation"
    named = f"new names bound rightly {best.names:+}" if best.names.n else "no new names were measured"
    measured = f"nats per token nearer to the teacher on {best.closer.n} held-out episodes; {named}"
    if best.better:
        of = f"of step {best.step}" if best.step else "as it was fitted, before the first step"
        return f"better than its start by {best.closer:+} {measured}; {of}"
    if best.step == 0:
        return "not better: the start was kept; no evaluation was nearer to the teacher on held-out episodes"
    few = f" ({_FEWEST} are needed to tell)" if best.closer.n < _FEWEST else ""
    return (
        f"not better: the start was kept; the best evaluation, at step {best.step}, was {best.closer:+} {measured}{few}"
    )
