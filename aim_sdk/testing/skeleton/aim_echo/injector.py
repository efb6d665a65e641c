"""How fused tokens are put into the toy model's prompt."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aim_echo.model import EOS, PRINTABLE, Cache, EchoModel, decode
from aim_echo.template import check_length, opening, turn
from aim_sdk.backend import (
    AnswerLogits,
    Context,
    Demonstration,
    FusedTokens,
    Generation,
    Injector,
    InputError,
    PrefixCache,
    PreparedAnswers,
    PromptFormat,
    Query,
    clean_answer,
    load_image,
    stream_answer,
)


class EchoInjector(Injector):
    def __init__(self, model: EchoModel) -> None:
        self.model = model
        self.prefixes: PrefixCache[Cache] = PrefixCache()

    def generate(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        log_probs: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        answers = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            try:
                parts = self._prompt(query, context, prompt_format, max_new_tokens, generation)
            except InputError as error:
                error.query = place  # which of the batch it is about
                raise
            steps = list(self._continue(parts, context, prompt_format, max_new_tokens))
            ids, logs = [token for token, _ in steps], tuple(log for _, log in steps)
            answer = clean_answer(decode(ids), prompt_format.stop)
            answers.append(Generation(answer, tuple(ids), sum(map(len, parts)), logs if log_probs else None))
        return answers

    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        parts = self._prompt(query, context, prompt_format, max_new_tokens, generation)
        tokens = self._continue(parts, context, prompt_format, max_new_tokens)
        return stream_answer((decode([token]) for token, _ in tokens), prompt_format.stop)

    @torch.no_grad()
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        ids = [self.answer_ids(choice, prompt_format) for choice in choices]
        parts = self._prompt(query, context, prompt_format, max(map(len, ids)), {})
        hidden, cache = self._prefill(parts, context, prompt_format)
        scores = []
        for choice in ids:
            states = torch.cat([hidden[-1:], self.model(self.model.embed(choice), cache)[0][:-1]])
            logs = self.model.logits(states).float().log_softmax(-1)
            scores.append(logs[range(len(choice)), choice].tolist())
        return scores

    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        found = []
        for query, context, ids in zip(prepared.queries, contexts, prepared.token_ids, strict=True):
            parts = self._prompt(query, context, prepared.prompt_format, len(ids), {})
            hidden, _ = self.model(torch.cat([*parts, self.model.embed(ids[:-1])]))
            found.append(AnswerLogits(torch.tensor(ids), self.model.logits(hidden[-len(ids) :])))
        return found

    @torch.no_grad()
    def _continue(
        self, parts: list[Tensor], context: Context, prompt_format: PromptFormat, limit: int
    ) -> Iterator[tuple[int, float]]:
        hidden, cache = self._prefill(parts, context, prompt_format)
        ids: list[int] = []
        stop = prompt_format.stop
        while len(ids) < limit and not (ids and ids[-1] == EOS) and not (stop and stop in decode(ids).lstrip()):
            logs = self.model.logits(hidden[-1]).float().log_softmax(-1)
            ids.append(PRINTABLE[int(logs[PRINTABLE].argmax())])
            yield ids[-1], float(logs[ids[-1]])
            hidden, cache = self.model(self.model.embed(ids[-1:]), cache)

    def _prefill(self, parts: list[Tensor], context: Context, prompt_format: PromptFormat) -> tuple[Tensor, Cache]:
        """Run a prompt; repeated demonstrations after the same opening are not run again."""
        shared = self.prefixes.shared(prompt_format, [context])
        if shared is None:
            return self.model(torch.cat(parts))
        cache, count = shared.state, 1 + len(shared.keys)  # 1: the opening
        if shared.done < len(shared.keys):
            missing = parts[1 + shared.done if shared.done else 0 : count]
            _, cache = self.model(torch.cat(missing), cache)
            self.prefixes.put(prompt_format, shared.keys, cache, sum(k.nbytes + v.nbytes for k, v in cache))
        return self.model(torch.cat(parts[count:]), cache)  # the model copies a cache as it grows

    def _prompt(
        self, query: Query, context: Context, prompt_format: PromptFormat, room: int, generation: dict[str, Any]
    ) -> list[Tensor]:
        """The opening, each demonstration, and the query."""
        if generation:
            raise InputError(f"backend 'echo' is greedy and takes no generation options; got {', '.join(generation)}.")
        shots = [
            item.embeddings if isinstance(item, FusedTokens) else self._interleaved(item, prompt_format)
            for item in context
        ]
        asked = turn(prompt_format, query.text)
        image = self.model.see(load_image(query.image))
        last = torch.cat([self.model.embed(asked.before), image, self.model.embed(asked.after)])
        parts = [self.model.embed(opening(prompt_format)), *shots, last]
        check_length(sum(map(len, parts)), room)
        return parts

    def _interleaved(self, item: Demonstration, prompt_format: PromptFormat) -> Tensor:
        shown = turn(prompt_format, item.text, item.answer)
        embeddings, place = self.model.embed(shown.text), len(shown.before)
        return torch.cat([embeddings[:place], self.model.see(load_image(item.image)), embeddings[place:]])

    def answer_ids(self, answer: str, prompt_format: PromptFormat, ended: bool = False) -> list[int]:
        """The tokens of an answer; ``ended``: with the first one that the format writes after it."""
        asked = turn(prompt_format, "", answer)
        return [*asked.blanks, *asked.answer, *(asked.end[:1] if ended else [])]
