"""The optional abilities of a backend: each is one Protocol, and all of them follow one rule.

1. A backend's class **has** a capability if it has the members of the Protocol. Writing them is enough; nothing else
   has to be declared; `class Mine(Backend, Trainable)` is not needed, but lets a type checker compare the signatures.
2. A loaded model may **lack** what its class has: `Backend.lacks` names the capability and the reason, as for a family
   whose prompts hold one image.
3. Callers ask through [`capability`][aim_sdk.backend.capabilities.capability], which raises a `CapabilityError` that
   names the backend and what it cannot do, or through [`find`][aim_sdk.backend.capabilities.find], which gives None.

A call may still raise `CapabilityError` where only running the model shows that it cannot.
`CAPABILITIES` is the table of all: `aim-icl backends list --capabilities` and the conformance kit print it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast, runtime_checkable

from aim_sdk.backend.interfaces import Backend
from aim_sdk.errors import CapabilityError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from aim_sdk.backend.box import Box
    from aim_sdk.backend.constraints import Constraint
    from aim_sdk.backend.footprint import Footprint
    from aim_sdk.backend.injector import Injector
    from aim_sdk.backend.prefixes import PrefixCache
    from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers
    from aim_sdk.config import PromptFormat
    from aim_sdk.types import AttentionMap, Context, Demonstration, ImageInput, Query, Vocabulary

Ability = TypeVar("Ability")


@runtime_checkable
class HasVocabulary(Protocol):
    """Shows the inner LLM's embeddings and its LM head."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """What a projector may take of the backbone besides readings."""


@runtime_checkable
class RunsInTorch(Protocol):
    """The backbone is torch modules of this process."""

    @property
    @abstractmethod
    def modules(self) -> Sequence[nn.Module]:
        """All the frozen modules that it consists of: training checks that they stay unchanged."""


@runtime_checkable
class ReadsLayers(Protocol):
    """Its reader gives the hidden states of any decoder layer, not of the last one alone."""

    @property
    @abstractmethod
    def decoder_layers(self) -> int | None:
        """How many decoder layers the inner LLM has; None if it is not known before they are read."""


@runtime_checkable
class Interleaves(Protocol):
    """One prompt may hold several images: its injector takes demonstrations with their images as contexts."""

    @property
    @abstractmethod
    def most_images(self) -> int | None:
        """How many images one prompt may hold, the query's too; None if only the context's length limits them."""


@runtime_checkable
class ReusesPrefixes(Protocol):
    """Repeated demonstrations are not computed again, and the answers stay the same."""

    @property
    @abstractmethod
    def prefixes(self) -> PrefixCache[Any]:
        """What its injector has computed."""


@runtime_checkable
class ConstrainsAnswers(Protocol):
    """Generates nothing but what a constraint admits: one of some choices, or JSON of a schema."""

    @abstractmethod
    def constrained(self, constraint: Constraint) -> Injector:
        """Return an injector whose answers keep to a constraint, in `generate` and in `stream`; the rest is the same.

        `Generation.text` is a choice exactly as it was given, or JSON without blanks around it; ``max_new_tokens`` does
        not cut choices. An answer that is admitted is what the backend would have said without the constraint.
        `aim_sdk.backend.grammar` does most of it for a backend that has the model's logits.

        Raises:
            InputError: the schema is not valid, or asks for what cannot be enforced. In `generate` and `stream`,
                `CutAnswerError`: JSON was cut before it was whole.
            MissingDependencyError: a package that it needs is not installed; the message names the extra.
        """


@runtime_checkable
class WritesBoxes(Protocol):
    """Knows how its family writes boxes in an answer's text.

    Reading gives the boxes that were written, up to the notation's resolution: what was read once is written and read
    again without a change. The text may stand in a demonstration's answer, and `Generation.text` shows it whole.
    `aim_sdk.backend.boxes` has the notations in use as data.
    """

    @abstractmethod
    def write_boxes(self, boxes: Iterable[Box], image: ImageInput) -> str:
        """Write at least one box of an image, in one line. `Notation.write` reads any iterable once, and checks it.

        Raises:
            InputError: there is no box, something is no `Box`, or a label holds a mark of the notation. `ImageError`:
                the image cannot be read (if the notation needs its size).
        """

    @abstractmethod
    def read_boxes(self, text: str, image: ImageInput) -> list[Box]:
        """Find the boxes in an answer about an image; what is not a whole box inside the image is left out.

        Raises:
            InputError: the text is no string. `ImageError`: the image cannot be read (if the notation needs its size).
        """


@runtime_checkable
class Trainable(Protocol):
    """Gradients flow from what it predicts of an answer to the fused tokens before it: a projector can be trained."""

    @abstractmethod
    def prepare_answers(
        self,
        queries: Sequence[Query],
        answers: Sequence[str],
        *,
        prompt_format: PromptFormat,
        ended: bool = False,
        contexts: Sequence[Context] | None = None,
    ) -> PreparedAnswers:
        """Do what needs no backbone: decode, tokenise. May run in another thread while the backbone computes.

        ``ended`` adds the first token that the format writes after an answer, so that answers still end after a
        projector was trained. ``contexts`` are what `answer_logits` will be given, if that is known: a backend may
        decode and tokenise their demonstrations, too.

        Raises:
            InputError: a query, an answer or a context cannot be used.
        """

    @abstractmethod
    def answer_logits(self, prepared: PreparedAnswers, contexts: Sequence[Context]) -> list[AnswerLogits]:
        """Return the logits at each answer's positions after its context and query, one `AnswerLogits` per query.

        One whole forward of the batch: `AnswerLogits.log_probs` are the numbers of `Injector.score`, but nothing is
        cached, and gradients flow to the fused tokens. Contexts are fused tokens, or demonstrations with their images
        if the backend has `Interleaves`. Give views of one tensor (`torch.split`): a copy of a batch's logits is large.

        Raises:
            ContextLengthError: a prompt with its answer is longer than the backbone's context.
        """


@runtime_checkable
class RecomputesActivations(Protocol):
    """Trains in less memory, at the cost of about a third more time."""

    @abstractmethod
    def recompute_activations(self, on: bool = True) -> None:
        """Compute activations again in the backward instead of keeping them."""


@runtime_checkable
class Shards(Protocol):
    """Its layers can be spread over several processes."""

    @abstractmethod
    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the backbone's layers over the processes of a mesh (FSDP2); its results stay the same.

        The embeddings and the LM head stay whole on every process.
        """


@runtime_checkable
class ShowsAttention(Protocol):
    """Shows how an answer attends to the interleaved prompt before it."""

    @abstractmethod
    def attention(
        self, query: Query, demonstrations: Sequence[Demonstration], answer: str, *, prompt_format: PromptFormat
    ) -> AttentionMap:
        """Read how ``answer`` attends to the interleaved prompt before it; for analysis alone.

        Raises:
            CapabilityError: this model gives no attention weights.
            InputError: the answer is blank.
        """


@runtime_checkable
class ShowsPrompts(Protocol):
    """Shows a prompt decoded from its tokens."""

    @abstractmethod
    def show_prompt(self, query: Query, context: Context, *, prompt_format: PromptFormat) -> str:
        """Return a prompt as text, special tokens too, for messages."""


@runtime_checkable
class AnswersPlainly(Protocol):
    """Answers without its reader and its injector, so that the kit can compare them with it."""

    @abstractmethod
    def plain_answer(
        self,
        query: Query,
        *,
        prompt_format: PromptFormat,
        max_new_tokens: int,
        demonstrations: Sequence[Demonstration] = (),
        with_images: bool = True,
    ) -> list[int]:
        """Return the backbone's own greedy answer as token ids.

        What the family's documentation would have you write. ``demonstrations`` stand before the query as turns of the
        same format: with their images (interleaved), or as text alone.
        """


@runtime_checkable
class MarksSlots(Protocol):
    """Marks the places of fused tokens in a prompt with a reserved token."""

    @property
    @abstractmethod
    def slot(self) -> int:
        """The token's id, which is never generated. It can be set: the kit tries others."""

    @slot.setter
    def slot(self, token: int) -> None: ...


@runtime_checkable
class ForeseesCost(Protocol):
    """Counts what a prompt takes before anything is computed: `aim-icl cost`."""

    @classmethod
    @abstractmethod
    def footprint_of(
        cls,
        model: str | None = None,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> Footprint:
        """Count for a model that is not loaded; the arguments are those of `Backend.from_pretrained`.

        Raises:
            BackendError: see `Backend.from_pretrained`.
        """

    @property
    @abstractmethod
    def footprint(self) -> Footprint:
        """The same of the loaded model."""


@dataclass(frozen=True, slots=True)
class Capability:
    """One row of the table."""

    name: str
    """As commands print it."""
    protocol: type
    does: str
    """What a backend that has it does, in a plain sentence."""

    def of(self, kind: type[Backend]) -> bool:
        """Whether a backend's class has it; nothing is loaded. A loaded model may lack it (`Backend.lacks`)."""
        return all(hasattr(kind, name) for name in _members(self.protocol))


CAPABILITIES: Final = (
    Capability("vocabulary", HasVocabulary, "shows its embeddings and its LM head, which carriers start from"),
    Capability("torch", RunsInTorch, "names its torch modules, so that training can check that they stay frozen"),
    Capability("layers", ReadsLayers, "reads the hidden states of any decoder layer"),
    Capability("interleaving", Interleaves, "takes several images in one prompt"),
    Capability("prefixes", ReusesPrefixes, "computes repeated demonstrations only once"),
    Capability("constraints", ConstrainsAnswers, "generates only one of some choices, or only JSON of a schema"),
    Capability("boxes", WritesBoxes, "writes and reads boxes as its family does"),
    Capability("training", Trainable, "gives gradients to fused tokens, which training a projector needs"),
    Capability("recomputation", RecomputesActivations, "trains in less memory by recomputing activations"),
    Capability("sharding", Shards, "spreads its layers over several processes"),
    Capability("attention", ShowsAttention, "shows how its answers attend to their prompts"),
    Capability("prompts", ShowsPrompts, "shows prompts as decoded from their tokens"),
    Capability("plain-answers", AnswersPlainly, "answers without reader and injector, for the kit to compare with"),
    Capability("slots", MarksSlots, "marks the places of fused tokens with a reserved token"),
    Capability("cost", ForeseesCost, "says what a prompt takes before it is computed"),
)
"""All capabilities, in the order in which they are printed."""

_ROWS: Final = {row.protocol: row for row in CAPABILITIES}


def find(backend: Backend, protocol: type[Ability]) -> Ability | None:
    """Return the loaded backend as that Protocol; None if it lacks the capability."""
    return cast(Ability, backend) if why_not(backend, protocol) is None else None


def capability(backend: Backend, protocol: type[Ability]) -> Ability:
    """Return the loaded backend as that Protocol.

    Raises:
        CapabilityError: its class or its model cannot; it names the backend, the capability and the reason.
    """
    if (reason := why_not(backend, protocol)) is not None:
        row = _ROWS[protocol]
        raise CapabilityError(
            f"backend {backend.name!r} lacks the capability {row.name!r} (a backend that has it {row.does}): {reason}."
        )
    return cast(Ability, backend)


def why_not(backend: Backend, protocol: type) -> str | None:
    """Say why a loaded backend lacks a capability: "a prompt of 'blip-2' holds one image"; None if it has it."""
    # `isinstance` says the same, but computes properties before Python 3.12.
    if missing := [name for name in _members(protocol) if not hasattr(type(backend), name)]:
        return f"its class has no {' and no '.join(f'`{name}`' for name in missing)}"
    return backend.lacks.get(protocol)


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]
