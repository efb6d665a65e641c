"""AIMPipeline: reads demonstrations into the bank, and answers queries behind them. Holds no model-specific code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from aim_sdk.bank import DemonstrationBank
from aim_sdk.contexts import Contexts, Demonstrations
from aim_sdk.encoder import Encoder
from aim_sdk.errors import InputError
from aim_sdk.interfaces import Backend, Projector
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.registry import get_backend
from aim_sdk.selection import Selector, get_selector
from aim_sdk.types import Context, Demonstration, FusedTokens, Generation, ImageInput, Mode, Query

if TYPE_CHECKING:
    from aim_sdk.config import PromptFormat

Normalization = Literal["none", "tokens", "characters"]


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
        selector: chooses each query's demonstrations from the bank: a name (see `aim_sdk.selection`) or an object.
        prefix_bytes: memory for computed prefixes (`aim_sdk.prefixes`), where the backend shares them between
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
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """Load a backend by name and compose it with a projector.

        Args:
            backend: a registered name; ``aim-icl backends list`` shows them.
            model: a hub id or a local folder; None takes the backend's default.
            projector: a folder or hub id, a projector, or the kind of an untrained one
                ([`KINDS`][aim_sdk.projectors.KINDS]); None takes the backend's default.
            prompt_format, bank, keep_readings, keep_images, selector, prefix_bytes: see the class.
            device, dtype: where and in what precision the backbone runs; None lets the backend choose.
            trust_remote_code: run the Python code that the checkpoint brings, of its configuration, processor,
                tokenizer and model. Without it none is run, and a checkpoint that cannot do without is refused.
            **options: passed to the backend (transformers: ``revision``, ``device_map``, ``quantization_config``, ...).

        Raises:
            BackendError: see [`aim_sdk.errors`][aim_sdk.errors] for its members.
            ArtifactError: the projector or the bank cannot be loaded or belongs to another backbone.
        """
        if trust_remote_code is not False:  # backends without code of others have no such option
            options["trust_remote_code"] = trust_remote_code
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
        """Answer one query; see [`generate`][aim_sdk.pipeline.AIMPipeline.generate]."""
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
            InputError: and its members `ImageError`, `ShotsError`, `ContextLengthError`; its
                ``query`` is the place of the query that cannot be answered, where it is one query's.
        """
        _check_positive(max_new_tokens=max_new_tokens, batch_size=batch_size)
        contexts = self._contexts(queries, shots, demonstrations, mode, selector)
        order = sorted(range(len(queries)), key=lambda i: _order(contexts[i]))
        answers: dict[int, Generation] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            try:
                generated = self.backend.injector.generate(
                    [queries[i] for i in batch],
                    [contexts[i] for i in batch],
                    prompt_format=self.prompt_format,
                    max_new_tokens=max_new_tokens,
                    **generation,
                )
            except InputError as error:
                if error.query is not None:  # its place in the batch
                    error.query = batch[error.query]
                raise
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
        """Yield an answer piece by piece; joined, the pieces equal `__call__`'s answer."""
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
        chosen = self.selector if selector is None else get_selector(selector)
        return Contexts(self.encoder, self.bank).contexts(queries, shots, demonstrations, mode, chosen)


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


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}; expected a whole number of at least 1.")
