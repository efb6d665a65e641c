"""A tiny backbone of each family, as a backend and as the plain model of transformers to compare it with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor

from aim_backends.families.table import FAMILIES
from aim_backends.hf import TransformersBackend
from aim_sdk import Demonstration, FusedTokens, PromptFormat, Query
from aim_sdk.testing.samples import picture

QUICK = frozenset(
    {"llava-1.5", "llava-next", "qwen2.5-vl", "qwen3-vl", "idefics", "idefics3", "gemma3", "mllama", "paligemma"}
    | {"kosmos-2", "blip-2", "fuyu"}
)
"""What the default run tests: each way in which families differ, once. The others are marked slow, and run in CI."""

_ENDED = "its processor ends every prompt with a token of its own, which a plain template has not before an answer"
_NO_IMAGE_TOKENS = "its head leaves image tokens out: a softmax over the others"
_QFORMER = "its Q-Former reads a demonstration's text where it is written, not where it is injected"
_THOUGHT = "its template opens the answer to a query with an empty thought"
EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "llama4": {"identity_beams": FAMILIES["llama4"].note, "options_are_used": FAMILIES["llama4"].note},
    "llava-next": {"identity_behind_text": "its tokenizer puts a blank after an image, which no text without one has"},
    "llava-onevision": {"reading_is_scored_in_chat": "its template writes a blank before a shown answer alone"},
    "qwen3.5": {"reading_is_scored_in_chat": _THOUGHT},
    "qwen3.5-moe": {"reading_is_scored_in_chat": _THOUGHT},
    "hyperclovax-vision-v2": {"reading_is_scored_in_chat": _THOUGHT},
    "minicpmv4.6": {"reading_is_scored_in_chat": _THOUGHT},
    "minicpmv4.7": {"reading_is_scored_in_chat": _THOUGHT},
    "step3p7": {"reading_is_scored_in_chat": "its template opens the answer to a query with a thought"},
    "qwen4-exp": {"reading_is_scored_in_chat": _THOUGHT},
    "ernie4.5-vl-moe": {"reading_is_scored_in_chat": _THOUGHT},
    "chameleon": dict.fromkeys(("reading_is_scored", "reading_is_scored_in_chat"), _NO_IMAGE_TOKENS),
    "mllama": {
        "image_position": "where its mask shows no image, a token attends to all",
        "answer_logits_batch": "the same: a token before its row's images attends to all places of the batch's most",
    },
    "fuyu": {
        "reading_is_scored": _ENDED,
        "score_is_generate": "its tokenizer puts a blank before each text, so before a scored answer too",
    },
    "paligemma": {"reading_is_scored": _ENDED},
    "kosmos-2": {
        **dict.fromkeys(
            (f"identity_{name}" for name in ("forward", "behind_text", "generate", "batch", "beams")),
            "its processor strips the blanks round a text: no string repeats its demonstrations (identity_chat writes "
            "ids)",
        ),
        "large_batch": "a bug: in a batch its positions count the padding from the second new token on",
    },
    "instructblip": {
        "identity_forward": _QFORMER,
        "identity_behind_text": _QFORMER,
        "reading_is_scored": "its Q-Former reads the whole demonstration, its answer too",
        "reading_is_scored_in_chat": "its Q-Former reads the whole demonstration, its answer too",
        "identity_batch": _QFORMER,
        "identity_beams": _QFORMER,
        "reading_before_the_answer": "its Q-Former reads the whole demonstration, its answer too",
    },
}
"""What a family's tiny model fails of the public kit, by construction."""

IMAGE_FIRST = ("paligemma", "kosmos-2", "blip-2", "instructblip", "fuyu")
"""The prompt begins with its one image, wherever the format puts it."""
ENDS = {"chameleon": "<reserved08706>", "paligemma": "\n", "fuyu": "<0x04>"}
"""What a processor writes after every prompt."""
MARKS = {**dict.fromkeys(("kosmos-2", "blip-2", "instructblip", "fuyu"), ""), "got-ocr2": "<img><imgpad></img>"}
"""What a user writes for an image, where it is not the processor's image token alone."""
OPENS = {**dict.fromkeys(("muse-glimmer", "muse-spark"), " to=user<|message|>"), "minimax-m3-vl": "</mm:think>"}
"""What a template writes before a shown answer, and leaves to the model before another."""
THOUGHTS = {
    "kimi-k2.5": ("thinking",),
    "nemotron-h-omni": ("enable_thinking",),
    "glm5-next": ("enable_thinking",),
    "cosmos3-edge": ("enable_thinking",),
    "hyperclovax-vision-v2": ("thinking",),
}
"""What switches a thought off that a template opens unless it is told not to."""
TYPED = ("cosmos3-edge",)
"""A processor that tells which tokens stand for an image only if it is asked, and a model that needs it."""

LINE_ENDS = "its processor puts line ends round an image, which merge with their neighbours as one string"
SPARSE = "a model without weights cannot choose the places that its sparse attention sees"
ONE_IMAGE = {
    "test_interleaved_demonstrations_are_the_processors_own_prompt": "it takes one image per prompt",
    "test_a_batch_may_mix_fused_interleaved_and_no_demonstrations": "it takes one image per prompt",
    "test_text_before_the_image_has_not_seen_it": "no text stands before the image",
}
SKIPS: dict[tuple[str, str], str] = {
    ("emu3", "test_it_is_the_plain_models_attention"): "the plain model sees what smaller images are padded with",
    ("step3p7", "test_kv_bytes_are_those_of_a_real_cache"): "its experts look into numbers, not at shapes alone",
    ("llama4", "test_true_embeddings_give_the_plain_answers[llama4-3]"): FAMILIES["llama4"].note,
    ("gemma3", "test_per_token_tensors_are_the_processors_own"): LINE_ENDS,
    ("gemma3n", "test_per_token_tensors_are_the_processors_own"): LINE_ENDS,
    ("fuyu", "test_per_token_tensors_are_the_processors_own"): "its tokenizer puts a blank before each text",
    ("kosmos-2", "test_per_token_tensors_are_the_processors_own"): "its processor strips the blanks round a text",
    ("instructblip", "test_per_token_tensors_are_the_processors_own"): "its Q-Former reads demonstrations in a string",
    ("mllama", "test_text_before_the_image_has_not_seen_it"): "where its mask shows no image, a token attends to all",
    ("mllama", "test_a_system_text_stands_before_the_demonstrations"): "its template refuses one beside an image",
    **dict.fromkeys(
        (
            ("hyperclovax-vision-v2", "test_the_pieces_give_the_templates_own_conversation"),
            ("hyperclovax-vision-v2", "test_interleaved_demonstrations_are_the_processors_own_prompt"),
            ("ernie4.5-vl-moe", "test_the_pieces_give_the_templates_own_conversation"),
            ("ernie4.5-vl-moe", "test_interleaved_demonstrations_are_the_processors_own_prompt"),
        ),
        "its template numbers the images of a conversation: a piece's image is the first one, wherever it stands",
    ),
    (
        "perception-lm",
        "test_interleaved_demonstrations_are_the_processors_own_prompt",
    ): "its processor makes no tensor of images with unequal tiles",
    **{(variant, "test_kv_bytes_are_those_of_a_real_cache"): SPARSE for variant in ("qwen4-exp", "glm5-next")},
    **{(variant, test): reason for variant in IMAGE_FIRST for test, reason in ONE_IMAGE.items()},
}
"""What a family cannot do by construction: (variant, test) -> why."""


DEMONSTRATIONS = (
    Demonstration(picture(40, 50, 0), "What colour is it?", "red"),
    Demonstration(picture(64, 40, 90), "Which animal is this? A lynx, or a fox?", "It is a lynx."),
    Demonstration(picture(30, 30, 180), "", "a black cat"),
)
QUERIES = (
    Query(picture(50, 50, 45), "What is this?"),
    Query(picture(64, 32, 20), "How many people are in the picture, and what are they doing there?"),
    Query(picture(32, 64, 70), "And this?"),
)


def _messages(turns: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for text, answer in turns:
        messages.append({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]})
        if answer is not None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


@dataclass(frozen=True)
class Family:
    """One tiny backbone."""

    variant: str
    folder: Path
    backend: TransformersBackend
    plain: Any
    """The same weights without a hook."""

    @property
    def form(self) -> PromptFormat:
        return self.backend.default_format

    @cached_property
    def processor(self) -> Any:
        return AutoProcessor.from_pretrained(self.folder)

    def rendered(self, messages: Sequence[dict[str, Any]]) -> str:
        """A conversation up to the place of its answer, without a thought."""
        thoughts = dict.fromkeys(THOUGHTS.get(self.variant, ()), False)
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **thoughts)
        return f"{text}{OPENS.get(self.variant, '')}"

    def native(self, query: Query, shots: Sequence[Demonstration] = ()) -> dict[str, Tensor]:
        """A prompt as a user of transformers would have it written, without this SDK."""
        images = [*(d.image for d in shots), query.image]
        turns: list[tuple[str, str | None]] = [*((d.text, d.answer) for d in shots), (query.text, None)]
        if self.form.kind == "chat":
            text = self.rendered(_messages(turns))
            special = not text.startswith(self.processor.tokenizer.bos_token or "\0")
            options = {"return_mm_token_type_ids": True} if self.variant in TYPED else {}
            inputs = self.processor(
                images=[images], text=[text], add_special_tokens=special, return_tensors="pt", **options
            )
            return inputs.to(torch.float32)  # Llama 4's pixels are bf16
        if self.variant == "idefics":
            row: list[Any] = ["User:"]
            for image, (text, answer) in zip(images, turns, strict=True):
                row += [image, f"{text}\nAssistant:" if answer is None else f"{text}\nAssistant: {answer}\nUser:"]
            return self.processor(text=[row], return_tensors="pt")
        asked, lead, end = self.form.pieces()
        mark = MARKS.get(self.variant, getattr(self.processor, "image_token", ""))
        text = (self.form.system or "") + "".join(
            asked.format(image=mark, text=text) + ("" if answer is None else lead + answer + end)
            for text, answer in turns
        )
        text = text.removesuffix(ENDS.get(self.variant, ""))
        given = images if self.variant == "got-ocr2" else [images]
        inputs = self.processor(images=given, text=[text], return_tensors="pt")
        inputs.pop("labels", None)  # PaliGemma's, which nobody asked for
        return inputs

    def text_only(self, *places: int) -> list[FusedTokens]:
        chosen = [DEMONSTRATIONS[place] for place in places]
        return self.backend.reader.text_only(chosen, prompt_format=self.form)

    def true_inputs(self, prepared: Any, contexts: list[list[int]]) -> dict[str, Tensor]:
        """Inputs for the plain model: the true ids of the demonstrations' texts where the slots are."""
        readings = self.backend.reader.read(DEMONSTRATIONS, prompt_format=self.form)
        inputs = {**prepared.inputs, "input_ids": prepared.inputs["input_ids"].clone()}
        for row, places in zip(inputs["input_ids"], contexts, strict=True):
            if places:
                row[row == self.backend.slot] = torch.cat([readings[place].token_ids for place in places])
        return inputs
