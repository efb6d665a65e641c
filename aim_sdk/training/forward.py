"""One batch of episodes: its readings, its fused tokens, and the log-probabilities of what is learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from PIL import Image
from torch import Tensor

from aim_sdk.backend.capabilities import Trainable, capability
from aim_sdk.backend.prepared import PreparedAnswers
from aim_sdk.errors import ContextLengthError, ImageError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.reading.cache import ReadingCache
from aim_sdk.reading.encoder import Encoder, OnError, PreparedBatch, batches_of
from aim_sdk.training.episodes import Episode
from aim_sdk.types import Demonstration, FusedTokens, KeptReading, Query, Reading

Contexts: TypeAlias = "Sequence[Sequence[FusedTokens]]"


@dataclass(slots=True)
class Work:
    """A batch whose images are decoded and whose texts are tokenised."""

    episodes: list[Episode]
    keys: list[list[str]]
    """Each episode's demonstrations by name."""
    cached: dict[str, KeptReading]
    names: list[str]
    """The demonstrations that are to be read, by name; `reads` says their places here."""
    reads: list[PreparedBatch]
    """A forward each."""
    answers: PreparedAnswers
    dropped: Counter[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a forward gave."""

    log_probs: list[Tensor]
    """Of each episode's answer, token by token."""
    tokens: int
    """Tokens of texts that the backbone saw: demonstrations where they were read, fused tokens, answers."""


class Forward:
    """Prepares and runs batches on one backbone."""

    def __init__(self, encoder: Encoder, *, reading_tokens: int, cache: ReadingCache | None = None) -> None:
        self.encoder, self.cache, self._budget = encoder, cache, reading_tokens
        self.backend, self.projector = encoder.backend, encoder.projector
        self._trainable = capability(encoder.backend, Trainable)

    def prepare(self, episodes: Sequence[Episode]) -> Work:
        """Do the work that needs no backbone; what cannot be used is dropped and counted. May run in another thread."""
        dropped, shown = Counter[str](), dict[str, Demonstration]()
        keys = [[_key(item) for item in episode.demonstrations] for episode in episodes]
        for episode, names in zip(episodes, keys, strict=True):
            shown.update(zip(names, episode.demonstrations, strict=True))
        cached = {key: found for key in shown if self.cache is not None and (found := self.cache.get(key))}
        bad: dict[str, str] = {}
        missing: dict[str, Demonstration] = {}
        for key in shown.keys() - cached.keys():
            try:
                missing[key] = replace(shown[key], image=load_image(shown[key].image))
            except ImageError:
                bad[key] = "image cannot be decoded"
        wanted = [key for key in shown if key in missing]
        reads = self._reads([missing[key] for key in wanted], _noting(bad, wanted))
        kept = []
        for episode, names in zip(episodes, keys, strict=True):
            reason = next((bad[name] for name in names if name in bad), None)
            if reason is None:
                try:
                    kept.append((replace(episode, query=_decoded(episode.query)), names))
                except ImageError:
                    reason = "image cannot be decoded"
            if reason is not None:
                dropped[reason] += 1
        kept, answers = self._answered(kept, dropped)
        return Work([e for e, _ in kept], [names for _, names in kept], cached, wanted, reads, answers, dropped)

    def run(self, work: Work) -> Outcome:
        """Read, project, answer; gradients flow to the projector if they are enabled."""
        refused: dict[str, str] = {}
        read = {work.names[n]: reading for n, reading in self.encoder.run(work.reads, _noting(refused, work.names))}
        if self.cache is not None:
            for key, reading in read.items():
                if not key.startswith(_UNNAMED):
                    self.cache.add(key, reading.kept())
        if refused:
            self._drop(work, refused)
        names = list(dict.fromkeys(name for keys in work.keys for name in keys))
        readings = {name: read[name] if name in read else self.encoder.whole(work.cached[name]) for name in names}
        fused = dict(zip(names, self.projector.project(list(readings.values())), strict=True))
        log_probs = self._log_probs(work, [[fused[name] for name in keys] for keys in work.keys])
        tokens = sum(map(len, read.values())) + sum(len(fused[name]) for keys in work.keys for name in keys)
        return Outcome(log_probs, tokens + sum(map(len, log_probs)))

    def log_probs(self, answers: PreparedAnswers, contexts: Contexts) -> list[Tensor]:
        """The token log-probabilities of each answer after its context; nothing is run if there are none."""
        return [one.log_probs for one in self._trainable.answer_logits(answers, contexts)] if len(answers) else []

    def readings(self, demonstrations: Sequence[Demonstration]) -> list[Reading]:
        """Read demonstrations; those that cannot be read are left out."""
        left_out = _noting({}, list(map(str, range(len(demonstrations)))))
        return [reading for _, reading in self.encoder.run(self._reads(demonstrations, left_out), left_out)]

    def read_without_images(self, work: Work) -> list[list[FusedTokens]]:
        """The control's contexts: the same projector, demonstrations read without their images."""
        return [self.encoder.encode(episode.demonstrations, with_images=False) for episode in work.episodes]

    def text_only(self, work: Work) -> list[list[FusedTokens]]:
        """The baseline's contexts: the demonstrations' texts."""
        reader, form = self.backend.reader, self.encoder.prompt_format
        return [reader.text_only(episode.demonstrations, prompt_format=form) for episode in work.episodes]

    def idle_reading(self) -> None:
        """A reader's forward that nobody uses: with a sharded backbone all processes run as many."""
        self.encoder.encode(_IDLE.demonstrations)

    def idle_step(self) -> None:
        """A forward and backward without a gradient, instead of a batch whose episodes were all left out."""
        contexts = [self.projector.project(self.encoder.read(_IDLE.demonstrations))]
        (log_probs,) = self.log_probs(self._prepared([_IDLE]), contexts)
        (log_probs.sum() * 0).backward()  # type: ignore[no-untyped-call]

    def _reads(self, items: Sequence[Demonstration], refused: OnError) -> list[PreparedBatch]:
        batches = batches_of(self.encoder.lengths_by_place(items, refused), self._budget)
        return [part for batch in batches for part in self.encoder.prepare(items, batch, refused)]

    def _answered(
        self, kept: list[tuple[Episode, list[str]]], dropped: Counter[str]
    ) -> tuple[list[tuple[Episode, list[str]]], PreparedAnswers]:
        """The episodes whose queries and answers can be used, and what was prepared of these."""
        try:
            return kept, self._prepared([episode for episode, _ in kept])
        except InputError:
            usable = []
            for episode, names in kept:
                try:
                    self._prepared([episode])
                    usable.append((episode, names))
                except InputError as error:
                    dropped[_reason(error)] += 1
            return usable, self._prepared([episode for episode, _ in usable])

    def _drop(self, work: Work, refused: dict[str, str]) -> None:
        """Leave out the episodes of demonstrations that the backbone refused in its forward."""
        found = zip(work.episodes, work.keys, strict=True)
        kept = [(episode, names) for episode, names in found if not refused.keys() & set(names)]
        for names in work.keys:
            work.dropped.update([refused[name] for name in names if name in refused][:1])
        work.episodes, work.keys = [e for e, _ in kept], [names for _, names in kept]
        work.answers = self._prepared(work.episodes)

    def _prepared(self, episodes: Sequence[Episode]) -> PreparedAnswers:
        queries, answers = [episode.query for episode in episodes], [episode.answer for episode in episodes]
        return self._trainable.prepare_answers(queries, answers, prompt_format=self.encoder.prompt_format, ended=True)

    def _log_probs(self, work: Work, contexts: Contexts) -> list[Tensor]:
        """Answer the batch; episodes that do not fit into the context are dropped."""
        try:
            return self.log_probs(work.answers, contexts)
        except ContextLengthError:
            fitting, found = [], list[Tensor]()
            for episode, keys, context in zip(work.episodes, work.keys, contexts, strict=True):
                try:
                    found += self.log_probs(self._prepared([episode]), [context])
                    fitting.append((episode, keys))
                except ContextLengthError as error:
                    work.dropped[_reason(error)] += 1
            work.episodes, work.keys = [e for e, _ in fitting], [keys for _, keys in fitting]
            return found


_UNNAMED = "@"
_BLANK = Image.new("RGB", (64, 64))
_IDLE = Episode((Demonstration(_BLANK, "Is it?", "yes"),), Query(_BLANK, "Is it?"), "no", "")


def _key(item: Demonstration) -> str:
    return str(item.metadata.get("id", f"{_UNNAMED}{id(item)}"))


def _noting(reasons: dict[str, str], names: Sequence[str]) -> OnError:
    """Record why the demonstrations with these names cannot be used."""

    def note(place: int, error: InputError) -> None:
        reasons[names[place]] = _reason(error)

    return note


def _decoded(query: Query) -> Query:
    return replace(query, image=load_image(query.image))


def _reason(error: InputError) -> str:
    if isinstance(error, ContextLengthError):
        return "longer than the backbone's context"
    return "image refused by the backbone" if isinstance(error, ImageError) else "text refused by the backbone"
