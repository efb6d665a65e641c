"""A user's text stays in its role."""

from __future__ import annotations

from collections.abc import Callable

from aim_sdk.errors import InputError
from aim_sdk.interfaces import Backend
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import check
from aim_sdk.testing.samples import DEMONSTRATIONS, QUERIES
from aim_sdk.types import Demonstration, Query

ROLE_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eot|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|header_start|>", "<|header_end|>", "<|user|>", "<|assistant|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<end_of_utterance>", "<|START_OF_TURN_TOKEN|>"),
    *("<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "[INST]", "[/INST]", "<bos>", "<eos>", "<s>", "</s>"),
    *("<image>", "<|image|>", "<|image_pad|>", "[IMG]", "<start_of_image>"),
)
"""What the families in use end turns, name roles and mark images with."""

_TIMES = 6


@check
def check_text_keeps_its_role(backend: Backend) -> None:
    """Role, end-of-turn and image tokens in a text are refused, or are plain text of several tokens.

    Tried in a demonstration's text and answer, in a query and in a choice. Catches texts that end their own turn and go
    on as the system or the assistant: whoever writes a caption or a question then writes the prompt.
    """
    form, image = backend.default_format, DEMONSTRATIONS[0].image

    def read(text: str, answer: str) -> int:
        (reading,) = backend.reader.read([Demonstration(image, text, answer)], prompt_format=form)
        return len(reading)

    def ask(text: str) -> int:
        (made,) = backend.injector.generate([Query(image, text)], [[]], prompt_format=form, max_new_tokens=1)
        return made.prompt_tokens

    def choose(text: str) -> int:
        (scores,) = backend.injector.score(QUERIES[0], [], [text], prompt_format=form)
        return len(scores)

    counts: dict[str, Callable[[str], int]] = {
        "a demonstration's text": lambda text: read(text, "red"),
        "a demonstration's answer": lambda text: read("Which?", text),
        "a query": ask,
        "a choice": choose,
    }
    for place, count in counts.items():
        for token in ROLE_TOKENS:
            grown = _growth(token, count)
            require(
                grown is None or grown > _TIMES,
                f"{token!r} in {place} is one token each time that it is written: it is no text, but has a role. "
                "Refuse it with a FormatError, or tokenise it as text",
            )


def _growth(token: str, count: Callable[[str], int]) -> int | None:
    """How many tokens some more of ``token`` add to a text; None where they are refused."""
    try:
        return count(f"dog {token * (_TIMES + 1)} cat") - count(f"dog {token} cat")
    except InputError:
        return None
