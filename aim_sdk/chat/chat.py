"""Answers conversations: what `AIMPipeline.chat` and `chat_stream` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from aim_sdk.chat.completion import ChatCompletion
from aim_sdk.chat.few_shot import FewShotChat, check_texts_are_shown, few_shot_of
from aim_sdk.chat.messages import IN_PROCESS, ImageSources, Messages, Turn, turns_of
from aim_sdk.chat.options import ChatOptions
from aim_sdk.chat.prompts import ChatPrompt, answered, speaking_of_messages
from aim_sdk.chat.stream import ChatStream, streamed
from aim_sdk.chat.tokens import KeptTokens
from aim_sdk.errors import InputError
from aim_sdk.injection.contexts import Contexts
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.shots import Shots
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import chosen
from aim_sdk.types import Demonstration

_SYSTEMS = 64
"""System messages whose encoders are kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation that was checked, before anything is read for it."""

    turns: Sequence[Turn]
    chat: FewShotChat
    encoder: Encoder
    shots: Shots
    options: ChatOptions


class Chat:
    """Conversations with one few-shot model.

    Demonstrations of a conversation are kept by content in memory, apart from the model's bank, which only answers
    conversations that bring none.

    Args:
        model: answers.
        kept: what was read for earlier conversations.
    """

    def __init__(self, model: FewShotModel, kept: KeptTokens | None = None) -> None:
        self._model, self._kept = model, KeptTokens() if kept is None else kept
        self._encoder_of = lru_cache(_SYSTEMS)(self._encoder)

    def complete(self, messages: Messages, options: ChatOptions) -> ChatCompletion:
        """Answer; see `AIMPipeline.chat`."""
        (prompt,) = self.prompts([self.asked(messages, options)])
        (found,) = answered([prompt])
        if isinstance(found, Exception):
            raise found
        return found

    def stream(self, messages: Messages, options: ChatOptions) -> ChatStream:
        """Answer piece by piece; see `AIMPipeline.chat_stream`."""
        options.check_streams()
        (prompt,) = self.prompts([self.asked(messages, options)])
        return streamed(prompt)

    def asked(self, messages: Messages, options: ChatOptions, sources: ImageSources = IN_PROCESS) -> Asked:
        """Check a conversation; nothing is read for it yet.

        Args:
            messages: see `AIMPipeline.chat`.
            options: its options.
            sources: where its images may come from.

        Raises:
            InputError: it is no such conversation.
        """
        turns = turns_of(messages, options.history, sources)
        with speaking_of_messages(turns):
            chat = few_shot_of(turns)
            encoder = self._encoder_of(chat.system)
            check_texts_are_shown(chat, encoder.prompt_format)
            return Asked(turns, chat, encoder, self._shots(chat, options), options)

    def prompts(self, asked: Sequence[Asked]) -> list[ChatPrompt]:
        """Choose and read what each conversation is shown; those with the same options are read for together.

        Raises:
            InputError: of one of them.
        """
        found: dict[int, ChatPrompt] = {}
        groups: dict[object, list[int]] = {}
        for place, one in enumerate(asked):
            groups.setdefault(_together(one), []).append(place)
        for places in groups.values():
            group = [asked[place] for place in places]
            with speaking_of_messages([turn for one in group for turn in one.turns]):
                found.update(zip(places, self._prompts(group), strict=True))
        return [found[place] for place in range(len(asked))]

    def _encoder(self, system: str | None) -> Encoder:
        """The encoder under a conversation's system message, whose text is checked as a demonstration's is."""
        own = self._model.encoder
        if system is None:
            return own
        if system.strip():
            as_text = [Demonstration(b"", "", system)]
            own.backend.reader.text_only(as_text, prompt_format=own.prompt_format)
        changed = own.prompt_format.model_copy(update={"system": system or None})
        return Encoder(own.backend, own.projector, changed)

    def _shots(self, chat: FewShotChat, options: ChatOptions) -> Shots:
        """What is shown: the conversation's own demonstrations, the bank's, or none."""
        if chat.demonstrations:
            for name in ("shots", "selector"):
                if getattr(options, name) is not None:
                    raise InputError(f"{name}: the messages bring their demonstrations; all are shown. Leave it out.")
            return Shots(mode=options.mode, demonstrations=chat.demonstrations)
        asked = options.mode != "aim" or options.shots or options.selector is not None
        if options.mode == "zero-shot" or not (asked or len(self._model.bank)):
            return Shots(0, mode="zero-shot")
        return Shots(options.shots, mode=options.mode, selector=options.selector)

    def _prompts(self, group: Sequence[Asked]) -> list[ChatPrompt]:
        """The prompts of conversations with one encoder, and one value of shots unless they bring their own."""
        first, model = group[0], self._model
        encoder, shots, queries = first.encoder, first.shots, [one.chat.query for one in group]
        shown = [one.chat.demonstrations for one in group]
        banked = not first.chat.demonstrations and shots.mode != "zero-shot"
        if banked and encoder.binding.scope != model.bank.binding.scope:
            found = chosen(model.bank, shots.selector or model.selector, queries, shots.count)
            shown = [tuple(entry.checked() for entry in entries) for entries in found]
            banked = False
        given = (
            [shots]
            if banked or shots.mode == "zero-shot"
            else [Shots(mode=shots.mode, demonstrations=items) for items in shown]
        )
        if shots.mode == "aim" and not banked:
            tokens = self._kept.of(encoder, shown, model.bank)
            return [
                ChatPrompt(
                    one.turns, one.chat.query, (kept, tuple(str(t.key) for t in kept)), made, encoder, read, one.options
                )
                for one, (kept, read), made in zip(group, tokens, given, strict=True)
            ]
        contexts = Contexts(encoder, model.bank, model.selector)
        if len(given) == 1:
            named = contexts.of(queries, given[0])
            given = given * len(group)
        else:
            named = [contexts.of([query], one)[0] for query, one in zip(queries, given, strict=True)]
        return [
            ChatPrompt(one.turns, one.chat.query, context, made, encoder, 0, one.options)
            for one, context, made in zip(group, named, given, strict=True)
        ]


def _together(one: Asked) -> object:
    """What conversations have in common that are read for together."""
    shots = one.shots
    return id(one.encoder), bool(one.chat.demonstrations), shots.mode, shots.count, id(shots.selector)
