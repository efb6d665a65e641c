"""What a projector is: readings in, fused tokens out, and nothing of a backbone but its vocabulary."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from aim_sdk.config import Fingerprint, ProjectorConfig
from aim_sdk.errors import AIMError, ArtifactError, ArtifactWriteError, FingerprintError, InputError
from aim_sdk.layers import LAST, check_layers, check_there
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.projectors.card import CARD, CARD_FILE, base_model, training
from aim_sdk.projectors.hub import located
from aim_sdk.projectors.kinds import KINDS, check_options
from aim_sdk.projectors.loading import load
from aim_sdk.projectors.saved import weights_hash, write
from aim_sdk.types import FusedTokens, Reading, Vocabulary


class Projector(
    nn.Module,
    ModelHubMixin,
    ABC,
    library_name="aim-icl",
    tags=["aim-icl", "in-context-learning"],
    model_card_template=CARD,
):
    """Turns readings into fused tokens of the same number; the only trainable part.

    A subclass names its ``kind`` (unique; saved artifacts are loaded by it) and implements `forward`. It may move
    information between the tokens of one demonstration, never between demonstrations. It is saved and loaded by
    huggingface_hub's `ModelHubMixin`, as a folder ([File formats](../file-formats.md#projector)).

    Args:
        hidden_size, embedding_size: the backbone's; `width` is that of a reading of all ``layers``.
        layers: what it reads, counted as in [`aim_sdk.layers`][aim_sdk.layers].
        **options: other arguments of the kind's constructor (such as its own sizes): they are saved and restored with
            it.

    Attributes:
        fingerprint: the backbone that the projector belongs to; None until it is attached to one. Needed to save it.
        summary: how it was trained, kept in the configuration.
    """

    kind: ClassVar[str]
    learning_rate: ClassVar[float] = 3e-5
    """The rate at which the kind learns well, where no other one is set; see `rate`."""
    fingerprint: Fingerprint | None
    summary: dict[str, Any]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "kind" in vars(cls):
            KINDS.add(cls.kind, cls)

    def __new__(cls, *_: Any, **__: Any) -> Self:
        return object.__new__(cls)  # the mixin's keeps the arguments for a config.json; projector_config.json has them

    def __init__(self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, **options: Any) -> None:
        super().__init__()
        self.hidden_size, self.embedding_size = hidden_size, embedding_size
        self.layers, self.options = check_layers(layers), options
        self.width = hidden_size * len(self.layers)
        self.fingerprint = None
        self.summary = {}

    @abstractmethod
    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        """Project padded readings; values at padding must not change the rest, and are cut off."""

    @classmethod
    def untrained(cls, vocabulary: Vocabulary, *, layers: Sequence[int] = LAST, **options: Any) -> Self:
        """Build one that is attached to a backbone (`Backend.vocabulary`), with the weights that training begins from.

        Raises:
            InputError: the kind has no such option, or the backbone no such layer.
        """
        check_options(cls, options)
        check_there(layers, vocabulary.decoder_layers)
        inputs, outputs = vocabulary.inputs, vocabulary.outputs
        made = cls(outputs.shape[1], inputs.shape[1], layers=layers, **options).to(inputs.device)
        with torch.no_grad():
            made.start(vocabulary)
        return made.attach(vocabulary)

    def start(self, vocabulary: Vocabulary) -> None:
        """Set the weights to where training begins on this backbone; the constructor's are right for many kinds."""

    def attach(self, vocabulary: Vocabulary) -> Self:
        """Make the projector ready for a loaded backbone (`Backend.vocabulary`), and return it.

        This works in place, as `nn.Module.to` does: it takes what it needs of the vocabulary (`bind`), moves to its
        device and is set to ``eval()``. Weights, dtype and a `fingerprint` that it has stay as they are; one without
        belongs to this backbone from now on. Backbones on several devices need a projector each.

        Raises:
            FingerprintError: it was made with another backbone.
            InputError: its sizes or its layers are not the backbone's; or it is not a vocabulary.
        """
        if not isinstance(vocabulary, Vocabulary):
            raise InputError(f"attach: {type(vocabulary).__name__}; expected a loaded backend's vocabulary.")
        self.check_backbone(vocabulary.fingerprint)
        check_there(self.layers, vocabulary.decoder_layers)
        if self.fingerprint is None:
            self.fingerprint = vocabulary.fingerprint
        self.bind(vocabulary)
        return self.to(vocabulary.inputs.device).eval()

    def bind(self, vocabulary: Vocabulary) -> None:
        """Take what the kind needs from its backbone besides the readings; `attach` calls it before any projection."""

    def check_backbone(self, fingerprint: Fingerprint) -> None:
        """Refuse a backbone other than the one the projector was made with, or of other sizes.

        Raises:
            FingerprintError: names both backbones and the fields that differ.
            InputError: names the sizes.
        """
        if self.fingerprint is not None and (differences := self.fingerprint.differences(fingerprint)):
            rows = "".join(
                f"\n  {field}: projector {ours}, backbone {theirs}" for field, (ours, theirs) in differences.items()
            )
            ours, theirs = _name(self.fingerprint), _name(fingerprint)
            backbone = f"another {theirs}: the same name, but other contents" if ours == theirs else theirs
            raise FingerprintError(
                f"this projector was made with {ours}, but the loaded backbone is {backbone}.{rows}\n"
                f"Load {self.fingerprint.model!r} as it was then, or pass a projector of {fingerprint.model!r}."
            )
        if (self.hidden_size, self.embedding_size) != (fingerprint.hidden_size, fingerprint.embedding_size):
            raise InputError(
                f"the projector maps {self.hidden_size} -> {self.embedding_size}, but {fingerprint.model!r} needs "
                f"{fingerprint.hidden_size} -> {fingerprint.embedding_size}."
            )

    def rate(self, name: str) -> float:
        """The factor of the learning rate for the parameter of that name."""
        return 1.0

    def project(self, readings: Sequence[Reading]) -> list[FusedTokens]:
        """Project readings of any lengths; dtype and device are the embeddings'."""
        if not readings:
            return []
        fused = self(ReadingBatch.collate(readings))
        return [
            FusedTokens(row[: len(reading)], token_ids=reading.token_ids.cpu())
            for row, reading in zip(fused, readings, strict=True)
        ]

    @property
    def identity(self) -> str:
        """SHA-256 of all that its fused tokens depend on besides the readings; equal identities project alike."""
        made = json.dumps([weights_hash(self.state_dict()), self.kind, self.layers, self.options], sort_keys=True)
        return hashlib.sha256(made.encode()).hexdigest()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a saved projector: `Projector` loads any kind, a subclass loads its own.

        Args:
            pretrained_model_name_or_path: a folder, or the id of a repository of the Hugging Face Hub.
            force_download, token, cache_dir, local_files_only, revision: the Hub's usual keywords.
            **options: none; a saved projector has its options.

        Raises:
            InputError: an option is given, or something other than a name.
            ArtifactNotFoundError: no such folder, file or Hub repository.
            ArtifactError: it is a projector of another kind.
            CorruptArtifactError: a file is cut, altered or malformed, or of a newer version; or the weights are not
                those of the projector that the configuration describes.
        """
        if not isinstance(pretrained_model_name_or_path, str | Path):
            raise InputError(f"{pretrained_model_name_or_path!r}: expected a projector's folder, or its id on the Hub.")
        return cls._from_pretrained(  # the mixin's would look for a config.json first
            model_id=str(pretrained_model_name_or_path),
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
            **options,
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        if model_kwargs:
            raise InputError(
                f"{model_id}: a saved projector takes no {', '.join(model_kwargs)}; its options are those that it was "
                "saved with. Next: leave them out, or make a new one with `untrained`."
            )
        folder = located(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        projector = load(folder)
        if isinstance(projector, cls):
            return projector
        kind = type(projector).__name__
        raise ArtifactError(
            f"{model_id} holds a projector of kind {projector.kind!r}, a {kind}; expected "
            f"{getattr(cls, 'kind', 'another')!r}, a {cls.__name__}.\n"
            f"Next: {kind}.from_pretrained({model_id!r}), or Projector.from_pretrained, which loads any kind."
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.fingerprint is None:
            raise ArtifactError(
                "this projector belongs to no backbone yet. Next: create it for one with "
                "`aim_sdk.projectors.untrained(kind, backend.vocabulary)`, or call "
                "`projector.attach(backend.vocabulary)`."
            )
        tensors = self.state_dict()
        config = ProjectorConfig(
            kind=self.kind,
            hidden_size=self.hidden_size,
            embedding_size=self.embedding_size,
            layers=self.layers,
            options=self.options,
            fingerprint=self.fingerprint,
            weights_sha256=weights_hash(tensors),
            training=self.summary,
        )
        write(save_directory, config, tensors)
        (save_directory / CARD_FILE).unlink(missing_ok=True)  # the mixin keeps one that is there, of other weights

    def generate_model_card(self, *args: Any, **keywords: Any) -> ModelCard:
        """The ``README.md`` of the folder: what the projector is, the line that loads it, how its training ended."""
        fingerprint = self.fingerprint
        assert fingerprint is not None  # _save_pretrained has refused it
        options = [f"{name}={value}" for name, value in self.options.items()]
        read = "; ".join([f"layers {', '.join(map(str, self.layers))}", *options])
        return super().generate_model_card(
            base_model=base_model(fingerprint.model),
            kind=self.kind,
            backbone=fingerprint.model,
            backend=fingerprint.backend,
            sizes=f"hidden {self.hidden_size}, embedding {self.embedding_size}; {read}",
            training=training(self.summary),
            **keywords,
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the projector's folder to the Hugging Face Hub, by huggingface_hub's own method; return its address.

        Raises:
            ArtifactError: the projector cannot be saved.
            ArtifactWriteError: the Hub cannot be reached, or refuses it.
        """
        try:
            return str(super().push_to_hub(repo_id, **options))
        except AIMError:
            raise
        except Exception as error:  # the Hub's client passes on whatever its transport raises
            raise ArtifactWriteError(
                f"{repo_id}: the projector was not uploaded: {type(error).__name__}: {error}\n"
                "Next: check the network, the name and `hf auth login`; `save_pretrained` keeps it in a folder."
            ) from error


def _name(fingerprint: Fingerprint) -> str:
    revision = f" (revision {fingerprint.revision})" if fingerprint.revision else ""
    return f"{fingerprint.model!r}{revision} of backend {fingerprint.backend!r}"
