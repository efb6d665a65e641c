"""What `import aim_sdk` costs and what it offers."""

import ast
import importlib
import importlib.metadata
import inspect
import statistics
import subprocess
import sys

import pytest

import aim_sdk
from aim_sdk import errors

HEAVY = [
    "aim_backends",
    "entrypoints",
    "jaxtyping",
    "matplotlib",
    "numpy",
    "packaging",
    "PIL",
    "pydantic",
    "rich",
    "torch",
    "transformers",
    "typer",
]


def fresh(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = fresh("import sys, aim_sdk; dir(aim_sdk); print(*sorted({name.split('.')[0] for name in sys.modules}))")
    assert not set(loaded.split()) & set(HEAVY)


def test_types_and_errors_load_no_framework() -> None:
    loaded = fresh("import sys; from aim_sdk import AIMError, Demonstration, Query, list_backends; print(*sys.modules)")
    assert not {"torch", "transformers", "numpy", "PIL"} & set(loaded.split())


def test_import_takes_under_100_ms() -> None:
    # processor time: on a busy machine the clock measures the neighbours
    code = "from time import process_time as now; start = now(); import aim_sdk; print(now() - start)"
    assert statistics.median(float(fresh(code)) for _ in range(7)) < 0.1


def test_all_is_sorted_and_resolves_to_the_public_objects() -> None:
    assert aim_sdk.__all__ == sorted(set(aim_sdk.__all__))
    for name in aim_sdk.__all__:
        value = getattr(aim_sdk, name)
        assert value.__name__ == name
        assert value.__module__.startswith("aim_sdk.")
        assert inspect.getdoc(value), name


def test_type_checkers_see_what_the_interpreter_sees() -> None:
    tree = ast.parse(inspect.getsource(aim_sdk))
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.name in aim_sdk.__all__
    }
    assert sorted(imported) == aim_sdk.__all__
    for name, module in imported.items():
        assert getattr(importlib.import_module(module), name) is getattr(aim_sdk, name)


def test_dir_offers_every_public_name() -> None:
    assert {*aim_sdk.__all__, "__version__"} <= set(dir(aim_sdk))


def test_an_unknown_attribute_suggests_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'AIMPipline'\. Did you mean 'AIMPipeline'"):
        aim_sdk.AIMPipline  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from aim_sdk import nothing_of_the_kind")


def test_submodules_can_still_be_imported_from_the_package() -> None:
    assert fresh("from aim_sdk import errors; print(errors.__name__)").strip() == "aim_sdk.errors"


def test_version_is_the_distribution_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(aim_sdk), "__version__", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", {"aim-icl": "1.2.3"}.__getitem__)
    assert aim_sdk.__version__ == "1.2.3"
    monkeypatch.delitem(vars(aim_sdk), "__version__")


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = {}
    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        names = [word for word in line.split() if word.isidentifier()][:2]
        if names and names[0] in vars(errors):
            drawn[names[0]] = names[1]
    classes = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}
    assert set(drawn) == set(classes)
    for name, builtin in drawn.items():
        assert issubclass(classes[name], getattr(__import__("builtins"), builtin)), name


@pytest.mark.parametrize("cls", [errors.UnknownBackendError, errors.ModelNotFoundError, errors.ImageError])
def test_an_error_prints_its_message_as_written(cls: type[errors.AIMError]) -> None:
    assert str(cls("two\nlines")) == "two\nlines"
