"""AIMPipeline: reads demonstrations into the bank, and answers queries behind them. Holds no model-specific code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

import torch

from aim_sdk.bank import BankEntry, DemonstrationBank
from aim_sdk.encoder import Encoder
from aim_sdk.errors import FormatError, InputError, ShotsError, did_you_mean
from aim_sdk.interfaces import Backend, Projector
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.registry import get_backend
from aim_sdk.selection import Selector, get_selector
from aim_sdk.types import Context, Demonstration, FusedTokens, Generation, ImageInput, Mode, Query

if TYPE_CHECKING:
    from aim_sdk.config import PromptFormat

MODES: tuple[Mode, ...] = ("aim", "text-only", "interleaved", "zero-shot", "no-image")
READ_BATCH = 16
"""Demonstrations a forward, where a call brings its own."""

Normalization = Literal["none", "tokens", "characters"]
Demonstrations: TypeAlias = Sequence[Demonstration] | Sequence[Sequence[Demonstration]]
Shown: TypeAlias = Demonstration | BankEntry


class AIMPipeline:
    """A frozen backbone that learns from demonstrations.

    Args:
        backend: a loaded backend.
        projector: a projector of that backbone; None takes the backend's default. It must not change while the
            pipeline uses it: the bank keeps what it made.
        prompt_format: how demonstrations and queries are written; None takes the backend's default.
        bank: a folder that keeps the bank, made where there is none; None keeps it in memory.
        keep_readings: keep the readings in a new bank, too: another projector then needs no reading anew.
        keep_images: keep the image files in a new bank, too: it can then be read anew anywhere.
        selector: chooses each query's demonstrations from the bank: a name (see :mod:`aim_sdk.selection`) or an object.
        prefix_bytes: memory for computed prefixes (:mod:`aim_sdk.prefixes`), where the backend shares them between
            prompts; None takes the backend's default (1 GiB), 0 computes every prompt whole.

    Every answering method takes the same arguments. ``shots``: how many demonstrations to use (None: all).
    ``demonstrations``: use these instead of the bank's; for a list of queries, one list for all or one a query.
    ``mode``: ``"aim"``, or a baseline on the same demonstrations: ``"text-only"`` (their texts, no images),
    ``"interleaved"`` (all with images in one prompt), ``"zero-shot"`` (none), ``"no-image"`` (the control: the same
    projector, demonstrations read without their images). ``selector``: another one for this call.
    """

    def __init__(
        self,
        backend: Backend,
        projector: Projector | None = None,
        *,
        prompt_format: PromptFormat | None = None,
        bank: str | Path | None = None,
        keep_readings: bool = False,
        keep_images: bool = False,
        selector: str | Selector = "first",
        prefix_bytes: int | None = None,
    ) -> None:
        self.backend = backend
        self.prompt_format = prompt_format or backend.default_format
        self.projector = _fit(projector or backend.default_projector(), backend)
        self.selector = get_selector(selector)
        self.encoder = Encoder(backend, self.projector, self.prompt_format)
        if prefix_bytes is not None and backend.injector.prefixes is not None:
            backend.injector.prefixes.resize(prefix_bytes)
        if bank is None:
            self.bank = DemonstrationBank.in_memory(self.encoder)
        else:
            self.bank = DemonstrationBank.open(
                bank, encoder=self.encoder, keep_readings=keep_readings, keep_images=keep_images
            )

    @classmethod
    def from_pretrained(
        cls,
        backend: str,
        *,
        model: str | Path | None = None,
        projector: Projector | str | Path | None = None,
        prompt_format: PromptFormat | None = None,
        bank: str | Path | None = None,
        keep_readings: bool = False,
        keep_images: bool = False,
        selector: str | Selector = "first",
        prefix_bytes: int | None = None,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Load a backend by name and compose it with a projector.

        Args:
            backend: a registered name; ``aim-icl backends list`` shows them.
            model: a hub id or a local folder; None takes the backend's default.
            projector: a folder or hub id, a projector, or the kind of an untrained one (``"linear"``, ``"residual"``,
                ``"carrier"``); None takes the backend's default.
            prompt_format, bank, keep_readings, keep_images, selector, prefix_bytes: see the class.
            device, dtype: where and in what precision the backbone runs; None lets the backend choose.
            **options: passed to the backend (transformers: ``revision``, ``device_map``, ``quantization_config``, ...).

        Raises:
            BackendError: see :mod:`aim_sdk.errors` for its members.
            ArtifactError: the projector or the bank cannot be loaded or belongs to another backbone.
        """
        loaded = get_backend(backend).from_pretrained(
            None if model is None else str(model), device=device, dtype=dtype, **options
        )
        if isinstance(projector, str | Path):
            projector = (
                untrained(str(projector), loaded) if projector in KINDS else Projector.from_pretrained(projector)
            )
        return cls(
            loaded,
            projector,
            prompt_format=prompt_format,
            bank=bank,
            keep_readings=keep_readings,
            keep_images=keep_images,
            selector=selector,
            prefix_bytes=prefix_bytes,
        )

    def __call__(
        self,
        image: ImageInput,
        text: str = "",
        *,
        shots: int | None = None,
        demonstrations: Sequence[Demonstration] | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> str:
        """Answer one query; see :meth:`generate`."""
        answers = self.generate(
            [Query(image, text)],
            shots=shots,
            demonstrations=demonstrations,
            mode=mode,
            selector=selector,
            max_new_tokens=max_new_tokens,
            **generation,
        )
        return answers[0].text

    def generate(
        self,
        queries: Sequence[Query],
        *,
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        **generation: Any,
    ) -> list[Generation]:
        """Answer queries in batches of similar length; the answers come in the queries' order.

        Args:
            queries: images with their texts.
            shots, demonstrations, mode, selector: see the class.
            max_new_tokens: the longest answer, in tokens.
            batch_size: prompts a forward.
            **generation: passed to the backend (transformers: any argument of ``generate``); greedy by default.

        Raises:
            InputError: and its members :class:`ImageError`, :class:`ShotsError`, :class:`ContextLengthError`.
        """
        _check_positive(max_new_tokens=max_new_tokens, batch_size=batch_size)
        contexts = self._contexts(queries, shots, demonstrations, mode, selector)
        order = sorted(range(len(queries)), key=lambda i: _order(contexts[i]))
        answers: dict[int, Generation] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            generated = self.backend.injector.generate(
                [queries[i] for i in batch],
                [contexts[i] for i in batch],
                prompt_format=self.prompt_format,
                max_new_tokens=max_new_tokens,
                **generation,
            )
            if len(generated) != len(batch):
                raise InputError(
                    f"{len(generated)} answers for {len(batch)} queries; pass each query as often as it is to be "
                    "answered instead of num_return_sequences."
                )
            answers.update(zip(batch, generated, strict=True))
        return [answers[i] for i in range(len(queries))]

    def stream(
        self,
        image: ImageInput,
        text: str = "",
        *,
        shots: int | None = None,
        demonstrations: Sequence[Demonstration] | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> Iterator[str]:
        """Yield an answer piece by piece; joined, the pieces equal :meth:`__call__`'s answer."""
        _check_positive(max_new_tokens=max_new_tokens)
        query = Query(image, text)
        (context,) = self._contexts([query], shots, demonstrations, mode, selector)
        return self.backend.injector.stream(
            query, context, prompt_format=self.prompt_format, max_new_tokens=max_new_tokens, **generation
        )

    def score(
        self,
        query: Query,
        choices: Sequence[str],
        *,
        normalize: Normalization = "none",
        shots: int | None = None,
        demonstrations: Sequence[Demonstration] | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
    ) -> list[float]:
        """Return the log-probability (natural log) of each choice as the answer; the prompt is computed once.

        Args:
            query: an image with its text.
            choices: candidate answers, none blank.
            normalize: ``"none"`` sums over a choice's tokens, ``"tokens"`` and ``"characters"`` divide the sum by
                their number.
            shots, demonstrations, mode, selector: see the class.
        """
        if normalize not in ("none", "tokens", "characters"):
            raise InputError(f"normalize={normalize!r}; expected 'none', 'tokens' or 'characters'.")
        if isinstance(choices, str) or not choices or not all(isinstance(c, str) and c.strip() for c in choices):
            raise InputError("score: `choices` must be a list of at least one non-blank string.")
        (context,) = self._contexts([query], shots, demonstrations, mode, selector)
        scores = self.backend.injector.score(query, context, choices, prompt_format=self.prompt_format)
        lengths = {
            "none": [1] * len(choices),
            "tokens": [len(tokens) for tokens in scores],
            "characters": [len(choice) for choice in choices],
        }[normalize]
        return [sum(tokens) / length for tokens, length in zip(scores, lengths, strict=True)]

    def _contexts(
        self,
        queries: Sequence[Query],
        shots: int | None,
        demonstrations: Demonstrations | None,
        mode: Mode,
        selector: str | Selector | None,
    ) -> list[Context]:
        if mode not in MODES:
            raise InputError(
                f"unknown mode {mode!r}.{did_you_mean(str(mode), MODES)} Expected one of: {', '.join(MODES)}."
            )
        if shots is not None and (not isinstance(shots, int) or shots < 0):
            raise InputError(f"shots={shots!r}; expected a whole number of at least 0, or None for all demonstrations.")
        if mode == "zero-shot":
            chosen: list[list[Shown]] = [[]] * len(queries)
        elif demonstrations is not None:
            chosen = self._given(queries, shots, demonstrations)
        else:
            chosen = self._selected(queries, shots, self.selector if selector is None else get_selector(selector))
        if self.prompt_format.kind == "chat":
            for query, items in zip(queries, chosen, strict=True):
                if not items and not query.text.strip():
                    raise InputError("the query has no text and no demonstrations: nothing says what is asked.")
        if mode == "interleaved":
            if not self.backend.supports_interleaved and any(chosen):
                raise FormatError(
                    f"backend {self.backend.name!r} takes one image a prompt: mode='interleaved' cannot run on it."
                )
            return [[_demonstration(item) for item in items] for items in chosen]
        identity: Callable[[Shown], object] = id if mode == "aim" else _texts
        unique = {identity(item): item for items in chosen for item in items}
        fused = dict(zip(unique, self._fuse(list(unique.values()), mode), strict=True))
        return [[fused[identity(item)] for item in items] for items in chosen]

    def _selected(self, queries: Sequence[Query], shots: int | None, selector: Selector) -> list[list[Shown]]:
        chosen = selector.select(self.bank, queries, shots)
        entries = {key: self.bank[key] for keys in chosen for key in keys}
        return [[entries[key] for key in keys] for keys in chosen]

    def _given(self, queries: Sequence[Query], shots: int | None, demonstrations: Demonstrations) -> list[list[Shown]]:
        if all(isinstance(item, Demonstration) for item in demonstrations):
            chosen = [list(cast("Sequence[Shown]", demonstrations))] * len(queries)
        else:
            chosen = [list(items) for items in cast("Sequence[Sequence[Shown]]", demonstrations)]
        if len(chosen) != len(queries):
            raise InputError(f"{len(queries)} queries, but demonstrations for {len(chosen)} of them.")
        fewest = min(map(len, chosen), default=0)
        if shots is not None and shots > fewest:
            raise ShotsError(f"{shots} shots asked for, but only {fewest} demonstrations were given.")
        return [items[:shots] for items in chosen]

    def _fuse(self, shown: list[Shown], mode: Mode) -> list[FusedTokens]:
        if mode != "aim":
            return self._encoded([_demonstration(item) for item in shown], mode)
        keys = [item.key if isinstance(item, BankEntry) else self.bank.key(item) for item in shown]
        banked = [
            item if isinstance(item, BankEntry) else self.bank.get(key) for item, key in zip(shown, keys, strict=True)
        ]
        missing = {
            key: _demonstration(item) for key, item, entry in zip(keys, shown, banked, strict=True) if entry is None
        }
        made = dict(zip(missing, self._encoded(list(missing.values()), mode), strict=True))
        return [
            replace(made[key], key=key) if entry is None else entry.fused
            for key, entry in zip(keys, banked, strict=True)
        ]

    def _encoded(self, demonstrations: list[Demonstration], mode: Mode) -> list[FusedTokens]:
        batches = [demonstrations[start : start + READ_BATCH] for start in range(0, len(demonstrations), READ_BATCH)]
        if mode == "text-only":
            reader = self.backend.reader
            made = [t for batch in batches for t in reader.text_only(batch, prompt_format=self.prompt_format)]
        else:
            with_images = mode != "no-image"
            made = [t for batch in batches for t in self.encoder.encode(batch, with_images=with_images)]
        if mode == "aim":  # keyed by their images, too
            return made
        return [
            replace(tokens, key=self._text_key(item, mode)) for tokens, item in zip(made, demonstrations, strict=True)
        ]

    def _text_key(self, demonstration: Demonstration, mode: Mode) -> str:
        parts = [mode, *_texts(demonstration), self.encoder.binding.scope]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _fit(projector: Projector, backend: Backend) -> Projector:
    projector.check_backbone(backend.fingerprint)
    expected = (backend.fingerprint.hidden_size, backend.fingerprint.embedding_size)
    if (projector.hidden_size, projector.embedding_size) != expected:
        raise InputError(
            f"the projector maps {projector.hidden_size} -> {projector.embedding_size}, "
            f"but {backend.fingerprint.model!r} needs {expected[0]} -> {expected[1]}."
        )
    projector.fingerprint = backend.fingerprint
    projector.bind(backend)
    return projector.to(backend.input_embeddings.device).eval()


def _order(context: Context) -> tuple[int, tuple[str, ...]]:
    """Batches are of similar length, and equal contexts stand beside one another."""
    fused = [item for item in context if isinstance(item, FusedTokens)]
    return sum(map(len, fused)) if fused else len(context), tuple(item.key or "" for item in fused)


def _demonstration(item: Shown) -> Demonstration:
    return item.demonstration if isinstance(item, BankEntry) else item


def _texts(item: Shown) -> tuple[str, str]:
    """What tells demonstrations apart where their images are not looked at."""
    demonstration = _demonstration(item)
    return demonstration.text, demonstration.answer


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}; expected a whole number of at least 1.")
