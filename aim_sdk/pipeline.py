"""AIMPipeline: reads demonstrations into the bank, and answers queries behind them. Holds no model-specific code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import safetensors.torch
import torch

from aim_sdk.bank import DemonstrationBank
from aim_sdk.errors import FormatError, InputError, ShotsError, did_you_mean
from aim_sdk.interfaces import Backend, Projector
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.registry import get_backend
from aim_sdk.types import Context, Demonstration, FusedTokens, Generation, ImageInput, Mode, Query

if TYPE_CHECKING:
    from aim_sdk.config import PromptFormat

MODES: tuple[Mode, ...] = ("aim", "text-only", "interleaved", "zero-shot", "no-image")
READ_BATCH = 16
"""Demonstrations a forward, where a call brings its own."""

Normalization = Literal["none", "tokens", "characters"]
Demonstrations = Sequence[Demonstration] | Sequence[Sequence[Demonstration]]


class AIMPipeline:
    """A frozen backbone that learns from demonstrations.

    Args:
        backend: a loaded backend.
        projector: a projector of that backbone; None takes the backend's default. It must not change while the
            pipeline uses it: the bank keeps what it made.
        prompt_format: how demonstrations and queries are written; None takes the backend's default.

    Every answering method takes the same three arguments. ``shots``: how many demonstrations to use (None: all).
    ``demonstrations``: use these instead of the bank's; for a list of queries, one list for all or one a query.
    ``mode``: ``"aim"``, or a baseline on the same demonstrations: ``"text-only"`` (their texts, no images),
    ``"interleaved"`` (all with images in one prompt), ``"zero-shot"`` (none), ``"no-image"`` (the control: the same
    projector, demonstrations read without their images).
    """

    def __init__(
        self, backend: Backend, projector: Projector | None = None, *, prompt_format: PromptFormat | None = None
    ) -> None:
        self.backend = backend
        self.prompt_format = prompt_format or backend.default_format
        self.projector = _fit(projector or backend.default_projector(), backend)
        scope = (
            f"{backend.fingerprint.model_dump_json()} {_hash(self.projector)} {self.prompt_format.model_dump_json()}"
        )
        self.bank = DemonstrationBank(self._encode, scope)

    @classmethod
    def from_pretrained(
        cls,
        backend: str,
        *,
        model: str | Path | None = None,
        projector: Projector | str | Path | None = None,
        prompt_format: PromptFormat | None = None,
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
            prompt_format: see the class.
            device, dtype: where and in what precision the backbone runs; None lets the backend choose.
            **options: passed to the backend (transformers: ``revision``, ``device_map``, ``quantization_config``, ...).

        Raises:
            BackendError: see :mod:`aim_sdk.errors` for its members.
            ArtifactError: the projector cannot be loaded or belongs to another backbone.
        """
        loaded = get_backend(backend).from_pretrained(
            None if model is None else str(model), device=device, dtype=dtype, **options
        )
        if isinstance(projector, str | Path):
            projector = (
                untrained(str(projector), loaded) if projector in KINDS else Projector.from_pretrained(projector)
            )
        return cls(loaded, projector, prompt_format=prompt_format)

    def __call__(
        self,
        image: ImageInput,
        text: str = "",
        *,
        shots: int | None = None,
        demonstrations: Sequence[Demonstration] | None = None,
        mode: Mode = "aim",
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> str:
        """Answer one query; see :meth:`generate`."""
        answers = self.generate(
            [Query(image, text)],
            shots=shots,
            demonstrations=demonstrations,
            mode=mode,
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
        max_new_tokens: int = 32,
        batch_size: int = 8,
        **generation: Any,
    ) -> list[Generation]:
        """Answer queries in batches of similar length; the answers come in the queries' order.

        Args:
            queries: images with their texts.
            shots, demonstrations, mode: see the class.
            max_new_tokens: the longest answer, in tokens.
            batch_size: prompts a forward.
            **generation: passed to the backend (transformers: any argument of ``generate``); greedy by default.

        Raises:
            InputError: and its members :class:`ImageError`, :class:`ShotsError`, :class:`ContextLengthError`.
        """
        _check_positive(max_new_tokens=max_new_tokens, batch_size=batch_size)
        contexts = self._contexts(queries, shots, demonstrations, mode)
        order = sorted(range(len(queries)), key=lambda i: _length(contexts[i]))
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
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> Iterator[str]:
        """Yield an answer piece by piece; joined, the pieces equal :meth:`__call__`'s answer."""
        _check_positive(max_new_tokens=max_new_tokens)
        query = Query(image, text)
        (context,) = self._contexts([query], shots, demonstrations, mode)
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
    ) -> list[float]:
        """Return the log-probability (natural log) of each choice as the answer; the prompt is computed once.

        Args:
            query: an image with its text.
            choices: candidate answers, none blank.
            normalize: ``"none"`` sums over a choice's tokens, ``"tokens"`` and ``"characters"`` divide the sum by
                their number.
            shots, demonstrations, mode: see the class.
        """
        if normalize not in ("none", "tokens", "characters"):
            raise InputError(f"normalize={normalize!r}; expected 'none', 'tokens' or 'characters'.")
        if isinstance(choices, str) or not choices or not all(isinstance(c, str) and c.strip() for c in choices):
            raise InputError("score: `choices` must be a list of at least one non-blank string.")
        (context,) = self._contexts([query], shots, demonstrations, mode)
        scores = self.backend.injector.score(query, context, choices, prompt_format=self.prompt_format)
        lengths = {
            "none": [1] * len(choices),
            "tokens": [len(tokens) for tokens in scores],
            "characters": [len(choice) for choice in choices],
        }[normalize]
        return [sum(tokens) / length for tokens, length in zip(scores, lengths, strict=True)]

    def _contexts(
        self, queries: Sequence[Query], shots: int | None, demonstrations: Demonstrations | None, mode: Mode
    ) -> list[Context]:
        if mode not in MODES:
            raise InputError(
                f"unknown mode {mode!r}.{did_you_mean(str(mode), MODES)} Expected one of: {', '.join(MODES)}."
            )
        if shots is not None and (not isinstance(shots, int) or shots < 0):
            raise InputError(f"shots={shots!r}; expected a whole number of at least 0, or None for all demonstrations.")
        chosen = [[]] * len(queries) if mode == "zero-shot" else self._choose(queries, shots, demonstrations)
        if self.prompt_format.kind == "chat":
            for query, items in zip(queries, chosen, strict=True):
                if not items and not query.text.strip():
                    raise InputError("the query has no text and no demonstrations: nothing says what is asked.")
        if mode == "interleaved":
            if not self.backend.supports_interleaved and any(chosen):
                raise FormatError(
                    f"backend {self.backend.name!r} takes one image a prompt: mode='interleaved' cannot run on it."
                )
            return list(chosen)
        identity: Callable[[Demonstration], object] = id if mode == "aim" else _texts
        unique = {identity(item): item for items in chosen for item in items}
        fused = dict(zip(unique, self._fuse(list(unique.values()), mode), strict=True))
        return [[fused[identity(item)] for item in items] for items in chosen]

    def _choose(
        self, queries: Sequence[Query], shots: int | None, demonstrations: Demonstrations | None
    ) -> list[list[Demonstration]]:
        if demonstrations is None:
            entries = self.bank.first(len(self.bank) if shots is None else shots)
            return [[entry.demonstration for entry in entries]] * len(queries)
        if all(isinstance(item, Demonstration) for item in demonstrations):
            chosen = [list(cast("Sequence[Demonstration]", demonstrations))] * len(queries)
        else:
            chosen = [list(items) for items in cast("Sequence[Sequence[Demonstration]]", demonstrations)]
        if len(chosen) != len(queries):
            raise InputError(f"{len(queries)} queries, but demonstrations for {len(chosen)} of them.")
        fewest = min(map(len, chosen), default=0)
        if shots is not None and shots > fewest:
            raise ShotsError(f"{shots} shots asked for, but only {fewest} demonstrations were given.")
        return [items[:shots] for items in chosen]

    def _fuse(self, demonstrations: list[Demonstration], mode: Mode) -> list[FusedTokens]:
        banked = [self.bank.get(self.bank.key(item)) if mode == "aim" else None for item in demonstrations]
        missing = [item for item, entry in zip(demonstrations, banked, strict=True) if entry is None]
        encode: Callable[[list[Demonstration]], list[FusedTokens]] = {
            "aim": self._encode,
            "no-image": lambda items: self._encode(items, with_images=False),
            "text-only": lambda items: self.backend.reader.text_only(items, prompt_format=self.prompt_format),
        }.get(mode, self._encode)
        batches = [missing[start : start + READ_BATCH] for start in range(0, len(missing), READ_BATCH)]
        made = iter([tokens for batch in batches for tokens in encode(batch)])
        return [entry.fused if entry else next(made) for entry in banked]

    @torch.no_grad()
    def _encode(self, demonstrations: Sequence[Demonstration], *, with_images: bool = True) -> list[FusedTokens]:
        readings = self.backend.reader.read(demonstrations, prompt_format=self.prompt_format, with_images=with_images)
        return self.projector.project(readings)


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


def _hash(projector: Projector) -> str:
    weights = safetensors.torch.save({name: value.contiguous() for name, value in projector.state_dict().items()})
    return hashlib.sha256(weights).hexdigest()


def _length(context: Context) -> int:
    return sum(len(item) if isinstance(item, FusedTokens) else 1 for item in context)


def _texts(demonstration: Demonstration) -> tuple[str, str]:
    """What tells demonstrations apart where their images are not looked at."""
    return demonstration.text, demonstration.answer


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}; expected a whole number of at least 1.")
