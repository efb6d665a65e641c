"""A backbone that answers queries after demonstrations: every way to ask it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from aim_sdk.backend.capabilities import WritesBoxes
from aim_sdk.backend.plain_boxes import boxes_of
from aim_sdk.bank import DemonstrationBank
from aim_sdk.injection.choices import Normalization, check_normalize, checked_choices, choices_of, normalized
from aim_sdk.injection.classification import Classification, Classifier, Images, OnError, classify, images_of
from aim_sdk.injection.constrained import Schema, injector_of
from aim_sdk.injection.contexts import Contexts
from aim_sdk.injection.given import Demonstrations, Queries, candidates_of, queries_of, query_of
from aim_sdk.injection.prompting import check_names, fitting, generated
from aim_sdk.injection.shots import Count, How, same_for_all, shots_value
from aim_sdk.injection.voting import shares_of
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.selection.nearest import TEMPERATURE, log_shares
from aim_sdk.support.numbers import whole_number
from aim_sdk.support.progress import advancing
from aim_sdk.types import ChoiceScores, Context, Demonstration, Generation, ImageInput, Query


class FewShotModel:
    """A frozen backbone with a projector, a prompt format and a bank, that answers queries.

    Every method takes a query as a `Query` or as an image and its text. What is shown before it is one value:

    * ``shots``: how many demonstrations; without a number up to 8 of the bank's, as many as exist and fit the context.
      Or a [`Shots`][aim_sdk.injection.shots.Shots], which holds all that follows and can be used again. Or ``"auto"``:
      what the bank's verdict says (`AIMPipeline.assess`), also how and with which selector; nothing else is given then.
    * ``mode``: ``"aim"``, or a baseline on the same demonstrations: ``"text-only"`` (their texts, no images),
      ``"interleaved"`` (all with images in one prompt), ``"zero-shot"`` (none), ``"no-image"`` (the control: the same
      projector, demonstrations read without their images), ``"nearest"`` (the demonstrations most like the query vote
      for their answers; no LM call: see `nearest`).
    * ``selector``: one other than the pipeline's; not with ``demonstrations``, of which none is chosen.
    * ``demonstrations``: these instead of the bank's; for a list of queries, one list for all or one per query.

    What is given may be one or several, in a list or any other iterable; an iterator that gives nothing is refused. A
    mode that shows demonstrations refuses a bank that has none, unless ``shots=0`` asks for none.

    Args:
        encoder: the backbone, the projector and the prompt format.
        bank: keeps demonstrations.
        selector: chooses each query's demonstrations from the bank, if a call names no other one.
    """

    def __init__(self, encoder: Encoder, bank: DemonstrationBank, selector: Selector) -> None:
        self.encoder, self.bank, self.selector = encoder, bank, selector
        self.backend, self.projector, self.prompt_format = encoder.backend, encoder.projector, encoder.prompt_format

    @property
    def boxes(self) -> WritesBoxes:
        """Writes boxes into answers and reads them out: as the backbone's family does, or plainly if it has no way.

        ``pipe.boxes.write_boxes([Box(...)], image)`` is the answer of a demonstration, and
        ``pipe.boxes.read_boxes(answer, image)`` gives the boxes of an answer, none if there are none.
        """
        return boxes_of(self.backend)

    def __call__(
        self,
        query: Query | ImageInput | tuple[ImageInput, str],
        text: str = "",
        *,
        shots: Count = None,
        demonstrations: Demonstrations | None = None,
        mode: How = None,
        selector: str | Selector | None = None,
        choices: Iterable[str] | None = None,
        schema: Schema | None = None,
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> str:
        """Answer one query; see [`generate`][aim_sdk.injection.few_shot.FewShotModel.generate]."""
        answers = self.generate(
            [query_of(query, text)],
            shots=shots_value(self.bank, shots, mode, selector, demonstrations),
            choices=choices,
            schema=schema,
            max_new_tokens=max_new_tokens,
            **generation,
        )
        return answers[0].text

    def generate(
        self,
        queries: Queries,
        *,
        shots: Count = None,
        demonstrations: Demonstrations | None = None,
        mode: How = None,
        selector: str | Selector | None = None,
        choices: Iterable[str] | None = None,
        schema: Schema | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: bool = False,
        **generation: Any,
    ) -> list[Generation]:
        """Answer queries in batches of similar length; the answers come in the queries' order.

        Args:
            queries: images with their texts.
            shots, demonstrations, mode, selector: see the class.
            choices: each answer is one of these, exactly: the model writes it, and only tokens that lead to a choice
                are admitted. (`classify` compares whole choices instead, and says how likely each is.)
            schema: each answer is JSON of this JSON schema, or of this pydantic model's.
            max_new_tokens: the longest answer, in tokens; it does not cut choices.
            batch_size: prompts per forward.
            progress: show on stderr how many are answered.
            **generation: passed to the backend (transformers: any argument of ``generate``); greedy by default.

        Raises:
            InputError: and its members `ImageError`, `ShotsError`, `ContextLengthError`, `CutAnswerError` (JSON is
                never cut); its ``query`` is the index of the query that cannot be answered, if it is about one query.
            CapabilityError: the backend cannot constrain its answers to choices or a schema.
            MissingDependencyError: constraints need the extra ``constrained``.
        """
        max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
        batch_size = whole_number("batch_size", batch_size, 1)
        check_names(generation)
        queries, shown = queries_of(queries), shots_value(self.bank, shots, mode, selector, demonstrations)
        injector = injector_of(self.backend, choices, schema, shown.mode)
        if shown.mode == "nearest":
            return [Generation(next(iter(shares)), (), 0) for shares in self.nearest(queries, shots=shown)]
        contexts = self._contexts.of(queries, shown)
        with advancing("answering", len(queries), shown=progress) as advance:
            return generated(
                injector,
                queries,
                contexts,
                shown,
                prompt_format=self.prompt_format,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                generation=generation,
                advance=advance,
            )

    def stream(
        self,
        query: Query | ImageInput | tuple[ImageInput, str],
        text: str = "",
        *,
        shots: Count = None,
        demonstrations: Demonstrations | None = None,
        mode: How = None,
        selector: str | Selector | None = None,
        choices: Iterable[str] | None = None,
        schema: Schema | None = None,
        max_new_tokens: int = 32,
        **generation: Any,
    ) -> Iterator[str]:
        """Yield an answer piece by piece (of `choices`, one piece); joined, the pieces equal `__call__`'s answer."""
        max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
        check_names(generation)
        asked, shown = query_of(query, text), shots_value(self.bank, shots, mode, selector, demonstrations)
        injector = injector_of(self.backend, choices, schema, shown.mode)
        if shown.mode == "nearest":
            (shares,) = self.nearest([asked], shots=shown)
            return iter([next(iter(shares))])
        contexts = self._contexts.of([asked], shown)

        def first_piece(prompts: list[Context]) -> tuple[list[str], Iterator[str]]:
            pieces = injector.stream(
                asked, prompts[0], prompt_format=self.prompt_format, max_new_tokens=max_new_tokens, **generation
            )
            return list(islice(pieces, 1)), pieces  # a prompt that is too long is refused here

        def pieces() -> Iterator[str]:
            (first, rest), _ = fitting(contexts, shown, first_piece)
            yield from first
            yield from rest

        return pieces()

    def score(
        self,
        query: Query | ImageInput | tuple[ImageInput, str],
        choices: Iterable[str],
        *,
        normalize: Normalization = "none",
        shots: Count = None,
        demonstrations: Demonstrations | None = None,
        mode: How = None,
        selector: str | Selector | None = None,
    ) -> list[float]:
        """Return the log-probability (natural log) of each choice as the answer; the prompt is computed once.

        Args:
            query: an image with its text, as a `Query` or a pair.
            choices: candidate answers, none blank.
            normalize: ``"none"`` sums over a choice's tokens, ``"tokens"`` and ``"characters"`` divide the sum by
                their number.
            shots, demonstrations, mode, selector: see the class. In mode ``"nearest"`` a choice's probability is its
                share of the votes, whatever ``normalize`` says (`aim_sdk.selection.nearest.log_shares`).
        """
        check_normalize(normalize)
        choices, shown = candidates_of(choices), shots_value(self.bank, shots, mode, selector, demonstrations)
        if shown.mode == "nearest":
            (shares,) = self.nearest([query_of(query)], shots=shown)
            return log_shares(shares, choices)
        log_probs = self.token_log_probs(query, choices, shots=shown)
        return normalized(ChoiceScores(tuple(map(tuple, log_probs))), choices, normalize)

    def token_log_probs(
        self,
        query: Query | ImageInput | tuple[ImageInput, str],
        choices: Iterable[str],
        *,
        shots: Count = None,
    ) -> list[list[float]]:
        """Return the log-probability (natural log) of each token of each choice, as `score` sums them."""
        asked, shown, choices = query_of(query), shots_value(self.bank, shots), candidates_of(choices)

        def scored(prompts: list[Context]) -> list[list[float]]:
            return self.backend.injector.score(asked, prompts[0], choices, prompt_format=self.prompt_format)

        return fitting(self._contexts.of([asked], shown), shown, scored)[0]

    def contexts(self, queries: Queries, *, shots: Count = None) -> list[Context]:
        """Return the context that each query would have: what the backend's injector is given."""
        return [context for context, _ in self._contexts.of(queries_of(queries), shots_value(self.bank, shots))]

    def nearest(
        self,
        queries: Queries,
        *,
        shots: Count = None,
        demonstrations: Demonstrations | None = None,
        selector: str | Selector | None = None,
        temperature: float = TEMPERATURE,
    ) -> list[dict[str, float]]:
        """Let the demonstrations that are nearest to each query vote: what mode `"nearest"` answers by.

        No prompt is made and the LM answers nothing: each query is read once, as a demonstration is.

        Args:
            queries: see `generate`.
            shots: how many vote, 8 by default; of ``demonstrations``, all.
            demonstrations: see the class; the nearest of them vote.
            selector: its `where` and `balance` hold; nearness is always decided by the readings.
            temperature: see [`vote`][aim_sdk.selection.nearest.vote].

        Returns:
            For each query, the shares of the answers, highest first; they sum to 1.

        Raises:
            ShotsError: there are fewer demonstrations, or none. A query's own never vote.
        """
        asked, shown = queries_of(queries), shots_value(self.bank, shots, None, selector, demonstrations)
        return shares_of(self.encoder, self.bank, self.selector, asked, shown, temperature)

    def classify(
        self,
        images: Images,
        choices: Iterable[str] | None = None,
        *,
        text: str | None = None,
        shots: Count = None,
        demonstrations: Iterable[Demonstration] | None = None,
        mode: How = None,
        selector: str | Selector | None = None,
        normalize: Normalization = "tokens",
        batch_size: int = 8,
        progress: bool = False,
        on_error: OnError | None = None,
    ) -> list[Classification]:
        """Label images with one of a few choices each; the labels come in the images' order.

        The probabilities are the softmax over the choices' log-probabilities (`score`), by default per token, because
        otherwise a longer choice would be less likely just for its length. In `mode="nearest"` they are the choices'
        shares of the votes (`nearest`), and no LLM is asked.

        Args:
            images: one image, a list, a column of a frame, a generator, or a folder (all images below it). A `Query`
                or a pair brings its own text.
            choices: at least two; None takes the distinct answers of the demonstrations (at most 64).
            text: what is asked of each image; None takes the demonstrations' own, if all have the same one.
            shots, mode, selector: see the class.
            demonstrations: show these to every image, instead of the bank's.
            normalize: as in `score`.
            batch_size: images per forward, if the backend can.
            progress: show on stderr how many are labelled.
            on_error: called with the index of each image that cannot be labelled, and the error; its label is then
                None. Without it, the first such image ends the call.

        Raises:
            InputError: and its members; its `query` is the index of the image that cannot be labelled, if it is about
                one image.
        """
        check_normalize(normalize)
        batch_size = whole_number("batch_size", batch_size, 1)
        shown = shots_value(self.bank, shots, mode, selector, demonstrations)
        held: Sequence[Demonstration] = same_for_all(shown) or []
        if shown.demonstrations is None and (choices is None or text is None):
            held = [entry.demonstration for entry in self.bank.values()]
        named = choices_of(held) if choices is None else checked_choices(choices)
        contexts = Contexts(self.encoder, self.bank, self.selector, labels=True)
        classifier = Classifier(contexts, named, shown, normalize)
        asked, total = images_of(images)
        with advancing("labelling", total, shown=progress) as advance:
            return classify(classifier, asked, text, held=held, batch_size=batch_size, done=advance, on_error=on_error)

    @property
    def _contexts(self) -> Contexts:
        return Contexts(self.encoder, self.bank, self.selector)
