"""AIM SDK: any single-image multimodal LLM learns from k image+text demonstrations, with the backbone frozen.

Names are imported when they are first used: ``import aim_sdk`` loads neither torch nor transformers.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aim_sdk.backend.interfaces import Backend, DemoReader, Injector
    from aim_sdk.backend.registry import BackendInfo, get_backend, list_backends
    from aim_sdk.bank import DemonstrationBank
    from aim_sdk.config import Fingerprint, ProjectorConfig, PromptFormat
    from aim_sdk.errors import AIMError
    from aim_sdk.files.downloads import fetch_image
    from aim_sdk.files.images import load_image
    from aim_sdk.injection.classification import Classification
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
    from aim_sdk.projectors.base import Projector, ReadingBatch
    from aim_sdk.selection.builtin import Selector, get_selector
    from aim_sdk.types import AttentionMap, Demonstration, FusedTokens, Generation, Query, Reading

    __version__: str

__all__ = [
    "AIMError",
    "AIMPipeline",
    "AttentionMap",
    "AttentionProjector",
    "Backend",
    "BackendInfo",
    "CarrierProjector",
    "Classification",
    "DemoReader",
    "Demonstration",
    "DemonstrationBank",
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
    "fetch_image",
    "get_backend",
    "get_selector",
    "list_backends",
    "load_image",
]

_MODULES = {
    "bank": ["DemonstrationBank"],
    "classification": ["Classification"],
    "config": ["Fingerprint", "ProjectorConfig", "PromptFormat"],
    "downloads": ["fetch_image"],
    "errors": ["AIMError"],
    "images": ["load_image"],
    "interfaces": ["Backend", "DemoReader", "Injector", "Projector", "ReadingBatch"],
    "pipeline": ["AIMPipeline"],
    "projectors": [
        "AttentionProjector",
        "CarrierProjector",
        "LinearCarrierProjector",
        "LinearNormProjector",
        "LinearProjector",
        "ResidualMLPProjector",
        "ResidualProjector",
    ],
    "registry": ["BackendInfo", "get_backend", "list_backends"],
    "selection": ["Selector", "get_selector"],
    "types": ["AttentionMap", "Demonstration", "FusedTokens", "Generation", "Query", "Reading"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a type checker that saw it would accept any attribute

    def __getattr__(name: str) -> object:
        if name in _HOME:
            from importlib import import_module

            value = getattr(import_module(f"aim_sdk.{_HOME[name]}"), name)
        elif name == "__version__":
            from importlib.metadata import version

            value = version("aim-icl")
        else:
            from aim_sdk.errors import did_you_mean

            raise AttributeError(f"module 'aim_sdk' has no attribute {name!r}.{did_you_mean(name, __all__)}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
