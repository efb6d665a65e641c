"""AIMPipeline: reads demonstrations into the bank, and answers queries after them. Holds no model-specific code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch

from aim_sdk.backend.choosing import choose
from aim_sdk.backend.interfaces import Backend
from aim_sdk.bank import BankEntry, DemonstrationBank
from aim_sdk.errors import InputError
from aim_sdk.injection.choices import Normalization, check_normalize, checked_choices, choices_of, normalized
from aim_sdk.injection.classification import Classification, Classifier, Images, OnError, classify, images_of, shown_in
from aim_sdk.injection.contexts import Contexts, nothing_to_show
from aim_sdk.injection.given import (
    Demonstrations,
    Queries,
    candidates_of,
    demonstrations_of,
    format_of,
    queries_of,
    shots_of,
)
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.projectors.base import Projector
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.selection.nearest import TEMPERATURE, log_shares, votes, votes_among
from aim_sdk.selection.registry import get_selector
from aim_sdk.support.numbers import whole_number
from aim_sdk.support.progress import advancing
from aim_sdk.types import ChoiceScores, Context, Demonstration, FusedTokens, Generation, ImageInput, Mode, Query

if TYPE_CHECKING:
    from aim_sdk.config import PromptFormat


class AIMPipeline:
    """A frozen backbone that learns from demonstrations.

    Args:
        backend: a loaded backend.
        projector: a projector of that backbone; None takes the backend's default. It is attached to it in place
            ([`attach`][aim_sdk.projectors.base.Projector.attach]), and must not change while the pipeline uses it: the
            bank keeps what it made.
        prompt_format: how demonstrations and queries are written: a format, a plain template as a string, or
            ``"chat"``; None takes the backend's default.
        bank: a folder that keeps the bank, made with a warning where there is none; None keeps it in memory.
        keep_readings: keep the readings in a new bank, too: another projector then needs nothing read again.
        keep_images: keep the image files in a new bank, too: it can then be read again anywhere.
        images: a folder that the bank's image files were moved to.
        selector: chooses each query's demonstrations from the bank: a name (see `aim_sdk.selection`) or an object.
        prefix_bytes: memory for computed prefixes (`aim_sdk.backend.prefixes`), where the backend shares them between
            prompts; None takes the backend's default (1 GiB), 0 computes every prompt whole.

    Every answering method takes the same arguments. ``shots``: how many demonstrations to use (None: all).
    ``demonstrations``: use these instead of the bank's; for a list of queries, one list for all or one per query.
    ``mode``: ``"aim"``, or a baseline on the same demonstrations: ``"text-only"`` (their texts, no images),
    ``"interleaved"`` (all with images in one prompt), ``"zero-shot"`` (none), ``"no-image"`` (the control: the same
    projector, demonstrations read without their images), ``"nearest"`` (the demonstrations most like the query vote for
    their answers; no LM call: see `nearest`). ``selector``: another one for this call. What is given may be one or
    several, in a list or any other iterable; an iterator that gives nothing is refused. A mode that shows
    demonstrations refuses a bank that has none, unless ``shots=0`` asks for none.
    """

    def __init__(
        self,
        backend: Backend,
        projector: Projector | None = None,
        *,
        prompt_format: PromptFormat | str | None = None,
        bank: str | Path | None = None,
        keep_readings: bool = False,
        keep_images: bool = False,
        images: str | Path | None = None,
        selector: str | Selector = "first",
        prefix_bytes: int | None = None,
    ) -> None:
        self.backend = backend
        self.prompt_format = format_of(prompt_format) or backend.default_format
        self.projector = (projector or backend.default_projector()).attach(backend.vocabulary)
        self.selector = get_selector(selector)
        self.encoder = Encoder(backend, self.projector, self.prompt_format)
        if prefix_bytes is not None and backend.injector.prefixes is not None:
            backend.injector.prefixes.resize(prefix_bytes)
        if bank is None:
            self.bank = DemonstrationBank.in_memory(self.encoder)
        else:
            self.bank = DemonstrationBank.open(
                bank, encoder=self.encoder, keep_readings=keep_readings, keep_images=keep_images, images=images
            )

    def __repr__(self) -> str:
        made = self.backend.fingerprint
        return (
            f"AIMPipeline(backend={made.backend!r}, model={made.model!r}, projector={self.projector.kind!r}, "
            f"prompt_format={self.prompt_format.template or self.prompt_format.kind!r}, bank={self.bank!r})"
        )

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InputError(
            "a pipeline cannot be copied or pickled: it holds a loaded model and an open bank.\n"
            "Next: share it between threads, or load one in each process with `AIMPipeline.from_pretrained`."
        )

    @classmethod
    def from_pretrained(
        cls,
        backend: str | Path | type[Backend] | Backend | Projector,
        *,
        model: str | Path | None = None,
        projector: Projector | str | Path | None = None,
        prompt_format: PromptFormat | str | None = None,
        bank: str | Path | None = None,
        keep_readings: bool = False,
        keep_images: bool = False,
        images: str | Path | None = None,
        selector: str | Selector = "first",
        prefix_bytes: int | None = None,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """Load a backend and compose it with a projector.

        Args:
            backend: a registered name (``aim-icl backends list`` shows them), a backend's class, or a loaded backend; a
                model's hub id or folder (then its family's backend is taken); or a projector, its hub id or folder
                (then the backbone that it was made with).
            model: a hub id or a local folder; None takes what ``backend`` leads to, or its default.
            projector: a folder or hub id, a projector, or the kind of an untrained one
                ([`KINDS`][aim_sdk.projectors.KINDS]); None takes the backend's default.
            prompt_format, bank, keep_readings, keep_images, images, selector, prefix_bytes: see the class.
            device, dtype: where and in what precision the backbone runs; None lets the backend choose.
            trust_remote_code: run the Python code that the checkpoint brings, of its configuration, processor,
                tokenizer and model. Without it none is run, and a checkpoint that cannot do without is refused.
            **options: passed to the backend (transformers: ``revision``, ``device_map``, ``quantization_config``, ...).

        Raises:
            BackendError: see [`aim_sdk.errors`][aim_sdk.errors] for its members.
            ArtifactError: the projector or the bank cannot be loaded or belongs to another backbone.
        """
        chosen = choose(backend, model)
        if projector is not None and chosen.projector is not None:
            raise InputError("two projectors are given: the first argument, and projector=...; leave one of them out.")
        if trust_remote_code is not False:  # backends without code of others have no such option
            options["trust_remote_code"] = trust_remote_code
        options |= {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
        if not isinstance(chosen.backend, Backend):
            loaded = chosen.backend.from_pretrained(chosen.model, **options)
        elif options:
            raise InputError(f"the backend {chosen.backend.name!r} is loaded already; leave out {', '.join(options)}.")
        else:
            loaded = chosen.backend
        projector = chosen.projector if projector is None else projector
        if isinstance(projector, str | Path):
            projector = (
                untrained(str(projector), loaded.vocabulary)
                if projector in KINDS
                else Projector.from_pretrained(projector)
            )
        return cls(
            loaded,
            projector,
            prompt_format=prompt_format,
            bank=bank,
            keep_readings=keep_readings,
            keep_images=keep_images,
            images=images,
            selector=selector,
            prefix_bytes=prefix_bytes,
        )

    def __call__(
        self,
        image: ImageInput,
        text: str = "",
        *,
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
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
        queries: Queries,
        *,
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        """Answer queries in batches of similar length; the answers come in the queries' order.

        Args:
            queries: images with their texts.
            shots, demonstrations, mode, selector: see the class.
            max_new_tokens: the longest answer, in tokens.
            batch_size: prompts a forward.
            progress: show on stderr how many are answered.
            **generation: passed to the backend (transformers: any argument of ``generate``); greedy by default.

        Raises:
            InputError: and its members `ImageError`, `ShotsError`, `ContextLengthError`; its
                ``query`` is the place of the query that cannot be answered, where it is one query's.
        """
        max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
        batch_size = whole_number("batch_size", batch_size, 1)
        queries = queries_of(queries)
        if mode == "nearest":
            voted = self.nearest(queries, shots=shots, demonstrations=demonstrations, selector=selector)
            return [Generation(next(iter(shares)), (), 0) for shares in voted]
        named = self._contexts(queries, shots, demonstrations, mode, selector)
        order = sorted(range(len(queries)), key=lambda i: _order(named[i][0]))
        answers: dict[int, Generation] = {}
        with advancing("answering", len(order), shown=progress) as advance:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                try:
                    generated = self.backend.injector.generate(
                        [queries[i] for i in batch],
                        [named[i][0] for i in batch],
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
                answers |= {
                    i: replace(answer, demonstrations=named[i][1]) for i, answer in zip(batch, generated, strict=True)
                }
                advance(len(batch))
        return [answers[i] for i in range(len(queries))]

    def stream(
        self,
        image: ImageInput,
        text: str = "",
        *,
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> Iterator[str]:
        """Yield an answer piece by piece; joined, the pieces equal `__call__`'s answer."""
        max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
        query = Query(image, text)
        if mode == "nearest":
            (shares,) = self.nearest([query], shots=shots, demonstrations=demonstrations, selector=selector)
            return iter([next(iter(shares))])
        ((context, _),) = self._contexts([query], shots, demonstrations, mode, selector)
        return self.backend.injector.stream(
            query, context, prompt_format=self.prompt_format, max_new_tokens=max_new_tokens, **generation
        )

    def score(
        self,
        query: Query,
        choices: Iterable[str],
        *,
        normalize: Normalization = "none",
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
    ) -> list[float]:
        """Return the log-probability (natural log) of each choice as the answer; the prompt is computed once.

        Args:
            query: an image with its text.
            choices: candidate answers, none blank.
            normalize: ``"none"`` sums over a choice's tokens, ``"tokens"`` and ``"characters"`` divide the sum by
                their number.
            shots, demonstrations, mode, selector: see the class. In mode ``"nearest"`` a choice's probability is its
                share of the votes, whatever ``normalize`` says (`aim_sdk.selection.nearest.log_shares`).
        """
        check_normalize(normalize)
        (query,) = queries_of(query)
        choices = candidates_of(choices)
        if mode == "nearest":
            (shares,) = self.nearest([query], shots=shots, demonstrations=demonstrations, selector=selector)
            return log_shares(shares, choices)
        ((context, _),) = self._contexts([query], shots, demonstrations, mode, selector)
        scores = self.backend.injector.score(query, context, choices, prompt_format=self.prompt_format)
        return normalized(ChoiceScores(tuple(map(tuple, scores))), choices, normalize)

    def nearest(
        self,
        queries: Queries,
        *,
        shots: int | None = None,
        demonstrations: Demonstrations | None = None,
        selector: str | Selector | None = None,
        temperature: float = TEMPERATURE,
    ) -> list[dict[str, float]]:
        """Let the demonstrations that are nearest to each query vote: what mode `"nearest"` answers by.

        No prompt is made and the LM answers nothing: each query is read once, as a demonstration is.

        Args:
            queries: see `generate`.
            shots: how many vote; None: all.
            demonstrations: see the class; the nearest of them vote.
            selector: its `where` and `balance` hold; what is near is always told by the readings.
            temperature: see [`vote`][aim_sdk.selection.nearest.vote].

        Returns:
            Of each query the shares of the answers, which sum to 1, the highest first.

        Raises:
            ShotsError: there are fewer demonstrations, or none. A query's own never vote.
        """
        asked, shots = queries_of(queries), shots_of(shots)
        chosen = self.selector if selector is None else get_selector(selector)
        if demonstrations is None:
            found = votes(self.bank, asked, shots, temperature=temperature, where=chosen.where, balance=chosen.balance)
        else:
            given = [
                [item.checked() if isinstance(item, BankEntry) else item for item in items]
                for items in demonstrations_of(demonstrations, len(asked))
            ]
            found = votes_among(self.encoder, asked, given, shots, temperature=temperature)
        if not all(found):
            raise nothing_to_show(self.bank, "nearest")
        return found

    def classify(
        self,
        images: Images,
        choices: Iterable[str] | None = None,
        *,
        text: str | None = None,
        shots: int | None = None,
        demonstrations: Iterable[Demonstration] | None = None,
        mode: Mode = "aim",
        selector: str | Selector | None = None,
        normalize: Normalization = "tokens",
        batch_size: int = 8,
        progress: bool = False,
        on_error: OnError | None = None,
    ) -> list[Classification]:
        """Label images with one of a few choices each; the labels come in the images' order.

        The probabilities are the softmax over the choices' log-probabilities (`score`), by default per token: else
        a longer choice would be less likely for its length alone. In `mode="nearest"` they are the choices' shares
        of the votes (`nearest`), and no LLM is asked.

        Args:
            images: one image, a list, a column of a frame, a generator, or a folder (all images below it). A `Query`
                brings its own text.
            choices: at least two; None takes the distinct answers of the demonstrations (at most 64).
            text: what is asked of each image; None takes the demonstrations' own, where all have the same.
            shots, mode, selector: see the class.
            demonstrations: show these to every image, in place of the bank's.
            normalize: as in `score`.
            batch_size: images per forward, where the backend can.
            progress: show on stderr how many are labelled.
            on_error: called with the place of each image that cannot be labelled, and the error; its label is then
                None. Without it, the first such image ends the call.

        Raises:
            InputError: and its members; its `query` is the place of the image that cannot be labelled, where it is
                one image's.
        """
        check_normalize(normalize)
        batch_size = whole_number("batch_size", batch_size, 1)
        given = (
            None
            if demonstrations is None
            else [
                item.demonstration if isinstance(item, BankEntry) else item
                for item in demonstrations_of(demonstrations, 1)[0]
            ]
        )
        shown = given if given is not None else list(shown_in(self.bank)) if choices is None or text is None else []
        classifier = Classifier(
            Contexts(self.encoder, self.bank, labels=True),
            choices_of(shown) if choices is None else checked_choices(choices),
            mode,
            shots_of(shots),
            given,
            self.selector if selector is None else get_selector(selector),
            normalize,
        )
        asked, total = images_of(images)
        with advancing("labelling", total, shown=progress) as advance:
            return classify(
                classifier,
                asked,
                text,
                shown=shown,
                batch_size=batch_size,
                done=advance,
                on_error=on_error,
            )

    def _contexts(
        self,
        queries: Sequence[Query],
        shots: int | None,
        demonstrations: Demonstrations | None,
        mode: Mode,
        selector: str | Selector | None,
    ) -> list[tuple[Context, tuple[str, ...]]]:
        chosen = self.selector if selector is None else get_selector(selector)
        return Contexts(self.encoder, self.bank).named(queries, shots, demonstrations, mode, chosen)


def _order(context: Context) -> tuple[int, tuple[str, ...]]:
    """Batches are of similar length, and equal contexts stand beside one another."""
    fused = [item for item in context if isinstance(item, FusedTokens)]
    return sum(map(len, fused)) if fused else len(context), tuple(item.key or "" for item in fused)
