"""The package for backend authors: everything that they implement, and everything that they may call.

* Implement: [`Backend`][aim_sdk.backend.interfaces.Backend], [`DemoReader`][aim_sdk.backend.reader.DemoReader] and
  [`Injector`][aim_sdk.backend.injector.Injector].
* Implement if possible: the Protocols of [`aim_sdk.backend.capabilities`][aim_sdk.backend.capabilities].
* Call: `clean_answer` and `stream_answer` (stop strings), `resolve_device` and `resolve_dtype`, `tensor_hash` and `rms`
  (fingerprints), `side_by_side` (layers), `PrefixCache` (repeated contexts), `load_image`, errors and values.
* Register: an entry point of the group ``aim_sdk.backends``; `get_backend` finds it.

Names are imported when they are first used: listing backends loads no torch.
"""

from typing import TYPE_CHECKING

from aim_sdk.support.lazy import lazy

if TYPE_CHECKING:
    from aim_sdk.backend.answers import clean_answer, stream_answer
    from aim_sdk.backend.capabilities import (
        CAPABILITIES,
        AnswersPlainly,
        Capability,
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
        capability,
        find,
    )
    from aim_sdk.backend.devices import resolve_device, resolve_dtype
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
    "AnswerLogits",
    "AnswersPlainly",
    "AttentionMap",
    "Backend",
    "BackendInfo",
    "Capability",
    "CapabilityError",
    "CarrierProjector",
    "ChoiceScores",
    "Context",
    "ContextLengthError",
    "DemoReader",
    "Demonstration",
    "Fingerprint",
    "FormatError",
    "FusedTokens",
    "Generation",
    "HasVocabulary",
    "ImageInput",
    "Injector",
    "InputError",
    "Interleaves",
    "LinearProjector",
    "MarksSlots",
    "ModelNotFoundError",
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
                "capability",
                "find",
            ],
            "devices": ["resolve_device", "resolve_dtype"],
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
