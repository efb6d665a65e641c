"""Conversations that are ready to be answered, and answering many of them in batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

from aim_sdk.backend.answers import clean_answer
from aim_sdk.backend.injector import Injector
from aim_sdk.chat.completion import ChatAnswer, ChatCompletion, FinishReason
from aim_sdk.chat.messages import Turn, naming_the_image
from aim_sdk.chat.options import ChatOptions
from aim_sdk.errors import ContextLengthError
from aim_sdk.injection.constrained import injector_of
from aim_sdk.injection.contexts import NamedContext
from aim_sdk.injection.prompting import generated
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.types import Generation, Query


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation's query, and what comes before it."""

    turns: Sequence[Turn]
    query: Query
    context: NamedContext
    shots: Shots
    encoder: Encoder
    read: int
    """Demonstrations that were read for it."""
    options: ChatOptions

    @property
    def injector(self) -> Injector:
        """The backend's injector, whose answers keep to the schema if there is one."""
        return injector_of(self.encoder.backend, None, self.options.schema_, self.shots.mode)

    @property
    def generation(self) -> dict[str, Any]:
        """What the injector is given besides the prompt."""
        return {**self.options.generation, **({"log_probs": True} if self.options.logprobs else {})}


@contextmanager
def speaking_of_messages(turns: Sequence[Turn]) -> Iterator[None]:
    """Inside the block, errors speak of messages."""
    try:
        with naming_the_image(turns):
            yield
    except ContextLengthError as error:
        if not any(turn.role == "assistant" for turn in turns):
            raise
        raise ContextLengthError(f"{error}\nIn a conversation, leave pairs of turns out.") from error


def answered(prompts: Iterable[ChatPrompt], batch_size: int = 1) -> list[ChatCompletion | Exception]:
    """Answer conversations of one backend; the completions come in the prompts' order.

    Those with the same options are answered together, but for drawn answers, which would not be the same next to
    others. One that cannot be answered has an error in its place, and the others are answered.

    Args:
        prompts: of one backend.
        batch_size: prompts per forward.
    """
    found: dict[int, ChatCompletion | Exception] = {}
    groups: dict[object, list[tuple[int, ChatPrompt]]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(_together(place, prompt), []).append((place, prompt))
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            found.update(_batch(group[start : start + batch_size]))
    return [found[place] for place in sorted(found)]


def _together(place: int, prompt: ChatPrompt) -> object:
    """What prompts have in common that are answered together."""
    if prompt.options.draws:
        return place
    options = prompt.options
    schema = None if options.schema_ is None else json.dumps(options.schema_, sort_keys=True)
    form = prompt.encoder.prompt_format.model_dump_json()
    return form, prompt.shots.may_be_fewer, options.max_tokens, options.logprobs, schema


def _batch(batch: Sequence[tuple[int, ChatPrompt]]) -> Mapping[int, ChatCompletion | Exception]:
    places, prompts = [place for place, _ in batch], [prompt for _, prompt in batch]
    first = prompts[0]
    rows = first.options.n if len(prompts) == 1 else 1
    try:
        with speaking_of_messages(first.turns) if len(prompts) == 1 else nullcontext():
            made = generated(
                first.injector,
                [prompt.query for prompt in prompts for _ in range(rows)],
                [prompt.context for prompt in prompts for _ in range(rows)],
                first.shots,
                prompt_format=first.encoder.prompt_format,
                max_new_tokens=first.options.max_tokens,
                batch_size=len(prompts) * rows,
                generation=first.generation,
                advance=lambda _: None,
            )
    except Exception as error:
        if len(batch) == 1:
            return {places[0]: error}
        return {place: one for item in batch for place, one in _batch([item]).items()}
    return {
        place: completion_of(made[n * rows : (n + 1) * rows], prompt)
        for n, (place, prompt) in enumerate(zip(places, prompts, strict=True))
    }


def completion_of(made: Sequence[Generation], prompt: ChatPrompt) -> ChatCompletion:
    """The answers to one conversation, as its options want them."""
    answers = tuple(_answer(one, prompt.options) for one in made)
    return ChatCompletion(answers, made[0].prompt_tokens, made[0].demonstrations, prompt.read)


def _answer(made: Generation, options: ChatOptions) -> ChatAnswer:
    text = reduce(clean_answer, options.stop, made.text)
    ended = made.ended if made.ended is not None else len(made.token_ids) < options.max_tokens
    reason: FinishReason = "stop" if ended or text != made.text else "length"
    return ChatAnswer(text, reason, made.token_ids, made.log_probs)
