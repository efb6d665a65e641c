"""AIM SDK: any single-image multimodal LLM learns from k image+text demonstrations, with the backbone frozen.

These are the names for people who use AIM and for authors of projectors and selectors. Everything that backend authors
need is in [`aim_sdk.backend`][aim_sdk.backend]. Names are imported when they are first used: ``import aim_sdk`` loads
neither torch nor transformers.
"""

from typing import TYPE_CHECKING

from aim_sdk.support.lazy import lazy

if TYPE_CHECKING:
    from aim_sdk.backend.box import Box
    from aim_sdk.backend.injector import Injector
    from aim_sdk.backend.interfaces import Backend
    from aim_sdk.backend.reader import DemoReader
    from aim_sdk.backend.registry import BackendInfo, get_backend, list_backends
    from aim_sdk.bank import DemonstrationBank, DiskBank
    from aim_sdk.config import Fingerprint, ProjectorConfig, PromptFormat
    from aim_sdk.errors import AIMError
    from aim_sdk.files.downloads import fetch_image
    from aim_sdk.files.images import load_image
    from aim_sdk.injection.classification import Classification
    from aim_sdk.injection.shots import Shots
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.projectors import (
        AttentionProjector,
        CarrierProjector,
        LinearCarrierProjector,
        LinearNormProjector,
        LinearProjector,
        ResidualMLPProjector,
        ResidualProjector,
    )
    from aim_sdk.projectors.base import Projector
    from aim_sdk.projectors.batch import ReadingBatch
    from aim_sdk.selection.base import Selector
    from aim_sdk.selection.registry import get_selector
    from aim_sdk.types import AttentionMap, Demonstration, FusedTokens, Generation, Query, Reading

    __version__: str

__all__ = [
    "AIMError",
    "AIMPipeline",
    "AttentionMap",
    "AttentionProjector",
    "Backend",
    "BackendInfo",
    "Box",
    "CarrierProjector",
    "Classification",
    "DemoReader",
    "Demonstration",
    "DemonstrationBank",
    "DiskBank",
    "Fingerprint",
    "FusedTokens",
    "Generation",
    "Injector",
    "LinearCarrierProjector",
    "LinearNormProjector",
    "LinearProjector",
    "Projector",
    "ProjectorConfig",
    "PromptFormat",
    "Query",
    "Reading",
    "ReadingBatch",
    "ResidualMLPProjector",
    "ResidualProjector",
    "Selector",
    "Shots",
    "fetch_image",
    "get_backend",
    "get_selector",
    "list_backends",
    "load_image",
]

if not TYPE_CHECKING:  # a type checker that saw it would accept any attribute
    _named = lazy(
        __name__,
        {
            "backend.box": ["Box"],
            "backend.injector": ["Injector"],
            "backend.interfaces": ["Backend"],
            "backend.reader": ["DemoReader"],
            "backend.registry": ["BackendInfo", "get_backend", "list_backends"],
            "bank": ["DemonstrationBank", "DiskBank"],
            "config": ["Fingerprint", "ProjectorConfig", "PromptFormat"],
            "errors": ["AIMError"],
            "files.downloads": ["fetch_image"],
            "files.images": ["load_image"],
            "injection.classification": ["Classification"],
            "injection.shots": ["Shots"],
            "pipeline": ["AIMPipeline"],
            "projectors": [
                "AttentionProjector",
                "CarrierProjector",
                "LinearCarrierProjector",
                "LinearNormProjector",
                "LinearProjector",
                "Projector",
                "ReadingBatch",
                "ResidualMLPProjector",
                "ResidualProjector",
            ],
            "selection": ["Selector", "get_selector"],
            "types": ["AttentionMap", "Demonstration", "FusedTokens", "Generation", "Query", "Reading"],
        },
    )

    def __getattr__(name: str) -> object:
        if name != "__version__":
            return _named(name)
        from importlib.metadata import version

        return globals().setdefault(name, version("aim-icl"))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
