"""The package for backend authors: everything that they implement, and everything that they may call.

* Implement: [`Backend`][aim_sdk.backend.interfaces.Backend], [`DemoReader`][aim_sdk.backend.reader.DemoReader] and
  [`Injector`][aim_sdk.backend.injector.Injector].
* Implement if possible: the Protocols of [`aim_sdk.backend.capabilities`][aim_sdk.backend.capabilities].
* Call: `clean_answer` and `stream_answer` (stop strings), `AnswerGrammar` (constraints), `MarkedBoxes` and
  `JsonBoxes` (boxes), `resolve_device` and `resolve_dtype`, `tensor_hash` and `rms` (fingerprints), `side_by_side`
  (layers), `PrefixCache` (repeated contexts), `load_image`, errors and values.
* Register: an entry point of the group ``aim_sdk.backends``; `get_backend` finds it.

Names are imported when they are first used: listing backends loads no torch.
"""

from typing import TYPE_CHECKING

from aim_sdk.support.lazy import lazy

if TYPE_CHECKING:
    from aim_sdk.backend.answers import clean_answer, stream_answer
    from aim_sdk.backend.box import Box
    from aim_sdk.backend.boxes import JsonBoxes, MarkedBoxes, Notation
    from aim_sdk.backend.capabilities import (
        CAPABILITIES,
        AnswersPlainly,
        Capability,
        ConstrainsAnswers,
        ForeseesCost,
        HasVocabulary,
        Interleaves,
        MarksSlots,
        ReadsLayers,
        RecomputesActivations,
        ReusesPrefixes,
        RunsInTorch,
        Shards,
        ShowsAttention,
        ShowsPrompts,
        Trainable,
        WritesBoxes,
        capability,
        find,
    )
    from aim_sdk.backend.constraints import Constraint, JsonSchema, OneOf
    from aim_sdk.backend.devices import resolve_device, resolve_dtype
    from aim_sdk.backend.footprint import Footprint, ModelSizes
    from aim_sdk.backend.grammar import AnswerGrammar, token_bytes
    from aim_sdk.backend.hashing import rms, tensor_hash
    from aim_sdk.backend.injector import Injector
    from aim_sdk.backend.interfaces import Backend
    from aim_sdk.backend.prefixes import PrefixCache, SharedPrefix
    from aim_sdk.backend.prepared import AnswerLogits, PreparedAnswers, PreparedReadings
    from aim_sdk.backend.reader import DemoReader
    from aim_sdk.backend.registry import BACKENDS, BackendInfo, get_backend, list_backends
    from aim_sdk.config import Fingerprint, PromptFormat
    from aim_sdk.errors import (
        CapabilityError,
        ContextLengthError,
        CutAnswerError,
        FormatError,
        InputError,
        ModelNotFoundError,
        UnsupportedModelError,
    )
    from aim_sdk.files.images import load_image
    from aim_sdk.layers import LAST, only_last, side_by_side
    from aim_sdk.projectors import CarrierProjector, LinearProjector, Projector, untrained
    from aim_sdk.support.provenance import versions
    from aim_sdk.types import (
        AttentionMap,
        ChoiceScores,
        Context,
        Demonstration,
        FusedTokens,
        Generation,
        ImageInput,
        Query,
        Reading,
        Vocabulary,
    )

__all__ = [
    "BACKENDS",
    "CAPABILITIES",
    "LAST",
    "AnswerGrammar",
    "AnswerLogits",
    "AnswersPlainly",
    "AttentionMap",
    "Backend",
    "BackendInfo",
    "Box",
    "Capability",
    "CapabilityError",
    "CarrierProjector",
    "ChoiceScores",
    "ConstrainsAnswers",
    "Constraint",
    "Context",
    "ContextLengthError",
    "CutAnswerError",
    "DemoReader",
    "Demonstration",
    "Fingerprint",
    "Footprint",
    "ForeseesCost",
    "FormatError",
    "FusedTokens",
    "Generation",
    "HasVocabulary",
    "ImageInput",
    "Injector",
    "InputError",
    "Interleaves",
    "JsonBoxes",
    "JsonSchema",
    "LinearProjector",
    "MarkedBoxes",
    "MarksSlots",
    "ModelNotFoundError",
    "ModelSizes",
    "Notation",
    "OneOf",
    "PlainBoxes",
    "PrefixCache",
    "PreparedAnswers",
    "PreparedReadings",
    "Projector",
    "PromptFormat",
    "Query",
    "Reading",
    "ReadsLayers",
    "RecomputesActivations",
    "ReusesPrefixes",
    "RunsInTorch",
    "Shards",
    "SharedPrefix",
    "ShowsAttention",
    "ShowsPrompts",
    "Trainable",
    "UnsupportedModelError",
    "Vocabulary",
    "WritesBoxes",
    "capability",
    "clean_answer",
    "find",
    "get_backend",
    "list_backends",
    "load_image",
    "only_last",
    "resolve_device",
    "resolve_dtype",
    "rms",
    "side_by_side",
    "stream_answer",
    "tensor_hash",
    "token_bytes",
    "untrained",
    "versions",
]

if not TYPE_CHECKING:
    __getattr__ = lazy(
        __name__,
        {
            "answers": ["clean_answer", "stream_answer"],
            "capabilities": [
                "CAPABILITIES",
                "AnswersPlainly",
                "Capability",
                "ForeseesCost",
                "ConstrainsAnswers",
                "HasVocabulary",
                "Interleaves",
                "MarksSlots",
                "ReadsLayers",
                "RecomputesActivations",
                "ReusesPrefixes",
                "RunsInTorch",
                "Shards",
                "ShowsAttention",
                "ShowsPrompts",
                "Trainable",
                "WritesBoxes",
                "capability",
                "find",
            ],
            "box": ["Box"],
            "boxes": ["JsonBoxes", "MarkedBoxes", "Notation"],
            "plain_boxes": ["PlainBoxes"],
            "constraints": ["Constraint", "JsonSchema", "OneOf"],
            "devices": ["resolve_device", "resolve_dtype"],
            "footprint": ["Footprint", "ModelSizes"],
            "grammar": ["AnswerGrammar", "token_bytes"],
            "hashing": ["rms", "tensor_hash"],
            "injector": ["Injector"],
            "interfaces": ["Backend"],
            "prepared": ["AnswerLogits", "PreparedAnswers", "PreparedReadings"],
            "reader": ["DemoReader"],
            "prefixes": ["PrefixCache", "SharedPrefix"],
            "registry": ["BACKENDS", "BackendInfo", "get_backend", "list_backends"],
            ".config": ["Fingerprint", "PromptFormat"],
            ".errors": [
                "CapabilityError",
                "ContextLengthError",
                "CutAnswerError",
                "FormatError",
                "InputError",
                "ModelNotFoundError",
                "UnsupportedModelError",
            ],
            ".files.images": ["load_image"],
            ".layers": ["LAST", "only_last", "side_by_side"],
            ".projectors": ["CarrierProjector", "LinearProjector", "Projector", "untrained"],
            ".support.provenance": ["versions"],
            ".types": [
                "AttentionMap",
                "ChoiceScores",
                "Context",
                "Demonstration",
                "FusedTokens",
                "Generation",
                "ImageInput",
                "Query",
                "Reading",
                "Vocabulary",
            ],
        },
    )
