"""Prompts as a vLLM server takes them: texts, images and fused tokens as parts of one message, written out whole."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from aim_backends.hf.backbone import Backbone
from aim_backends.hf.writing import PromptWriter
from aim_sdk.config import PromptFormat
from aim_sdk.errors import FormatError, InputError, UnsupportedModelError
from aim_sdk.files.images import load_image
from aim_sdk.types import Context, Demonstration, FusedTokens, Query

PLACE: Final = "<prompt_embeds>"
"""The token that the server adds to its tokenizer, where embeddings stand. It refuses it in a text."""


@dataclass(frozen=True)
class ServerPrompt:
    """One prompt: what is sent, and the tokens that the server has to make of it."""

    body: dict[str, Any]
    ids: tuple[int, ...]
    """Visual tokens too; each fused token is `PLACE`."""
    text: str
    """Of the whole prompt, without fused tokens."""

    def asked(self, **options: Any) -> ServerPrompt:
        """The same prompt with more fields of the request."""
        return replace(self, body=self.body | options)


class ServerPrompts:
    """Writes prompts for a server that runs the same checkpoint.

    The server's own chat template would put fused tokens inside the query's turn. So each request brings a template
    that writes its parts as they are, and the prompt is the one that the transformers backend writes.

    Args:
        backbone: the checkpoint's configuration and processor; weights are not needed.
        limit: positions that the server takes.

    Raises:
        UnsupportedModelError: the embeddings have no row that the server could use as `PLACE`.
    """

    def __init__(self, backbone: Backbone, limit: int | None = None) -> None:
        self.backbone, self.writer = backbone, PromptWriter(backbone, limit)
        self._tokenizer = copy.deepcopy(backbone.tokenizer)
        self._tokenizer.add_special_tokens({"additional_special_tokens": [PLACE]}, replace_extra_special_tokens=False)
        self.place: int = self._tokenizer.convert_tokens_to_ids(PLACE)
        if self.place >= backbone.rows:
            raise UnsupportedModelError(
                f"{backbone.source}: the embeddings have {backbone.rows:,} rows, as many as tokens; a vLLM server "
                f"needs one more for {PLACE}.\n"
                "Next: the transformers backend, or a checkpoint whose embeddings were resized by one row."
            )
        image = json.dumps(backbone.placeholder)
        self._template = (
            "{%- for message in messages -%}{%- for part in message['content'] -%}"
            "{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- else -%}{{- " + image + " -}}{%- endif -%}"
            "{%- endfor -%}{%- endfor -%}"
        )

    def write(
        self, queries: Sequence[Query], contexts: Sequence[Context], prompt_format: PromptFormat, max_new_tokens: int
    ) -> list[ServerPrompt]:
        """Write one batch of prompts.

        Raises:
            ContextLengthError: a prompt is too long; its ``query`` is the place.
            InputError: a query or a context cannot be used; its ``query`` is the place.
        """
        prepared = self.writer.prepare(queries, contexts, prompt_format=prompt_format, max_new_tokens=max_new_tokens)
        ids, masks = prepared.inputs["input_ids"].tolist(), prepared.inputs["attention_mask"].tolist()
        prefix, made = self.backbone.prompts(prompt_format).prefix, []
        for place, (query, context, text) in enumerate(zip(queries, contexts, prepared.texts, strict=True)):
            row = [index for index, kept in zip(ids[place], masks[place], strict=True) if kept]
            fused = [item.embeddings for item in context if isinstance(item, FusedTokens) and len(item)]
            shown = [item for item in context if isinstance(item, Demonstration)]
            head, start = prepared.heads[place], sum(map(len, fused))
            row[head : head + start] = [self.place] * start
            images = [load_image(source) for source in (*(item.image for item in shown), query.image)]
            try:
                made.append(self._prompt(prefix, text, fused, images, row, head))
            except InputError as error:
                error.query = place
                raise
        return made

    def answered(
        self, prompt: ServerPrompt, query: Query, context: Context, answers: Sequence[str], prompt_format: PromptFormat
    ) -> list[ServerPrompt]:
        """A query's prompt with each answer after it.

        Raises:
            ContextLengthError: one is too long.
            InputError: one is blank, or cannot be used.
        """
        made = [self._answered(prompt, query.text, answer, prompt_format) for answer in answers]
        longest = max((len(one.ids) for one in made), default=0) - len(prompt.ids)
        self.writer.check_length([len(prompt.ids)], [query], [context], prompt_format, longest + 1)
        return made

    def _answered(self, prompt: ServerPrompt, text: str, answer: str, prompt_format: PromptFormat) -> ServerPrompt:
        if not answer.strip():
            raise InputError("score: a choice is blank; it has no tokens to score.")
        _check_place(answer)
        backbone = self.backbone
        backbone.check_text([answer])
        own, _ = backbone.prompts(prompt_format).answer(text, answer)
        ids = backbone.tokens.continuation(prompt.text, own)
        backbone.roles.check_answer(answer, own[: len(own) - len(answer.strip())], "", ids)
        (message,) = prompt.body["messages"]
        messages = [{**message, "content": [*message["content"], _text(own)]}]
        return ServerPrompt({**prompt.body, "messages": messages}, (*prompt.ids, *ids), prompt.text + own)

    def _prompt(
        self,
        prefix: str,
        text: str,
        fused: Sequence[Float[Tensor, "tokens embed"]],
        images: Sequence[Image.Image],
        ids: Sequence[int],
        place: int,
    ) -> ServerPrompt:
        _check_place(text)
        rest = text.removeprefix(prefix)
        head, rest = self._written(prefix, rest, place if fused else None)
        before, *after = rest.split(self.backbone.placeholder)
        content = [_text(head), *map(_embeddings, fused), _text(before)]
        for image, following in zip(images, after, strict=True):
            content += [_image(image), _text(following)]
        sent = [part for part in content if part.get("text") != ""]
        body = {"messages": [{"role": "user", "content": sent}], "chat_template": self._template}
        return ServerPrompt(body, tuple(ids), text)

    def _written(self, prefix: str, rest: str, place: int | None) -> tuple[str, str]:
        """What stands before and after the fused tokens, so that the server makes the prompt's tokens of it.

        ``place`` is how many tokens stand before them, if there are some. The server puts no BOS before a prompt, which
        is written out here. Some tokenizers put a blank before the first word of a prompt, but not after a special
        token: then it is written out, too. A blank at the prefix's end may be part of the token that follows it.

        Raises:
            FormatError: there is no way to write it.
        """
        wanted, special = self._tokens(prefix + rest, special=self.backbone.tokens.adds_special(prefix + rest)), ""
        if wanted[:1] == [self._tokenizer.bos_token_id] and not (prefix + rest).startswith(self._tokenizer.bos_token):
            special = self._tokenizer.bos_token
        mark = "" if place is None else PLACE
        for first, second, end in product(("", " "), ("", " "), ("", " ")):
            head = special + (first + prefix.removesuffix(end) if prefix else "")
            tail = second + rest
            found = self._tokens(head + mark + tail, special=False)
            there = place is None or found[place : place + 1] == [self.place]
            if there and [index for index in found if index != self.place] == wanted:
                return head, tail
        raise FormatError(
            f"the tokenizer of {self.backbone.source} writes this prompt differently "
            f"{'after a written BOS' if place is None else 'after fused tokens'}: {(prefix + rest)[:60]!r}.\n"
            "Next: the chat format, or a plain format whose text begins with a line break or a role."
        )

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return found


def _check_place(text: str) -> None:
    if PLACE in text:
        raise FormatError(f"a text holds {PLACE!r}, which a vLLM server takes for embeddings; remove it.")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: Image.Image) -> dict[str, Any]:
    image.save(file := io.BytesIO(), "PNG", compress_level=1)
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_base64(file)}"}}


def _embeddings(fused: Float[Tensor, "tokens embed"]) -> dict[str, Any]:
    """One part for each demonstration: the same bytes each time, which the server's prefix cache goes by."""
    torch.save(fused.detach().cpu().contiguous().clone(), file := io.BytesIO())
    return {"type": "prompt_embeds", "data": _base64(file)}


def _base64(file: io.BytesIO) -> str:
    return base64.b64encode(file.getvalue()).decode()
