"""What a backend author implements: reader, projector, injector, and the backend that hands them out.

Callers may rely on this:

* a **reading** depends on its demonstration alone, not on what stands beside it in a batch or on padding (up to float
  noise), and covers exactly the text tokens that the demonstration occupies in a text-only few-shot prompt;
* an **injector** puts fused tokens where those text tokens would stand; with the true embeddings of the text it gives
  exactly the plain backbone's logits (the identity test), with no fused tokens it *is* the plain backbone;
* nothing but the **projector** has trainable parameters, and nothing stays injected after a call, also a failed one.

A backend need not be a transformers model: these classes know tensors and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aim_sdk.backend.prefixes import PrefixCache
from aim_sdk.config import Fingerprint, PromptFormat
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.files.images import load_image
from aim_sdk.layers import LAST, check_layers, check_there, layer_options
from aim_sdk.projectors.saved import SavedProjector, check_options, kept_options
from aim_sdk.types import AttentionMap, ChoiceScores, Context, Demonstration, FusedTokens, Generation, Query, Reading

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class ReadingBatch:
    """Readings padded on the right to one length."""

    hidden: Float[Tensor, "batch tokens hidden"]
    """The chosen layers side by side."""
    embeddings: Float[Tensor, "batch tokens embed"]
    mask: Bool[Tensor, "batch tokens"]
    """True on real tokens."""
    image_position: Int[Tensor, " batch"]
    answer_start: Int[Tensor, " batch"]

    @classmethod
    def collate(cls, readings: Sequence[Reading]) -> Self:
        """Pad at least one reading with zeros."""
        hidden = pad_sequence([reading.hidden for reading in readings], batch_first=True)
        lengths = torch.tensor([len(reading) for reading in readings])
        return cls(
            hidden=hidden,
            embeddings=pad_sequence([reading.embeddings for reading in readings], batch_first=True),
            mask=(torch.arange(hidden.shape[1]) < lengths[:, None]).to(hidden.device),
            image_position=torch.tensor([reading.image_position for reading in readings]).to(hidden.device),
            answer_start=torch.tensor([reading.answer_start for reading in readings]).to(hidden.device),
        )


class DemoReader(ABC):
    """Reads demonstrations with the frozen backbone, each on its own."""

    @abstractmethod
    def read(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> list[Reading]:
        """Read one batch of demonstrations; ``with_images=False`` reads their text alone (the no-image control).

        ``layers`` says what `Reading.hidden` holds, counted as in `aim_sdk.layers`. A reader that gives the
        last hidden states alone may leave the keyword out: it is passed only where other layers are asked for.

        Raises:
            CapabilityError: this reader cannot give these layers.
            InputError: there is no such layer.
        """

    def prepare(
        self,
        demonstrations: Sequence[Demonstration],
        *,
        prompt_format: PromptFormat,
        with_images: bool = True,
        layers: Sequence[int] = LAST,
    ) -> Callable[[], list[Reading]]:
        """Do what needs no backbone (decode, tokenise) and return the forward: calling it is `read`'s result.

        May run in another thread while the backbone computes.
        """
        options = layer_options(self.read, layers)
        decoded = [replace(item, image=load_image(item.image)) for item in demonstrations]
        return partial(self.read, decoded, prompt_format=prompt_format, with_images=with_images, **options)

    def lengths(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[int]:
        """Estimate how many positions each demonstration takes in a forward, visual tokens included.

        What batches are made by; an estimate in any unit sorts, one in tokens also keeps a budget.
        """
        return [len(item.text) + len(item.answer) for item in demonstrations]

    @abstractmethod
    def text_only(self, demonstrations: Sequence[Demonstration], *, prompt_format: PromptFormat) -> list[FusedTokens]:
        """Return the true input embeddings of each demonstration's text tokens: injected, they are its text."""


class Projector(nn.Module, SavedProjector, ABC):
    """Turns readings into fused tokens of the same number; the only trainable part.

    A subclass names its ``kind`` (unique; saved artifacts are loaded by it) and implements `forward`. It may move
    information between the tokens of one demonstration, never between demonstrations.

    Args:
        hidden_size, embedding_size: the backbone's; `width` is that of a reading of all ``layers``.
        layers: what it reads, counted as in [`aim_sdk.layers`][aim_sdk.layers].
        **options: what else a kind's constructor takes (sizes of its own, say): saved with it and given back to it.
    """

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, **options: Any) -> None:
        super().__init__()
        self.hidden_size, self.embedding_size = hidden_size, embedding_size
        self.layers, self.options = check_layers(layers), options
        self.width = hidden_size * len(self.layers)
        self.fingerprint = None
        self.summary = {}
        self._hub_mixin_config = None  # projector_config.json is the only config

    @abstractmethod
    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        """Project padded readings; what stands at padding must not change the rest, and is cut off."""

    @classmethod
    def untrained(cls, backend: Backend, *, layers: Sequence[int] = LAST, **options: Any) -> Self:
        """Build one that fits a backbone, with the weights that training begins from.

        Raises:
            InputError: the kind has no such option, or the backbone no such layer.
        """
        check_options(cls, options)
        check_there(layers, backend.decoder_layers)
        inputs, outputs = backend.input_embeddings, backend.output_embeddings
        made = cls(outputs.shape[1], inputs.shape[1], **kept_options(layers, options)).to(inputs.device)
        with torch.no_grad():
            made.start(backend)
        made.bind(backend)
        made.fingerprint = backend.fingerprint
        return made

    def start(self, backend: Backend) -> None:
        """Set the weights to where training begins on this backbone; the constructor's are right for many kinds."""

    def bind(self, backend: Backend) -> None:
        """Take what the projector needs of its backbone beside the readings; called before the first projection."""

    def calibrate(self, readings: Sequence[Reading]) -> None:
        """Take what the projector needs of typical readings (a mean, say); called before training, if at all."""

    def rate(self, name: str) -> float:
        """The factor of the learning rate for the parameter of that name."""
        return 1.0

    def project(self, readings: Sequence[Reading]) -> list[FusedTokens]:
        """Project readings of any lengths; dtype and device are the embeddings'."""
        if not readings:
            return []
        fused = self(ReadingBatch.collate(readings))
        return [FusedTokens(row[: len(reading)]) for row, reading in zip(fused, readings, strict=True)]


class Injector(ABC):
    """Answers queries with fused tokens in the frozen backbone's prompt."""

    prefixes: PrefixCache[Any] | None = None
    """What it has computed of contexts that come again; None where it computes every prompt whole."""

    @abstractmethod
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
        """Answer one batch of queries, each behind its own context; greedy unless ``generation`` says otherwise.

        ``log_probs=True`` fills `Generation.log_probs` with the backbone's own (before any sampling option).
        """

    @abstractmethod
    def stream(
        self, query: Query, context: Context, *, prompt_format: PromptFormat, max_new_tokens: int, **generation: Any
    ) -> Iterator[str]:
        """Yield the text of [`generate`][aim_sdk.backend.interfaces.Injector.generate] piece by piece."""

    @abstractmethod
    def score(
        self, query: Query, context: Context, choices: Sequence[str], *, prompt_format: PromptFormat
    ) -> list[list[float]]:
        """Return each choice's token log-probabilities (natural log) as the answer; the prompt is computed once."""

    def score_batch(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        choices: Sequence[str],
        *,
        prompt_format: PromptFormat,
    ) -> list[ChoiceScores]:
        """Return `score` of the same choices for each query of a batch; this one asks for one after the other.

        A backend may run several prompts in one forward; the numbers stay those of `score`, up to float noise.
        """
        made = []
        for place, (query, context) in enumerate(zip(queries, contexts, strict=True)):
            try:
                scores = self.score(query, context, choices, prompt_format=prompt_format)
            except InputError as error:
                error.query = place
                raise
            made.append(ChoiceScores(tuple(map(tuple, scores))))
        return made

    def log_probs(
        self,
        queries: Sequence[Query],
        contexts: Sequence[Context],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
    ) -> list[Float[Tensor, " tokens"]]:
        """Return the token log-probabilities of one answer a query, from one whole forward of the batch.

        The same numbers as `score`, but nothing is cached and gradients flow to the fused tokens: what a
        projector is trained on. ``ended`` adds the first token that the format writes behind an answer, so that a
        trained projector keeps answers ending. A backend that only answers need not implement it.

        Raises:
            CapabilityError: the backend cannot.
        """
        raise CapabilityError(f"{type(self).__name__} gives no gradients: it has no `log_probs`.")

    def prepare_log_probs(
        self, queries: Sequence[Query], answers: Sequence[str], *, prompt_format: PromptFormat, ended: bool = False
    ) -> Callable[[Sequence[Sequence[FusedTokens]]], list[Float[Tensor, " tokens"]]]:
        """Do what needs no backbone (decode, tokenise) and return the forward of `log_probs`.

        It takes the contexts, which may only then be known. May run in another thread while the backbone computes.
        """

        def forward(contexts: Sequence[Sequence[FusedTokens]]) -> list[Float[Tensor, " tokens"]]:
            return self.log_probs(queries, contexts, answers, prompt_format=prompt_format, ended=ended)

        return forward


class Backend(ABC):
    """One model family: loads a frozen backbone and hands out its reader and its injector."""

    name: ClassVar[str]
    default_model: ClassVar[str | None] = None
    """The hub id that ``from_pretrained()`` loads when no model is named."""
    slot: int | None = None
    """The token id that marks the places of fused tokens, where the injector uses one; it is never generated."""

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> Self:
        """Load a frozen backbone from a hub id or a local folder.

        Raises:
            ModelNotFoundError: no such folder, or the hub cannot be reached.
            UnsupportedModelError: the checkpoint is of another family.
            DeviceError: a device or dtype that does not exist here.
        """

    @property
    @abstractmethod
    def reader(self) -> DemoReader:
        """Reads demonstrations."""

    @property
    @abstractmethod
    def injector(self) -> Injector:
        """Answers queries."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Identifies the backbone; computed once."""

    @property
    @abstractmethod
    def default_format(self) -> PromptFormat:
        """The family's own chat template where it has one."""

    @property
    def decoder_layers(self) -> int | None:
        """How many decoder layers the inner LLM has; None where it is not known before they are read."""
        return None

    @property
    def supports_interleaved(self) -> bool:
        """Whether one prompt may hold several images."""
        return True

    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """Return the backbone's own greedy answer as token ids, past reader and injector.

        What the family's documentation would have you write; the conformance kit compares with it. ``demonstrations``
        stand before the query as turns of the same format: with their images (interleaved), or as text alone.

        Raises:
            CapabilityError: there is no such way past the injector.
        """
        raise CapabilityError(f"backend {self.name!r} has no `plain_answer` to compare with.")

    def show_prompt(self, query: Query, context: Context, *, prompt_format: PromptFormat) -> str:
        """Return a prompt as its tokens say it, special tokens too, for messages; optional.

        Raises:
            CapabilityError: it cannot be shown.
        """
        raise CapabilityError(f"backend {self.name!r} does not show its prompts: it has no `show_prompt`.")

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The frozen torch modules that the backbone consists of: training proves that it leaves them as they are.

        None, where the backbone is no torch model.
        """
        return ()

    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the backbone's layers over the processes of a mesh (FSDP2); its results stay the same.

        The embeddings and the LM head stay whole on every process.

        Raises:
            CapabilityError: this backend, or this model, cannot.
        """
        raise CapabilityError(f"backend {self.name!r} stays whole on every process: it has no `shard`.")

    def recompute_activations(self, on: bool = True) -> None:
        """Compute activations again in the backward in place of keeping them: less memory, about a third more time.

        Raises:
            CapabilityError: this backend, or this model, cannot.
        """
        raise CapabilityError(f"backend {self.name!r} keeps all activations: it has no `recompute_activations`.")

    @property
    def prefix_reuse(self) -> bool:
        """Whether fused tokens may be computed once and shared by later prompts."""
        return False

    @abstractmethod
    def default_projector(self) -> Projector:
        """The projector that is used when none is named; trained where the backend ships one."""

    @property
    @abstractmethod
    def input_embeddings(self) -> Float[Tensor, "vocabulary embed"]:
        """The inner LLM's input embedding matrix."""

    @property
    @abstractmethod
    def output_embeddings(self) -> Float[Tensor, "vocabulary hidden"]:
        """The LM head's matrix (the same tensor where it is tied)."""

    def attention(
        self, query: Query, demonstrations: Sequence[Demonstration], answer: str, *, prompt_format: PromptFormat
    ) -> AttentionMap:
        """Read how ``answer`` attends to the interleaved prompt before it; optional, for analysis alone.

        Raises:
            CapabilityError: this backend, or this model, does not show its attention.
        """
        raise CapabilityError(f"backend {self.name!r} does not show its attention: it has no `attention` of its own.")
