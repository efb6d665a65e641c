"""Validated settings: how prompts are written, and what identifies a backbone."""

from __future__ import annotations

import json
import math
import string
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aim_sdk.errors import FormatError, problem


class PromptFormat(BaseModel):
    """How a demonstration and a query become text around an image.

    ``PromptFormat.chat()`` uses the family's own chat template (user turn: image and text; assistant turn: answer).
    ``PromptFormat.plain(template)`` uses a format string with ``{image}``, ``{text}`` and ``{answer}``, as evaluation
    protocols prescribe. A query is the part of the template before the answer, without its trailing blanks; what
    follows the answer (a newline, say) ends it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["chat", "plain"] = Field(
        default="chat", description="chat: the model's own chat template; plain: a format string"
    )
    template: str | None = Field(default=None, description="plain: a format string; chat: none")
    system: str | None = Field(default=None, description="text before the first demonstration")

    @classmethod
    def chat(cls, *, system: str | None = None) -> Self:
        """The family's chat template, with an optional system message."""
        return cls(kind="chat", system=system)

    @classmethod
    def plain(cls, template: str, *, system: str | None = None) -> Self:
        """A format string that holds ``{image}`` and ``{answer}`` once and ``{text}`` at most once.

        Raises:
            FormatError: a field is missing, repeated or unknown, or the image stands after the answer.
        """
        try:
            return cls(kind="plain", template=template, system=system)
        except ValidationError as error:
            raise FormatError(f"prompt template {template!r}: {problem(error)}.") from error

    @field_validator("template", "system")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None:
            text.encode()  # half of a character is a ValueError, too
        return text

    @model_validator(mode="after")
    def _template_is_complete(self) -> Self:
        if self.kind == "chat":
            if self.template is not None:
                raise ValueError("a chat format takes its template from the model's processor")
            return self
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(self.template or "") if name is not None]
        except ValueError as error:
            raise ValueError(f"not a format string ({error})") from error
        if sorted(set(fields) | {"text"}) != ["answer", "image", "text"] or len(fields) != len(set(fields)):
            raise ValueError("expected {image} and {answer} once and {text} at most once")
        if fields[-1] != "answer":
            raise ValueError("expected {answer} to be the last field")
        return self

    def pieces(self) -> tuple[str, str, str]:
        """Split a plain template at the answer: (query, blanks that lead the answer, suffix that ends it).

        The query is a format string with ``{image}`` and ``{text}``; the other two are as they are.
        """
        before, suffix, answered = "", "", False
        for literal, name, _, _ in string.Formatter().parse(self.template or ""):
            if answered:
                suffix += literal
                continue
            answered = name == "answer"
            before += literal.replace("{", "{{").replace("}", "}}")
            before += "" if answered or name is None else f"{{{name}}}"
        query = before.rstrip(" ")
        return query, before[len(query) :], suffix

    @property
    def stop(self) -> str | None:
        """The string that ends a plain answer, if the template has one."""
        return (self.pieces()[2] or None) if self.kind == "plain" else None


class Fingerprint(BaseModel):
    """What identifies a frozen backbone; every artifact made with it carries one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = Field(description="name of the backend that read it")
    model: str = Field(description="hub id or folder name, for people to read")
    revision: str | None = Field(default=None, description="on the hub, if known")
    weights_hash: str | None = Field(
        description="of samples of every parameter; none if some are quantised or offloaded"
    )
    embedding_hash: str = Field(description="of samples of the input embeddings")
    tokenizer_hash: str = Field(description="of the whole tokenizer")
    hidden_size: int = Field(description="dimensions of a hidden state")
    embedding_size: int = Field(description="dimensions of an input embedding")
    embedding_rms: float = Field(
        ge=0, allow_inf_nan=False, description="root mean square of the input embeddings' numbers"
    )
    libraries: dict[str, str] = Field(default_factory=dict, description="versions, for people to read")

    def differences(self, other: Fingerprint) -> dict[str, tuple[Any, Any]]:
        """Return the identifying fields that differ, as ``{field: (self's, other's)}``; none in the same backbone."""
        fields = ["embedding_hash", "tokenizer_hash", "hidden_size", "embedding_size"]
        if self.weights_hash is not None and other.weights_hash is not None:
            fields.append("weights_hash")
        found = {f: (getattr(self, f), getattr(other, f)) for f in fields if getattr(self, f) != getattr(other, f)}
        if not math.isclose(self.embedding_rms, other.embedding_rms, rel_tol=1e-2):
            found["embedding_rms"] = (self.embedding_rms, other.embedding_rms)
        return found


class Binding(BaseModel):
    """What fused tokens depend on besides their demonstration: a bank's tokens are of one binding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Fingerprint = Field(description="the backbone")
    projector_kind: str = Field(description="as aim_sdk.projectors.KINDS names it")
    projector_hash: str = Field(description="SHA-256 of the projector's weights, layers and options")
    prompt_format: PromptFormat = Field(description="how demonstrations become text")
    layers: tuple[int, ...] = Field(default=(-1,), description="of the backbone, side by side in a reading")

    def differences(self, other: Binding) -> dict[str, tuple[Any, Any]]:
        """What really differs, as ``{field: (self's, other's)}``; none if the same fused tokens would be made."""
        found = self.fingerprint.differences(other.fingerprint)
        for name in ("projector_kind", "projector_hash", "prompt_format", "layers"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                found[name] = (ours, theirs)
        return found

    @property
    def scope(self) -> str:
        """What identifies it, as a string; library versions do not."""
        identity = self.fingerprint.model_dump(
            include={"embedding_hash", "tokenizer_hash", "weights_hash", "hidden_size", "embedding_size"}
        )
        return json.dumps([identity, self.projector_hash, self.prompt_format.model_dump()], sort_keys=True)


class ProjectorConfig(BaseModel):
    """``projector_config.json``: what a saved projector is and which backbone it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = Field(default=1, description="of this file")
    kind: str = Field(max_length=200, description="as aim_sdk.projectors.KINDS names it")
    hidden_size: int = Field(gt=0, description="dimensions of the backbone's hidden states")
    embedding_size: int = Field(gt=0, description="dimensions of the backbone's input embeddings")
    layers: tuple[int, ...] = Field(max_length=1024, description="of the backbone, side by side in a reading")
    options: dict[str, Any] = Field(description="all other options of the kind's constructor")
    fingerprint: Fingerprint = Field(description="the backbone that it was made for")
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of projector.safetensors")
    training: dict[str, Any] = Field(default_factory=dict, description="a summary of how it was trained")
    config_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="of the other fields; every file has it"
    )
