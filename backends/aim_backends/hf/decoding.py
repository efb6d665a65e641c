"""Generation: options, stopping, and streamed text."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from aim_backends.hf.generation_settings import at_fault
from aim_backends.hf.watching import Admitted, AnswerEnds, Finite, Pieces
from aim_sdk.backend.answers import clean_answer, stream_answer
from aim_sdk.backend.grammar import AnswerGrammar
from aim_sdk.errors import InputError
from aim_sdk.support.cores import hand_over_cores
from aim_sdk.types import Generation

if TYPE_CHECKING:
    from aim_backends.hf.backbone import Backbone

_SEEDED = threading.Lock()
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class Generated:
    """One row's generated ids and, if they were asked for, their log-probabilities."""

    ids: list[int]
    log_probs: tuple[float, ...] | None = None


class Decoding:
    """Runs ``generate`` after one batch of prompts of ``width`` positions.

    An answer ends at the string ``stop``, or where its ``grammar`` says; ``given`` are the caller's options.
    """

    def __init__(
        self,
        backbone: Backbone,
        width: int,
        stop: str | None,
        ends: Collection[int],
        grammar: AnswerGrammar | None,
        given: Mapping[str, Any],
    ) -> None:
        self._backbone, self.width, self._ends, self._grammar = backbone, width, frozenset(ends), grammar
        self._given = given
        stops = given.get("stop_strings") or backbone.model.generation_config.stop_strings
        self._may_be_padded = bool(stops or given.get("stopping_criteria"))
        self.stop = stop if grammar is None else None
        self._mark = special_start(backbone, self.stop)

    def options(self, max_new_tokens: int, *, slots: bool) -> dict[str, Any]:
        """Merge the caller's options with ours: greedy by default, no slot is ever generated."""
        defaults = self._backbone.model.generation_config
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": max_new_tokens, **self._given}
        if options.get("pad_token_id", defaults.pad_token_id) is None:
            options["pad_token_id"] = self._backbone.pad_token_id
        if slots:
            wanted = options.get("suppress_tokens", defaults.suppress_tokens)
            options["suppress_tokens"] = [*(wanted or []), self._backbone.slot]
        if "stop_strings" in options:
            options.setdefault("tokenizer", self._backbone.tokenizer)
        if self.stop or self._grammar:
            criteria = [*options.get("stopping_criteria", []), AnswerEnds(self)]
            options["stopping_criteria"] = StoppingCriteriaList(criteria)
        return options

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any], options: Mapping[str, Any], *, log_probs: bool = False) -> list[Generated]:
        """Return the generated ids of each row, without padding.

        Raises:
            InputError: an option that this backbone does not know, or log-probabilities of beams.
            NonFiniteError: NaN or infinity in the logits.
        """
        if log_probs and options["num_beams"] != 1:
            raise InputError("log_probs=True: beams are reordered as they grow; use num_beams=1, or score().")
        finite = Finite(len(inputs["input_ids"]), self._backbone.model.dtype, drawn=options["do_sample"])
        processors = LogitsProcessorList([*options.get("logits_processor", []), finite])
        if self._grammar is not None:
            processors.append(Admitted(self._grammar, self.width))
        passed = {name: value for name, value in options.items() if name != "seed"}
        try:
            with _seeded(options.get("seed"), self._backbone.device):
                output = self._backbone.generate(
                    **inputs,
                    **{**passed, "logits_processor": processors},
                    return_dict_in_generate=True,
                    output_logits=log_probs,
                )
        except Exception as error:  # settings fail in many ways
            if "model_kwargs" in str(error) or "unexpected keyword" in str(error):
                raise InputError(f"a generation option is unknown to this backbone: {error}") from error
            if found := at_fault(self._backbone, self._given, len(inputs["input_ids"]), error):
                raise found from error
            raise
        finite.check()
        pad = options.get("pad_token_id", self._backbone.model.generation_config.pad_token_id)
        new: Tensor = output.sequences[:, self.width :]
        rows = [self.cut(row, pad) for row in new.tolist()]
        if not log_probs:
            return [Generated(row) for row in rows]
        steps = [logits.float().log_softmax(-1) for logits in output.logits]  # (rows, vocabulary) each
        chosen = torch.stack([step.gather(1, new[:, n : n + 1])[:, 0] for n, step in enumerate(steps)], 1)
        return [Generated(row, tuple(logs[: len(row)])) for row, logs in zip(rows, chosen.tolist(), strict=True)]

    def stream(
        self, prompt: AbstractContextManager[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> Generator[str, None, Generated]:
        """Yield the answer's text while a thread generates; leaving the iterator early stops the thread.

        ``prompt`` gives the inputs; the thread enters it, and holds the backbone until it leaves.
        """
        if options["num_beams"] != 1 or options.get("num_return_sequences", 1) != 1:
            raise InputError("stream: beams and several answers cannot be streamed; use generate().")
        pieces = Pieces(self.text, self.settled)
        stopped = [*options.get("stopping_criteria", []), pieces.left]
        options = {**options, "streamer": pieces, "stopping_criteria": StoppingCriteriaList(stopped)}

        def work() -> None:
            try:
                with prompt as inputs:
                    self.run(inputs, options)
            except BaseException as error:
                pieces.fail(error)
            else:
                pieces.finish()

        hand_over_cores()
        # The thread gets a copy of this context: what the caller has set (such as another injection) also holds there.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        pad = options.get("pad_token_id", self._backbone.model.generation_config.pad_token_id)
        return self._answer(thread, pieces, pad)

    def text(self, ids: list[int]) -> str:
        """Decode generated ids."""
        if self._grammar is not None:
            return self._grammar.text(ids)
        tokenizer, shown = self._backbone.tokenizer, self._backbone.box_ids
        hidden = shown.isdisjoint(ids)  # no box: nothing special is shown
        if not hidden:
            ids = [index for index in ids if index not in self._special - shown]
        return str(tokenizer.decode(ids, skip_special_tokens=hidden, clean_up_tokenization_spaces=False))

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._backbone.tokenizer.added_tokens_decoder
        return frozenset(index for index, token in added.items() if token.special)

    def settled(self, ids: list[int]) -> bool:
        """Whether later tokens leave the text of these as it is: they do not end inside a character.

        SentencePiece decodes a run of byte tokens together, also if a hidden special token is in it: one bad byte
        spoils the run.
        """
        last = next((index for index in reversed(ids) if index not in self._special), ids[-1])
        token = str(self._backbone.tokenizer.convert_ids_to_tokens(last))
        return not self.text(ids).endswith("\ufffd") and not _BYTE.fullmatch(token)

    def generation(self, made: Generated, prompt_tokens: int) -> Generation:
        """Make the answer out of generated ids."""
        grammar = self._grammar
        answer = clean_answer(self.text(made.ids), self.stop) if grammar is None else grammar.answer(made.ids)
        ended = bool(made.ids) and (grammar is not None or made.ids[-1] in self._ends or self._ended(made.ids))
        return Generation(answer, tuple(made.ids), prompt_tokens, made.log_probs, ended=ended)

    def over(self, rows: list[list[int]]) -> list[bool]:
        """Whether each row's answer has ended, besides by an end token."""
        return list(map(self._ended, rows)) if self._grammar is None else self._grammar.over(rows)

    def _ended(self, ids: list[int]) -> bool:
        """Whether an answer (not the blanks that lead it) has reached the stop string."""
        return self._mark in ids or (bool(self.stop) and str(self.stop) in self.text(ids).lstrip())

    def _answer(self, thread: threading.Thread, pieces: Pieces, pad: int | None) -> Generator[str, None, Generated]:
        thread.start()
        try:
            if self._grammar is None:
                yield from stream_answer(pieces, self.stop)
            else:
                yield from self._grammar.pieces(pieces, pieces.ids)
        finally:
            pieces.left.event.set()
            thread.join()
        return Generated(self.cut(pieces.ids, pad))

    def cut(self, ids: list[int], pad: int | None) -> list[int]:
        """Drop what ``generate`` puts after a finished row."""
        if self._grammar is not None:
            return self._grammar.cut(ids)
        if self._ended(ids):
            return next(ids[:n] for n in range(1, len(ids) + 1) if self._ended(ids[:n]))
        end = next((n for n, index in enumerate(ids) if index in self._ends), None)
        if end is not None:
            return ids[: end + 1]
        # What ends a row in another way leaves it to be padded.
        while ids and ids[-1] == pad and self._may_be_padded:
            ids = ids[:-1]
        return ids


def end_tokens(backbone: Backbone, generation: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end an answer: an option's, or the model's own."""
    ends = generation.get("eos_token_id", backbone.model.generation_config.eos_token_id)
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def special_start(backbone: Backbone, stop: str | None) -> int | None:
    """The special token that a stop string begins with: decoded text does not show it."""
    ids = backbone.tokenizer(stop or "", add_special_tokens=False)["input_ids"]
    first = backbone.tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if first is not None and first.special else None


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Inside the block, torch's generators begin from ``seed``; after it they are as they were before.

    They belong to the process: seeded answers of two backbones wait for each other.
    """
    if seed is None:
        yield
        return
    with _SEEDED, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
