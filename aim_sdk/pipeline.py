"""AIMPipeline: reads demonstrations into the bank, and answers queries after them. Holds no model-specific code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch

from aim_sdk.assessment.assess import assess
from aim_sdk.assessment.assessment import Assessment
from aim_sdk.assessment.candidates import SHOTS
from aim_sdk.assessment.keeping import keep
from aim_sdk.backend.capabilities import ForeseesCost, HasVocabulary, ReusesPrefixes, capability, find
from aim_sdk.backend.choosing import choose
from aim_sdk.backend.interfaces import Backend
from aim_sdk.bank import DemonstrationBank
from aim_sdk.chat.chat import Chat
from aim_sdk.chat.completion import ChatCompletion
from aim_sdk.chat.messages import Messages
from aim_sdk.chat.options import ChatOptions
from aim_sdk.chat.stream import ChatStream
from aim_sdk.errors import CapabilityError, InputError
from aim_sdk.injection.cost import Cost
from aim_sdk.injection.cost_sample import of_call
from aim_sdk.injection.counting import COST_MODES, cost_of
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.given import Demonstrations, Queries, each_given, format_of, given_demonstrations, queries_of
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.projectors.base import Projector
from aim_sdk.reading.encoder import Encoder
from aim_sdk.selection.base import Selector
from aim_sdk.selection.builtin import ReadingSelector
from aim_sdk.selection.registry import DEFAULT_SELECTOR, get_selector

if TYPE_CHECKING:
    from aim_sdk.config import PromptFormat
    from aim_sdk.types import Demonstration, Mode


class AIMPipeline(FewShotModel):
    """A frozen backbone that learns from demonstrations.

    Args:
        backend: a loaded backend.
        projector: a projector of that backbone; None takes the backend's default. It is attached to it in place
            ([`attach`][aim_sdk.projectors.base.Projector.attach]), and must not change while the pipeline uses it: the
            bank keeps what it made.
        prompt_format: how demonstrations and queries are written: a format, a plain template as a string, or
            ``"chat"``; None takes the backend's default.
        bank: a folder that keeps the bank, created with a warning if it does not exist; None keeps it in memory.
        keep_readings: also keep the readings in a new bank, so that another projector needs nothing read again.
        keep_images: also keep the image files in a new bank, so that it can be read again anywhere.
        images: a folder that the bank's image files were moved to.
        selector: chooses each query's demonstrations from the bank: a name (see `aim_sdk.selection`) or an object. By
            default those whose readings are most like the query's, for which each query is read once;
            ``selector="first"`` shows all queries the same ones, which are then computed once if the backend can.
        prefix_bytes: memory for computed prefixes (`aim_sdk.backend.prefixes`), if the backend shares them between
            prompts; None takes the backend's default (1 GiB), 0 computes every prompt in full.
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
        selector: str | Selector = DEFAULT_SELECTOR,
        prefix_bytes: int | None = None,
    ) -> None:
        if not isinstance(backend, Backend):
            raise InputError(
                f"backend: {type(backend).__name__}; expected a loaded backend. "
                "Next: AIMPipeline.from_pretrained(...), which takes names."
            )
        chosen_by = get_selector(selector)
        if isinstance(chosen_by, ReadingSelector) and not backend.reader.reads:
            raise CapabilityError(
                f"selector {chosen_by.name!r} reads each query, and this backend reads nothing.\n"
                "Next: one that reads none: 'first', 'random', 'rices', 'text' or 'mmices'."
            )
        fitted = _attached(backend.default_projector() if projector is None else projector, backend)
        encoder = Encoder(backend, fitted, format_of(prompt_format) or backend.default_format)
        if prefix_bytes is not None and (reusing := find(backend, ReusesPrefixes)) is not None:
            reusing.prefixes.resize(prefix_bytes)
        opened = (
            DemonstrationBank.in_memory(encoder)
            if bank is None
            else DemonstrationBank.open(
                bank,
                encoder=encoder,
                create=True,
                keep_readings=keep_readings,
                keep_images=keep_images,
                images=images,
            )
        )
        super().__init__(encoder, opened, chosen_by)
        self._chat = Chat(self)

    def chat(self, messages: Messages, **options: Any) -> ChatCompletion:
        """Answer a conversation in OpenAI's form, whose turns before the last one are demonstrations.

        A user's turn with an image and the assistant's turn after it are a demonstration; the last turn, with an image,
        is the query. A system message stays one. Demonstrations are read once, whatever conversation brings them again;
        a conversation without any is answered with the bank's, if there are some.

        Args:
            messages: with a role and a content each: a text, or parts ``text``, ``image_url`` (a data URI) and
                ``image`` (a path, bytes or a PIL image).
            **options: see `ChatOptions`.

        Raises:
            InputError: it is no such conversation. What would be left out of it is refused, but for a speaker's
                ``name`` and an image's ``detail``.
        """
        return self._chat.complete(messages, ChatOptions.of(options))

    def chat_stream(self, messages: Messages, **options: Any) -> ChatStream:
        """Yield the text of `chat` piece by piece; afterwards the stream's ``completion`` is the whole of it."""
        return self._chat.stream(messages, ChatOptions.of(options))

    def cost(
        self,
        shots: int | Sequence[int] = (4, 8, 16),
        *,
        modes: Sequence[Mode] = COST_MODES,
        demonstrations: Demonstrations | None = None,
        queries: Queries | None = None,
        batch_size: int = 8,
        max_new_tokens: int = 32,
    ) -> Cost:
        """Say what prompts would take and whether they fit; nothing is computed.

        Args:
            shots: numbers of demonstrations.
            modes: how they are shown.
            demonstrations: what is counted; None takes the bank's, or an assumed one if it is empty.
            queries: None takes images and texts like the demonstrations'.
            batch_size, max_new_tokens: as in `generate`.

        Returns:
            For each mode and number of shots, the longest prompt: that of the longest query after the longest
            demonstrations.

        Raises:
            CapabilityError: the backend does not say what a prompt takes.
            InputError: a number or a mode is wrong; a text or an image cannot be used.
        """
        footprint = capability(self.backend, ForeseesCost).footprint
        shown = None if demonstrations is None else each_given(given_demonstrations(demonstrations))
        held = [item.demonstration for item in self.bank.values()] if shown is None else []
        return cost_of(
            footprint,
            of_call(shown, [] if queries is None else queries_of(queries), held),
            shots,
            backend=self.backend.name,
            modes=modes,
            prompt_format=self.prompt_format,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            layers=len(self.projector.layers),
            loaded=True,
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
        selector: str | Selector = DEFAULT_SELECTOR,
        prefix_bytes: int | None = None,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """Load a backend and compose it with a projector.

        Args:
            backend: a registered name (``aim-icl backends list`` shows them), a backend's class, or a loaded backend; a
                model's hub id or folder (its family's backend is then used); or a projector, its hub id or folder
                (then the backbone that it was made with).
            model: a hub id or a local folder; None takes what ``backend`` leads to, or its default.
            projector: a folder or hub id, a projector, or the kind of an untrained one
                ([`KINDS`][aim_sdk.projectors.KINDS]); None takes the backend's default.
            prompt_format, bank, keep_readings, keep_images, images, selector, prefix_bytes: see the class.
            device, dtype: where and in what precision the backbone runs; None lets the backend choose.
            trust_remote_code: run the checkpoint's own Python code (configuration, processor, tokenizer, model). By
                default none is run, and a checkpoint that needs its code is refused.
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
                untrained(str(projector), capability(loaded, HasVocabulary).vocabulary)
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

    def assess(
        self,
        validation: Iterable[Demonstration] | None = None,
        *,
        shots: Iterable[int] = SHOTS,
        modes: Iterable[Mode] | None = None,
        selectors: Iterable[str] | None = None,
        choices: Iterable[str] | None = None,
        limit: int | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 16,
        seed: int = 0,
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Assessment:
        """Say whether the bank's demonstrations help, which setting is best, and keep that verdict with the bank.

        A verdict of fewer items than the one that is kept of the same demonstrations does not replace it.

        Every demonstration is asked in turn, and the others are what it may be shown. The setting is chosen on other
        items than those that say what it is worth (`aim_sdk.assessment.choice`).

        Args:
            validation: ask these instead; all of the bank may be shown.
            shots: how many demonstrations are tried; those that the bank does not have are left out.
            modes: what is tried besides zero-shot; None: all that the backend can, with the control without images.
            selectors: names; None: the pipeline's own.
            choices: the closed set of answers; None: the bank's distinct ones, if they are a closed set (at most 64,
                each twice on average). Other answers are generated, and compared exactly if they are of at most three
                words, as captions otherwise (CIDEr-D).
            limit: ask at most so many, in each answer's share.
            max_new_tokens: of a free answer.
            batch_size: prompts per forward.
            seed: of the folds and the part that is asked.
            folder: keep all outcomes there: the same call resumes.
            progress: show on stderr how many prompts are answered.

        Raises:
            InputError: there are too few demonstrations, or no setting to try.
            CapabilityError: a mode is asked for that the backend cannot.
        """
        found = assess(
            self,
            validation,
            shots=shots,
            modes=modes,
            selectors=selectors,
            choices=choices,
            limit=limit,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
            folder=folder,
            progress=progress,
        )
        keep(found, self.bank)
        return found


def _attached(projector: Projector, backend: Backend) -> Projector:
    if not isinstance(projector, Projector):
        raise InputError(
            f"projector: {type(projector).__name__}; expected a loaded projector. Next: "
            "AIMPipeline.from_pretrained(..., projector=...), which takes names, or Projector.from_pretrained(...)."
        )
    if (showing := find(backend, HasVocabulary)) is not None:
        return projector.attach(showing.vocabulary)
    projector.check_backbone(backend.fingerprint)  # and there is nothing to bind it to
    projector.fingerprint = projector.fingerprint or backend.fingerprint
    return projector.to(backend.device).eval()
