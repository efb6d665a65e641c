"""A YAML file becomes settings, or an InputError: quickly, in bounded memory, and without running anything."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from aim_sdk.errors import InputError
from aim_sdk.files.yaml_files import MAX_BYTES, read_yaml


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = 1
    name: str = ""
    anything: Any = None


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def read(path: Path, content: str | bytes) -> Settings:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return read_yaml(path, Settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "aliases are not accepted"),
        ("anything: &a [*a]", "aliases are not accepted"),
        ("anything: !!python/object/apply:os.system ['true']", "tags are not accepted"),
        ("anything: !!binary aGk=", "tags are not accepted"),
        ("anything: " + "[" * 100_000, "nested deeper than 32"),
        ("anything:\n" + "".join(" " * n + "a:\n" for n in range(1, 300)), "nested deeper than 32"),
        ("anything: " + "- " * 1000 + "x", "cannot be read as YAML"),
        ("name: " + "x" * MAX_BYTES, "larger than 256 KiB"),
        ("steps: " + "9" * 5000, "a number of more than 100 digits"),
        ("name: 0x" + "f" * 9000, "a number of more than 100 digits"),
        ("anything: 2001-99-99", "cannot be read as YAML"),
        ('name: "\\ud800"', "half of a surrogate pair"),
        ('name: "a\\0b"', "a NUL"),
        (b"\xff\xfes\0t\0", "cannot be read as YAML"),
        (b"name: \xe4", "cannot be read as YAML"),
        ("- 1", "expected settings by name"),
        ("{[1]: 2}", "cannot be read as YAML"),
        ("1: 2", "1"),
    ],
)
def test_hostile_settings_are_an_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError) as raised:
        read(tmp_path / "x.yaml", content)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 2000
    assert time.monotonic() - started < 5


def test_a_device_or_folder_is_an_error_and_a_mark_is_passed_over(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError):
            read_yaml(path, Settings)
    assert read(tmp_path / "x.yaml", "\ufeffsteps: 3").steps == 3
    with pytest.raises(InputError, match="aliases are not accepted"):
        read_yaml(tmp_path / "x.yaml", Settings, ["name=*a"])


def test_numbers_in_base_60_take_no_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError):
        read(tmp_path / "x.yaml", "name: " + "1:" * (MAX_BYTES // 2 - 10) + "1")
    assert time.monotonic() - started < 5


TEXTS = ["a", "steps", "name", "1", "1.5e3", ": ", "- ", "---\n", "<<: ", "&a ", "*a", "!!int ", "!x ", "0o9"]
ODD = ["2001-01-01", "\\ud800", "\ud800", "\ufeff", "null", "~", ".inf", "1:2", "\n  "]
PIECES = st.sampled_from([*"[]{}:,-?&*!|>'\"%@`# \n\t\0", *TEXTS, *ODD])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join) | st.binary(max_size=40))
@example("? a\n")
@example("[")
def test_any_content_becomes_settings_or_an_error(tmp_path: Path, content: str | bytes) -> None:
    try:
        found = read(tmp_path / "x.yaml", content)
    except InputError:
        return
    assert isinstance(found, Settings)
    assert os.path.exists(tmp_path / "x.yaml")
