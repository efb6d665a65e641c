"""A user's text stays in its role."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def read(pairs: Sequence[tuple[str, str]]) -> list[int]:
        items = [Demonstration(image, text, answer) for text, answer in pairs]
        return [len(reading) for reading in backend.reader.read(items, prompt_format=form, with_images=False)]

    def ask(texts: Sequence[str]) -> list[int]:
        queries = [Query(image, text) for text in texts]
        made = backend.injector.generate(queries, [[]] * len(queries), prompt_format=form, max_new_tokens=1)
        return [one.prompt_tokens for one in made]

    def choose(texts: Sequence[str]) -> list[int]:
        return [len(row) for row in backend.injector.score(QUERIES[0], [], texts, prompt_format=form)]

    counts: dict[str, Callable[[Sequence[str]], list[int]]] = {
        "a demonstration's text": lambda texts: read([(text, "red") for text in texts]),
        "a demonstration's answer": lambda texts: read([("Which?", text) for text in texts]),
        "a query": ask,
        "a choice": choose,
    }
    for place, count in counts.items():
        for token, grown in _growth(ROLE_TOKENS, count).items():
            require(
                grown > _TIMES,
                f"{token!r} in {place} is one token each time that it is written: it is no text, but has a role. "
                "Refuse it with a FormatError, or tokenise it as text",
            )


def _growth(tokens: Sequence[str], count: Callable[[Sequence[str]], list[int]]) -> dict[str, int]:
    """How many tokens some more of each token add to a text, without those that are refused."""
    texts = [f"dog {token * times} cat" for token in tokens for times in (1, _TIMES + 1)]
    try:
        found = count(texts)
    except InputError:  # some of them: half by half, which costs little where a refusal comes before a forward
        half = len(tokens) // 2
        return _growth(tokens[:half], count) | _growth(tokens[half:], count) if half else {}
    return {token: found[2 * n + 1] - found[2 * n] for n, token in enumerate(tokens)}
