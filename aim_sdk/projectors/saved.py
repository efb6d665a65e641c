"""A projector as a folder: ``projector.safetensors``, ``projector_config.json`` and a model card (``README.md``)."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import huggingface_hub
import safetensors.torch
from huggingface_hub import ModelCard, ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic_core import PydanticSerializationError, to_json

from aim_sdk.config import Fingerprint, ProjectorConfig
from aim_sdk.errors import (
    AIMError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactWriteError,
    CorruptArtifactError,
    FingerprintError,
    InputError,
    did_you_mean,
)
from aim_sdk.files.atomic import expanded, write_atomic
from aim_sdk.layers import LAST
from aim_sdk.projectors.artifact_files import CONFIG_FILE, WEIGHTS_FILE, config_hash, read_config, read_weights
from aim_sdk.projectors.kinds import KINDS

if TYPE_CHECKING:
    from aim_sdk.projectors.base import Projector

CARD = """---
{{ card_data }}
---

# AIM projector ({{ kind }}) for {{ backbone }}

Turns the frozen backbone's readings of image+text demonstrations ({{ sizes }}) into fused virtual tokens.

```python
from aim_sdk import AIMPipeline

pipe = AIMPipeline.from_pretrained("{{ backend }}", model="{{ backbone }}", projector="path/or/hub-id/of/this/folder")
```

Training: {{ summary }}
"""


class SavedProjector(
    ModelHubMixin, library_name="aim-icl", tags=["aim-icl", "in-context-learning"], model_card_template=CARD
):
    """Saving and loading, mixed into every projector, by huggingface_hub's `ModelHubMixin`.

    Attributes:
        fingerprint: the backbone that the projector belongs to; needed to save it.
        summary: how it was trained, kept in the config.
    """

    kind: ClassVar[str]
    fingerprint: Fingerprint | None
    summary: dict[str, Any]
    layers: tuple[int, ...]
    options: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            KINDS.add(cls.kind, cls)  # type: ignore[arg-type]

    def _save_pretrained(self: Projector, save_directory: Path) -> None:  # type: ignore[misc]
        if self.fingerprint is None:
            raise ArtifactError(
                "this projector belongs to no backbone yet. Next: make it for one, by "
                "`aim_sdk.projectors.untrained(kind, backend.vocabulary)`, or set `projector.fingerprint = "
                "backend.fingerprint`."
            )
        weights = safetensors.torch.save({name: value.contiguous().cpu() for name, value in self.state_dict().items()})
        if name := next((name for name, value in self.state_dict().items() if not value.isfinite().all()), None):
            raise ArtifactError(f"this projector's weights {name!r} hold NaN or infinity; it is not saved.")
        config = ProjectorConfig(
            kind=self.kind,
            hidden_size=self.hidden_size,
            embedding_size=self.embedding_size,
            layers=self.layers,
            options=self.options,
            fingerprint=self.fingerprint,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            training=self.summary,
        )
        try:
            fields = json.loads(config.model_dump_json())
        except PydanticSerializationError as error:
            raise ArtifactError(f"this projector's summary cannot be written as JSON: {error}") from error
        fields["config_sha256"] = config_hash(fields)
        write_atomic(save_directory / WEIGHTS_FILE, weights)
        write_atomic(save_directory / CONFIG_FILE, (json.dumps(fields, indent=2) + "\n").encode())

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the projector's folder to the Hugging Face hub, by huggingface_hub's own method; return its address.

        Raises:
            ArtifactError: the projector cannot be saved.
            ArtifactWriteError: the hub cannot be reached, or refuses it.
        """
        try:
            return str(super().push_to_hub(repo_id, **options))
        except AIMError:
            raise
        except Exception as error:  # the hub's client passes on whatever its transport raises
            raise ArtifactWriteError(
                f"{repo_id}: the projector was not uploaded: {type(error).__name__}: {error}\n"
                "Next: look after the network, the name and `hf auth login`; `save_pretrained` keeps it in a folder."
            ) from error

    def generate_model_card(self: Projector, *args: Any, **kwargs: Any) -> ModelCard:  # type: ignore[misc]
        """The ``README.md`` of the folder: what the projector is and the line that loads it."""
        fingerprint = self.fingerprint
        assert fingerprint is not None  # _save_pretrained has refused it
        return super().generate_model_card(
            kind=self.kind,
            backbone=fingerprint.model,
            backend=fingerprint.backend,
            sizes=f"hidden {self.hidden_size}, embedding {self.embedding_size}; {described(self)}",
            summary=to_json(self.summary, inf_nan_mode="null").decode() if self.summary else "none",
            **kwargs,
        )

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, token: str | None = None) -> Projector:  # type: ignore[override]
        """Load a projector of any registered kind from a folder or a hub id.

        Raises:
            ArtifactNotFoundError: no such folder, file or hub repository.
            CorruptArtifactError: a file is cut, altered or malformed, or of a newer version; or the weights are not
                those of the projector that the configuration describes.
        """
        folder = _locate(str(source), revision, token)
        config = read_config(folder / CONFIG_FILE)
        if config.kind not in KINDS:
            raise CorruptArtifactError(
                f"{folder / CONFIG_FILE}: unknown projector kind {config.kind!r}."
                f"{did_you_mean(config.kind, KINDS)} Known: {', '.join(sorted(KINDS))}. A kind of your own must be "
                "imported before it is loaded, or registered as an entry point."
            )
        kind = KINDS[config.kind]

        def build() -> Projector:
            return kind(config.hidden_size, config.embedding_size, **kept_options(config.layers, config.options))

        try:
            check_options(kind, config.options)
            weights = read_weights(folder / WEIGHTS_FILE, config, build)
            projector = build()
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:  # of a kind's constructor
            if isinstance(error, ArtifactError):
                raise
            raise CorruptArtifactError(f"{folder / CONFIG_FILE}: options {config.options}: {error}") from error
        projector.load_state_dict(weights)
        projector.fingerprint, projector.summary = config.fingerprint, config.training
        return projector.eval()

    @property
    def identity(self) -> str:
        """SHA-256 of all that its fused tokens depend on besides the readings; two of one identity project alike."""
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}  # type: ignore[attr-defined]
        digest = hashlib.sha256(safetensors.torch.save(weights))
        if kept := kept_options(self.layers, self.options):  # as it was before there were any: banks hold it
            digest.update(json.dumps([self.kind, kept], sort_keys=True).encode())
        return digest.hexdigest()

    def check_backbone(self, fingerprint: Fingerprint) -> None:
        """Refuse a backbone other than the one the projector was made with.

        Raises:
            FingerprintError: names both backbones and the fields that differ.
        """
        if self.fingerprint is None:
            return
        differences = self.fingerprint.differences(fingerprint)
        if differences:
            rows = "".join(
                f"\n  {field}: projector {ours}, backbone {theirs}" for field, (ours, theirs) in differences.items()
            )
            ours, theirs = _name(self.fingerprint), _name(fingerprint)
            backbone = f"another {theirs}: of this name, with other contents" if ours == theirs else theirs
            raise FingerprintError(
                f"this projector was made with {ours}, but the loaded backbone is {backbone}.{rows}\n"
                f"Load {self.fingerprint.model!r} as it was then, or pass a projector of {fingerprint.model!r}."
            )


def described(projector: SavedProjector) -> str:
    """What a projector reads and was made with: ``layers 24, -1; place=before``."""
    options = [f"{name}={value}" for name, value in projector.options.items()]
    return "; ".join([f"layers {', '.join(map(str, projector.layers))}", *options])


def check_options(kind: type[Projector], options: Iterable[str]) -> None:
    """Refuse options that a kind does not have.

    Raises:
        InputError: names the nearest.
    """
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "layers"]
    for name in options:
        if name not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            expected = f"Options: {', '.join(known)}." if known else "It has none."
            raise InputError(f"a {kind.kind!r} projector has no option {name!r}.{did_you_mean(name, known)} {expected}")


def kept_options(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a constructor is given besides the sizes; a kind that knows no ``layers`` need not take the last alone."""
    return {**({} if tuple(layers) == LAST else {"layers": tuple(layers)}), **options}


def _name(fingerprint: Fingerprint) -> str:
    revision = f" (revision {fingerprint.revision})" if fingerprint.revision else ""
    return f"{fingerprint.model!r}{revision} of backend {fingerprint.backend!r}"


def _locate(source: str, revision: str | None, token: str | None) -> Path:
    folder = expanded(source)
    if folder.is_dir():
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if missing:
            raise ArtifactNotFoundError(f"{folder}: not a projector folder; {' and '.join(missing)} not found in it.")
        return folder
    if folder.exists() or folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ArtifactNotFoundError(f"{folder}: no such projector folder.{did_you_mean(folder.name, siblings)}")
    try:
        paths = [
            huggingface_hub.hf_hub_download(source, name, revision=revision, token=token)
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        ]
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactNotFoundError(
            f"projector {source!r}: no such local folder, and the hub cannot be reached or does not hold it "
            f"({type(error).__name__}).\n"
            "Without network, pass the path of a local projector folder."
        ) from error
    return Path(paths[0]).parent
