"""Pocket: the tokenizer, the vision trunk, the connector and the language model, put together.

Prompt layout:

    <|im_start|>
    Question: {text}\\n  [16 visual tokens]  \\nAnswer:  {answer}\\n      one per demonstration
    Question: {text}\\n  [16 visual tokens]  \\nAnswer:                 the query

What comes before, between and after is tokenised separately, and an answer ends at the newline.
Text-only demonstrations are the same without the visual tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from aim_backends.pocket.connector import Connector
from aim_backends.pocket.lm import Llama
from aim_backends.pocket.memory import keep_freed_memory
from aim_backends.pocket.vision import VISUAL_TOKENS, Trunk
from aim_backends.pocket.weights import PocketFiles, prepare_weights
from aim_sdk.backend.grammar import token_bytes
from aim_sdk.config import PromptFormat
from aim_sdk.errors import ArtifactNotFoundError, CorruptArtifactError

DATA: Final = Path(__file__).parent / "data"
BOS: Final = "<|im_start|>"
END_TOKENS: Final = ("<|im_end|>", "<|endoftext|>")
DEFAULT_FORMAT: Final = PromptFormat.plain("Question: {text}\n{image}\nAnswer: {answer}\n")
"""The layout that pocket was trained on."""
_IMAGE_BATCH = 32


@dataclass
class PocketText:
    """The tokenizer, and what prompts need of it."""

    tokenizer: Tokenizer

    @property
    def title(self) -> str:
        return "pocket"

    @property
    def opening_ids(self) -> list[int]:
        return [self._token_id(BOS)]

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        return {index: token.content for index, token in self.tokenizer.get_added_tokens_decoder().items()}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        ids = map(self.tokenizer.token_to_id, END_TOKENS)
        return frozenset(index for index in ids if index is not None)

    @cached_property
    def token_bytes(self) -> Any:
        """The bytes of each token, for grammars."""
        return token_bytes(self.tokenizer.to_str())

    @cached_property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the whole tokenizer."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of one segment, without special tokens around it."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _token_id(self, token: str) -> int:
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise CorruptArtifactError(f"The tokenizer lacks the token {token!r}.")
        return found


@dataclass
class PocketVision:
    """The vision trunk and the connector; both are frozen."""

    trunk: Trunk
    connector: Connector

    @classmethod
    def load(cls, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Self:
        """Load the trunk's package and the connector that ships with this module."""
        made = cls.load_base(prepare_weights(), dtype, device)
        made.connector.load_state_dict(_read(DATA / "connector.safetensors"))
        return made

    @classmethod
    def load_base(cls, files: PocketFiles, dtype: torch.dtype, device: str | torch.device) -> Self:
        """Load the trunk's package alone, and an untrained connector."""
        connector = Connector().to(device=device, dtype=dtype).requires_grad_(False).eval()
        trunk = Trunk.load(files.trunk).to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
        return cls(trunk, connector)

    @torch.no_grad()
    def encode_pixels(self, images: Sequence[Tensor]) -> Tensor:
        """Return the visual tokens of preprocessed images, ``(B, 16, 576)``."""
        weight = self.connector.norm_out.weight
        if not images:
            return weight.new_zeros(0, VISUAL_TOKENS, len(weight))
        pixels = torch.stack(list(images)).to(weight.device)
        features = torch.cat([self.trunk.features(batch) for batch in torch.split(pixels, _IMAGE_BATCH)])
        out: Tensor = self.connector(features)
        return out


@dataclass
class PocketModel(PocketText):
    """A small multimodal LLM; every part is frozen."""

    vision: PocketVision
    lm: Llama

    @classmethod
    def load(cls, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Self:
        """Load the converted packages and the trained parts that ship with this module."""
        model = cls.load_base(dtype, device)
        model.vision.connector.load_state_dict(_read(DATA / "connector.safetensors"))
        model.lm.merge_lora(_read(DATA / "lora.safetensors"))
        return model

    @classmethod
    def load_base(
        cls, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", files: PocketFiles | None = None
    ) -> Self:
        """Load the packages alone: the untuned language model and an untrained connector."""
        files = files or prepare_weights()
        if torch.device(device).type == "cpu":
            keep_freed_memory()
        lm = Llama.from_state(_read(files.lm), dtype=dtype).to(device)
        vision = PocketVision.load_base(files, dtype, device)
        return cls(Tokenizer.from_file(str(files.tokenizer)), vision, lm)

    @property
    def device(self) -> torch.device:
        return self.lm.embed_tokens.weight.device


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ArtifactNotFoundError(f"{path.name} is missing from the installed backend 'pocket'.") from error
    except SafetensorError as error:
        raise CorruptArtifactError(f"{path.name} is cut or malformed: {error}") from error
