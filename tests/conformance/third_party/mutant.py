"""Kite with one bug in it."""

from typing import Any

from aim_sdk import load_image
from tests.conformance.third_party.adapter import KiteBackend, KiteInjector, KiteReader, Template
from tests.conformance.third_party.model import KiteModel

Part = type[KiteModel] | type[Template] | type[KiteReader] | type[KiteInjector] | type[KiteBackend]


def square(image: Any) -> Any:
    return load_image(image).resize((48, 48))


def mutant(bug: Part) -> KiteBackend:
    """Kite with one part replaced."""
    parts = {
        "model_class": KiteModel,
        "template_class": Template,
        "reader_class": KiteReader,
        "injector_class": KiteInjector,
    }
    replaced = {name: bug for name, part in parts.items() if issubclass(bug, part)}
    made: KiteBackend = (type("Mutant", (KiteBackend,), replaced) if replaced else bug)()
    return made
