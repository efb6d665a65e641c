"""A user's text stays in its role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import InputError
from aim_sdk.testing.kit import CheckFailure, check
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
_FEW = 4
_NOISE = 2
"""Tokens by which one text may be longer in another place of a prompt: they merge with their neighbours."""


@check
def check_text_keeps_its_role(backend: Backend) -> None:
    """Role, end-of-turn and image tokens in a text are refused, or are plain text of several tokens.

    Tried in a demonstration's text and answer, in a query and in a choice. Catches texts that end their own turn and
    continue as the system or the assistant: whoever writes a caption or a question then writes the prompt.
    """
    form, image = backend.default_format, DEMONSTRATIONS[0].image

    def read(text: str, answer: str) -> list[int]:
        item = Demonstration(image, text, answer)
        (reading,) = backend.reader.read([item], prompt_format=form, with_images=False)
        return reading.token_ids.tolist()

    def ask(text: str) -> int:
        (made,) = backend.injector.generate([Query(image, text)], [[]], prompt_format=form, max_new_tokens=1)
        return made.prompt_tokens

    def choose(text: str) -> int:
        return len(backend.injector.score(QUERIES[0], [], [text], prompt_format=form)[0])

    places: dict[str, Callable[[Sequence[str]], bool]] = {
        "a demonstration's text": _repeated(lambda text: read(text, "red")),
        "a demonstration's answer": _repeated(lambda text: read("Which?", text)),
        "a query": _counted(ask, lambda text: read(text, "red")),
        "a choice": _counted(choose, lambda text: read("Which?", text)),
    }
    for place, has_role in places.items():
        for token in _with_a_role(ROLE_TOKENS, has_role):
            raise CheckFailure(
                f"{token!r} in {place} is one token each time that it is written: it is not text, but has a role. "
                "Refuse it with a FormatError, or tokenise it as text"
            )


def _with_a_role(tokens: Sequence[str], has_role: Callable[[Sequence[str]], bool]) -> Iterator[str]:
    """Which tokens have a role: all in one text, and half by half if that has one or is refused."""
    try:
        if not has_role(tokens):
            return
        if len(tokens) == 1:
            yield tokens[0]
    except InputError:  # some of them: a refusal comes before a forward, and costs little
        pass
    if half := len(tokens) // 2:
        yield from _with_a_role(tokens[:half], has_role)
        yield from _with_a_role(tokens[half:], has_role)


def _repeated(read: Callable[[str], Sequence[int]]) -> Callable[[Sequence[str]], bool]:
    """For places that show their tokens: whether one is repeated in a row (or is the unknown token)."""

    def has_role(tokens: Sequence[str]) -> bool:
        if len(tokens) == 1:
            return _grows_by_one(lambda text: len(read(text)), tokens)
        ids = read(_text(tokens, _FEW))
        return any(len(set(ids[place : place + _FEW])) == 1 for place in range(len(ids) - _FEW + 1))

    return has_role


def _counted(count: Callable[[str], int], read: Callable[[str], Sequence[int]]) -> Callable[[Sequence[str]], bool]:
    """For places that show no tokens: whether a text is shorter there than where it is known to be text."""

    def has_role(tokens: Sequence[str]) -> bool:
        if len(tokens) > 1:
            texts = _text(tokens, _FEW), _text(tokens[:1], 0)
            longer, known = (of(texts[0]) - of(texts[1]) for of in (count, lambda text: len(read(text))))
            return longer < known - _NOISE
        return _grows_by_one(count, tokens)

    return has_role


def _grows_by_one(count: Callable[[str], int], tokens: Sequence[str]) -> bool:
    return count(_text(tokens, 1 + _TIMES)) - count(_text(tokens, 1)) <= _TIMES


def _text(tokens: Sequence[str], times: int) -> str:
    return f"dog {' '.join(token * times for token in tokens)} cat"
