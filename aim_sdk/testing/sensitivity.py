"""Whether the model says enough for the other checks to see anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from aim_sdk.backend.capabilities import AnswersPlainly, capability
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import flat, require, tolerance
from aim_sdk.testing.kit import heart
from aim_sdk.testing.layouts import IMAGE_FIRST
from aim_sdk.testing.precision import close, is_half
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES, picture
from aim_sdk.types import Context, Demonstration, Query

_OTHER = picture(50, 50, 200)
"""As large as the query's: it takes as many tokens."""
_TIMES = 3
"""How many times the allowed noise a change of the prompt must change some log-probability."""


_TOKENS = 8


@heart
@close("log-probabilities", bfloat16=0.006, float16=0.0015)
def check_sensitivity(backend: Backend) -> None:
    """Another image, text, demonstration, order or system text changes what the model says.

    Catches models that forget or see nothing: the other checks compare two computations, and cannot tell them apart if
    the model says the same to everything. Some log-probability must change by more than three times what two
    computations of the same may differ by. If this fails, look whether the adapter drops what was changed: the message
    says what the plain backbone answers. If that does not change either, use another model to judge by.
    """
    form = PromptFormat.plain(IMAGE_FIRST[0], system="Look.\n")
    query, (first, *rest) = QUERIES[0], DEMONSTRATIONS
    turned = [replace(first, text="Where is it?"), *rest]
    fused = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    usual = _Asked(query, DEMONSTRATIONS, form)
    changed: list[tuple[str, _Asked, Context]] = [
        ("another image", replace(usual, query=replace(query, image=_OTHER)), fused),
        ("another question", replace(usual, query=replace(query, text="Where is this?")), fused),
        (
            "another text of the first demonstration",
            replace(usual, shots=turned),
            backend.reader.text_only(turned, prompt_format=form),
        ),
        ("another order of the demonstrations", replace(usual, shots=DEMONSTRATIONS[::-1]), fused[::-1]),
        ("another system text", replace(usual, form=form.model_copy(update={"system": "Stop.\n"})), fused),
    ]
    before = usual.score(backend, fused)
    allowed = tolerance(backend, before)
    for what, other, context in changed:
        apart = float((other.score(backend, context) - before).abs().max())
        require(
            apart > _TIMES * allowed,
            f"{what} changes no log-probability by more than {apart:.2g}; expected some change above "
            f"{_TIMES * allowed:.2g}, which is {_TIMES} times the noise of {backend.dtype} "
            f"({allowed:.2g}).\n{_blame(backend, usual, other)}",
        )


@dataclass(frozen=True)
class _Asked:
    """A prompt: for the adapter, and for the plain backbone."""

    query: Query
    shots: Sequence[Demonstration]
    form: PromptFormat

    def score(self, backend: Backend, context: Context) -> Tensor:
        return flat(backend.injector.score(self.query, context, CHOICES, prompt_format=self.form))

    def plain(self, backend: Backend) -> list[int]:
        return capability(backend, AnswersPlainly).plain_answer(
            self.query, prompt_format=self.form, max_new_tokens=_TOKENS, demonstrations=self.shots, with_images=False
        )


def _blame(backend: Backend, usual: _Asked, other: _Asked) -> str:
    """Whether the adapter or the model is the cause, as far as the plain backbone's answers tell."""
    try:
        answers = usual.plain(backend), other.plain(backend)
    except Exception as error:
        told = f"Whether the adapter drops it or the model does not care is not known: `plain_answer` gives {error!r}."
    else:
        if answers[0] != answers[1]:
            return (
                f"The plain backbone does not say the same to both ({answers[0]} and {answers[1]}): the bug is in the "
                f"adapter. Is what was changed dropped, or kept from an earlier call?"
            )
        told = (
            f"The plain backbone's answer is {answers[0]} to both: either the model says too little (then the kit "
            f"cannot judge it: take another one), or the adapter drops it in `plain_answer`, too."
        )
    return f"{told} In half precision small changes are lost: try float32." if is_half(backend.dtype) else told
