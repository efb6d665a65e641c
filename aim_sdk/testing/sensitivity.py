"""Whether the model says enough for the other checks to see anything."""

from __future__ import annotations

from dataclasses import replace

from aim_sdk.config import PromptFormat
from aim_sdk.interfaces import Backend
from aim_sdk.testing.compare import flat, require, tolerance
from aim_sdk.testing.kit import heart
from aim_sdk.testing.layouts import IMAGE_FIRST
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES, picture
from aim_sdk.types import Context, Query

_OTHER = picture(50, 50, 200)
"""As large as the query's: it takes as many tokens."""
_TIMES = 3
"""How many times the allowed noise a change of the prompt must change some log-probability."""


@heart
def check_sensitivity(backend: Backend) -> None:
    """Another image, text, demonstration, order or system text changes what the model says.

    Catches models that forget or see nothing: the other checks compare two computations, and cannot tell them apart
    where the model says the same to everything. If this fails, the kit cannot judge: take another model.
    """
    form = PromptFormat.plain(IMAGE_FIRST[0], system="Look.\n")
    query, (first, *rest) = QUERIES[0], DEMONSTRATIONS
    fused = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    other = backend.reader.text_only([replace(first, text="Where is it?"), *rest], prompt_format=form)

    def score(query: Query, context: Context, form: PromptFormat = form) -> list[list[float]]:
        return backend.injector.score(query, context, CHOICES, prompt_format=form)

    usual = flat(score(query, fused))
    changed = {
        "another image": score(replace(query, image=_OTHER), fused),
        "another question": score(replace(query, text="Where is this?"), fused),
        "another text of the first demonstration": score(query, other),
        "another order of the demonstrations": score(query, fused[::-1]),
        "another system text": score(query, fused, form.model_copy(update={"system": "Stop.\n"})),
    }
    allowed = tolerance(backend, usual)
    for what, scores in changed.items():
        apart = float((flat(scores) - usual).abs().max())
        require(
            apart > _TIMES * allowed,
            f"the kit cannot judge this model: {what} changes no log-probability by more than {apart:.2g}, and "
            f"{allowed:.2g} is noise",
        )
