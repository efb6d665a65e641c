"""A model and its processor: what a family overrides, and what reader, injector and the other parts read."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from aim_backends.families.notations import NOTATIONS
from aim_backends.families.table import family_of
from aim_backends.hf.asking import check_image_token, placeholder_of, written
from aim_backends.hf.blame import OUT_OF_MEMORY, RefusedInputError
from aim_backends.hf.frozen import FrozenModel
from aim_backends.hf.generation_settings import drop_other_ways
from aim_backends.hf.kv_cache import ProbeInputs
from aim_backends.hf.prompts import ChatPrompts, Message, PlainPrompts, PromptRenderer
from aim_backends.hf.roles import Roles, SpecialTokens, check_option, role_ids, tags
from aim_backends.hf.slots import choose_slot, image_ids
from aim_backends.hf.text import Layout, Tokens
from aim_backends.hf.visual import VisualTokens
from aim_sdk.backend.boxes import Notation, Steps
from aim_sdk.backend.grammar import token_bytes
from aim_sdk.config import PromptFormat
from aim_sdk.errors import AIMError, FormatError

_THOUGHTS: Final = ("enable_thinking", "thinking")
"""Variables of chat templates that let the model think before its answer. Demonstrations show answers without a
thought, and so does the answer's place."""


class Backbone(FrozenModel):
    """A frozen decoder-only multimodal LLM of transformers with its processor.

    Args:
        model: an image-text-to-text model with a decoder-only LM; it is frozen and gets two hooks.
        processor: its processor, with a fast tokenizer.
        source: the hub id or folder it came from, for messages and the fingerprint.
        special_tokens: ``"refuse"`` texts of demonstrations, queries and choices that hold special tokens (roles, ends
            of turns), or ``"allow"`` them. Image tokens are refused in any case; formats and system texts are trusted.
    """

    plain_template: ClassVar[str] = "{image}Question: {text} Answer: {answer}\n"
    """The default format if there is no chat template."""
    slot: int
    tokens_class: ClassVar[type[Tokens]] = Tokens
    answer_type: ClassVar[int] = 0
    """``token_type_ids`` of an answer after its prompt."""
    most_images: ClassVar[int | None] = None
    """How many images one prompt may hold; None if only the context's length limits them."""
    cross_attends: ClassVar[bool] = False
    """Whether images enter through cross-attention, so that a prompt holds no visual tokens to attend to."""
    probe_class: ClassVar[type[ProbeInputs]] = ProbeInputs
    """What the decoder takes when its cache is counted."""
    uncached: ClassVar[Sequence[str]] = ()
    """What a prompt keeps besides its key-value cache, a sentence each."""

    def __init__(self, model: Any, processor: Any, source: str, special_tokens: SpecialTokens = "refuse") -> None:
        check_option(special_tokens)
        super().__init__(model)
        self.processor = processor
        self.tokenizer: Any = processor.tokenizer
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.processor_lock = threading.RLock()
        """Held during every use of the processor and its tokenizer, which may run while the backbone computes."""
        self.source = source
        self.family = family_of(model.config.model_type)
        config = model.config.to_dict()
        self.placeholder = self._placeholder()
        """What stands for an image in the processor's input."""
        self.image_ids = image_ids(processor, config)
        layout = self._layout()  # which finds more image tokens
        self.slot = choose_slot(self.tokenizer, self.rows, config, self.image_ids, str(self._chat_template or ""))
        self.tokens = self.tokens_class(self.tokenizer, self.image_ids, layout)
        self._refusing = special_tokens == "refuse"
        self.boxes: Notation | None = NOTATIONS.get(self.family.boxes)
        """How the family writes boxes, if that is known."""
        written = self.boxes.marks if self.boxes else ()
        self.box_ids = frozenset(
            i for i, token in self.tokenizer.added_tokens_decoder.items() if token.content in written
        )
        """Special tokens that an answer with boxes holds: text, in a demonstration and in an answer."""
        roles = role_ids(self.tokenizer, str(self._chat_template or "")) if self._refusing else frozenset[int]()
        # A tokenizer may have more tokens than the model has embeddings.
        missing = {index for index in self.tokenizer.get_vocab().values() if index >= self.rows}
        reserved = {*self.image_ids, self.slot, *missing}
        self.roles = Roles(self.tokenizer, self.tokens, reserved, roles - self.box_ids, self.placeholder)
        self._prompts: dict[PromptFormat, PromptRenderer] = {}

    @cached_property
    def default_format(self) -> PromptFormat:
        """The chat format, if there is a template that can be cut into demonstrations; else a plain one."""
        plain = PromptFormat.plain(self.plain_template)
        if not self._chat_template:
            return plain
        try:
            self.prompts(PromptFormat.chat())
        except FormatError as error:
            warnings.warn(
                f"{str(error).splitlines()[0]}\nThe default format of {self.source!r} is therefore the plain one "
                f"{self.plain_template!r}.",
                stacklevel=4,
            )
            return plain
        return PromptFormat.chat()

    @property
    def pad_token_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @cached_property
    def token_bytes(self) -> Any:
        """The bytes of each token, for grammars."""
        with self.processor_lock:
            return token_bytes(self.tokenizer.backend_tokenizer.to_str())

    def is_text(self, ids: Int[Tensor, " tokens"]) -> bool:
        """Whether ids, on the CPU, are tokens of the vocabulary that stand for no image."""
        known = (ids >= 0) & (ids < self.rows) & ~torch.isin(ids, torch.tensor(sorted(self.image_ids)))
        return bool(known.all())

    def generate(self, **options: Any) -> Any:
        """Run the model's ``generate``; raises what `forward` raises."""
        self.check_unchanged()
        drop_other_ways(self.model.generation_config)
        if self.model.generation_config.stop_strings:  # of the checkpoint
            options.setdefault("tokenizer", self.tokenizer)
        return self.model.generate(**options)

    def prompts(self, prompt_format: PromptFormat) -> PromptRenderer:
        """How a format is written for this family.

        Raises:
            FormatError: there is no chat template, or it cannot be cut into independent demonstrations.
        """
        if prompt_format not in self._prompts:
            self.roles.check_system(prompt_format.system or "")
            self._prompts[prompt_format] = self._make_prompts(prompt_format)
        return self._prompts[prompt_format]

    def check_text(self, texts: Sequence[str]) -> None:
        """Refuse text that holds an image token, the slot, or a special token where these are refused.

        Raises:
            FormatError: naming the token.
        """
        self.roles.check_text(texts, self._marks)

    @cached_property
    def _marks(self) -> frozenset[str]:
        """The role markers that the chat template writes around a text, if some are not tokens of the vocabulary."""
        if not self._refusing or self.default_format.kind != "chat":
            return frozenset()
        try:
            return tags(self.prompts(self.default_format).demonstration("x", "x").text)
        except FormatError:  # a template that is asked in plain formats only
            return frozenset()

    def _placeholder(self) -> str:
        return placeholder_of(self.processor, self._ask)

    def process(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], *, padding_side: str
    ) -> dict[str, Tensor]:
        """Run the processor on one batch; its outputs unchanged, on the backbone's device.

        Raises:
            InputError: the processor refuses an image or a text.
        """
        try:
            return self._processed(prompts, images, padding_side)
        except (AIMError, *OUT_OF_MEMORY):
            raise
        except Exception as error:  # processors refuse what they are given in many ways
            what = f" {prompts[0][:80]!r}" if len(prompts) == 1 else ""
            raise RefusedInputError(
                f"the processor of {self.model.config.model_type!r} refuses its input{what} "
                f"({type(error).__name__}: {error})."
            ) from error

    def _processed(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str
    ) -> dict[str, Tensor]:
        return self.moved(self._outputs(prompts, images, padding_side, return_tensors="pt"))

    def _outputs(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]], padding_side: str, **options: Any
    ) -> Any:
        """The processor's own, for a batch."""
        given = [self.tokens.layout.given(prompt) for prompt in prompts]
        return self.processor(
            images=self.given_images(images),
            text=given,
            add_special_tokens=self.tokens.adds_special(given[0]),
            padding=True,
            padding_side=padding_side,
            **options,
        )

    @cached_property
    def visual(self) -> VisualTokens:
        """Counts the tokens that images add to a prompt."""
        return VisualTokens(self)

    def box_steps(self, image: Image.Image) -> Steps:
        """Into how many steps, across and down, boxes divide this image, if the notation leaves it open."""
        return image.size

    @property
    def image_states(self) -> int:
        """States of one image that the decoder attends to from outside the prompt, and caches."""
        return 0

    def given_images(self, images: Sequence[Sequence[Image.Image]]) -> list[Any]:
        """The images of each prompt in the form that the processor takes."""
        return [list(row) for row in images]

    def text_inputs(self, ids: Int[Tensor, "rows tokens"], mask: Int[Tensor, "rows tokens"]) -> dict[str, Tensor]:
        """The backbone's inputs for text without an image."""
        return {"input_ids": ids, "attention_mask": mask}

    def continuation_inputs(
        self, inputs: Mapping[str, Tensor], prompt: Any, rows: int, tokens: int
    ) -> dict[str, Tensor]:
        """What a forward after a cached prompt of one row needs besides the cache and ``(rows, tokens)`` ids."""
        return {}

    def moved(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Move a processor's tensors to the backbone; pixels take its dtype."""
        dtype = self.model.dtype
        return {
            name: value.to(self.device, dtype) if value.is_floating_point() else value.to(self.device)
            for name, value in outputs.items()
            if isinstance(value, Tensor) and name != "labels"
        }

    @property
    def _chat_template(self) -> Any:
        return getattr(self.processor, "chat_template", None)

    def _make_prompts(self, prompt_format: PromptFormat) -> PromptRenderer:
        if prompt_format.kind == "plain":
            return PlainPrompts(prompt_format, self.placeholder)
        if not self._chat_template:
            raise FormatError(
                f"{self.source!r} has no chat template.\nNext: use PromptFormat.plain({self.plain_template!r})."
            )
        return ChatPrompts(prompt_format, self._rendered, self.placeholder)

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """A conversation as the chat template writes it, without thoughts."""
        # A variable that a template does not use makes the processor warn.
        used = [name for name in _THOUGHTS if re.search(rf"\b{name}\b", str(self._chat_template))]
        options: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, **dict.fromkeys(used, False)}
        return str(self.processor.apply_chat_template(messages, tokenize=False, **options))

    def _layout(self) -> Layout:
        """Learn what the processor writes around an image."""
        found = written(self.tokenizer, self.image_ids, self.placeholder, self._ask)
        self.image_ids |= found.ids
        blank, prompt = Image.new("RGB", (64, 64)), self.placeholder
        told, untold = self._ask(prompt, blank), self._ask(prompt, blank, add_special_tokens=None)
        check_image_token(self.model.config, told["input_ids"][0].tolist(), self.image_ids, self.source)
        bare = told["input_ids"].tolist() == untold["input_ids"].tolist()
        return Layout(prompt, found.expansion, start=found.start, end=found.end, bare=bare)

    def _ask(self, text: str, image: Image.Image, add_special_tokens: bool | None = False) -> Any:
        """What the processor makes of a prompt with one image; None: it is not told about special tokens."""
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.processor(images=self.given_images([[image]]), text=[text], return_tensors="pt", **options)
