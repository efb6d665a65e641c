"""The tokenizer of a drafted model: bytes, and the special tokens that its processor's class names."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Collection, Iterator
from typing import Any, Final

from transformers import PreTrainedTokenizerFast, ProcessorMixin

from aim_sdk.testing.fresh import byte_level_tokenizer

_TOKEN = re.compile(r"<[^<>\s{}]{1,40}>|\[[A-Z_]{2,20}\]|\|[A-Z_]+\||TILE(?:_GLOBAL)?")
_ATTRIBUTE = re.compile(r"^(?!add_)(\w+_token)(?:_id)?$")
_NAME = re.compile(r"_TOKEN$|_token$")
_USUAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_for(processor: type[ProcessorMixin], more: Collection[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens that a processor's class writes or asks its tokenizer for."""
    strings, asked = _named(processor)
    spelled = {re.sub(r"\W", "", token) for token in strings}
    asked |= {f"{name}_token" for name in more if name not in spelled}
    names = {name: f"<|{name.removesuffix('_token')}|>" for name in asked if name not in _USUAL}
    usual = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>", "unk_token": "<|unk|>"}
    special = [*usual.values(), *sorted({*strings, *names.values()} - set(usual.values()))]
    return byte_level_tokenizer(special, **usual, **names)


def _named(processor: type[ProcessorMixin]) -> tuple[set[str], set[str]]:
    """The special tokens in a class's code, and the attributes that it takes for granted of its tokenizer."""
    strings, asked, guarded = set[str](), set[str](), set[str]()
    for node in _nodes(processor):
        match node:
            case ast.Constant(value=str(text)) if _TOKEN.fullmatch(text):
                strings.add(text)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))) if _NAME.search(name):
                strings.add(text)
            case ast.Attribute(value=ast.Name(id="tokenizer") | ast.Attribute(attr="tokenizer"), attr=name):
                asked.update(found[:1] if (found := _ATTRIBUTE.findall(name)) else ())
            case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                guarded.add(name.removesuffix("_id"))
            case _:
                pass
    return strings, asked - guarded


def _nodes(processor: type[Any]) -> Iterator[ast.AST]:
    for kind in processor.__mro__:
        if issubclass(kind, ProcessorMixin) and kind is not ProcessorMixin:
            yield from ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
