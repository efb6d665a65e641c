"""``aim-icl backends new`` and ``check``: names that would clash, and backends that are half finished."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import aim_sdk
from aim_sdk.backend.injector import Injector
from aim_sdk.cli import app
from aim_sdk.errors import BrokenBackendError, InputError, ModelNotFoundError
from aim_sdk.testing.new import new_backend
from tests.conformance.third_party.adapter import KiteBackend


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aim-frog", "expected 'frog' alone"),
        ("torch", "package 'torch' is installed"),
        ("test", "package 'test' is installed"),
        ("class", "a Python keyword"),
        ("sdk", "package 'aim_sdk' is installed"),
        ("backends", "package 'aim_backends' is installed"),
        ("icl", "distribution aim-icl"),
        ("llava", "is taken by"),
        ("My_VLM", "lower-case"),
    ],
)
def test_a_name_that_would_clash_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        new_backend(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made_where_it_is_none(tmp_path: Path) -> None:
    made = new_backend("frog", tmp_path / "new" / "sub")
    assert (made / "aim_frog" / "backend.py").is_file()
    with pytest.raises(InputError, match="a file is where"):
        new_backend("frog", made / "pyproject.toml")


class _Unfinished(KiteBackend):
    @classmethod
    def from_pretrained(cls, model: str | None = None, **options: Any) -> Any:
        return Injector()  # type: ignore[abstract]


class _BuiltIn(KiteBackend):
    @classmethod
    def from_pretrained(cls, model: str | None = None, **options: Any) -> Any:
        raise ModelNotFoundError("leave `model` out")


def test_a_backend_that_cannot_be_made_is_a_message_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_sdk.backend.registry.get_backend", lambda name: _Unfinished)
    found = CliRunner().invoke(app, ["backends", "check", "kite"])
    assert isinstance(found.exception, BrokenBackendError)
    message = str(found.exception)
    assert "TypeError: Can't instantiate abstract class Injector" in message
    assert f"{__file__}:" in message
    assert "in from_pretrained: return Injector()" in message


def test_a_tiny_model_that_a_backend_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("aim_sdk.backend.registry.get_backend", lambda name: _BuiltIn)
    monkeypatch.setattr("aim_sdk.testing.tiny.build", lambda variant, folder: tmp_path)
    found = CliRunner().invoke(app, ["backends", "check", "kite", "--tiny", "llava-1.5"])
    assert isinstance(found.exception, InputError)
    assert "'kite' cannot load the tiny random 'llava-1.5' model" in str(found.exception)
    assert "leave --tiny out" in str(found.exception)


def test_python_m_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["aim-icl", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("aim_sdk", run_name="__main__")
    assert capsys.readouterr().out.startswith("aim-icl ")


def test_an_author_imports_from_two_modules_alone() -> None:
    skeleton = Path(aim_sdk.__file__).parent / "testing" / "skeleton" / "aim_echo"
    found = {
        node.module
        for file in skeleton.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aim_sdk")
    }
    assert found <= {"aim_sdk", "aim_sdk.backend"}
