"""What stands in a file of JSON lines is untrusted: every line is an object or a message, and memory is bounded."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim_sdk.errors import InputError
from aim_sdk.files import json_lines as module
from aim_sdk.files.demonstrations import count_demonstrations, stream_demonstrations
from aim_sdk.files.json_lines import MAX_NESTING, count_lines, json_lines, parse_object

GOOD = b'{"image": "a.png", "text": "q", "answer": "a"}'


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    return list(json_lines(path, lambda _, raw: raw, lambda _, said: problems.append(said))), problems


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 100_000, "nested deeper than 64"),
        (b'{"a": ' * 70 + b"1" + b"}" * 70, "nested deeper than 64"),
        (b'{"note": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\ud83d": 1}', "half of a surrogate pair"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8 (byte 7)"),
        (b'{"a": "\xe4"}', "not UTF-8"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"17", "a JSON int; expected an object"),
        (b'{"a": 1', "not JSON"),
        (b"\0", "not JSON"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD)
    values, (problem,) = read(tmp_path / "x.jsonl")
    assert len(values) == 2
    assert problem.startswith(f"{tmp_path / 'x.jsonl'}:3: ")
    assert message in problem


def test_whole_surrogate_pairs_and_deep_enough_lines_are_read() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert parse_object(b'{"a": ' * MAX_NESTING + b"1" + b"}" * MAX_NESTING)
    assert len(parse_object(b'{"a": [' + b"[]," * 1000 + b"[]]}")["a"]) == 1001


def test_a_line_that_is_too_long_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b"\n")
        file.seek(200 << 20, os.SEEK_CUR)
        file.write(b"\n" + GOOD + b"\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values, (problem,) = read(path)
    assert len(values) == 2
    assert problem == f"{path}:2: longer than 8 MiB"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
    monkeypatch.setattr(module, "MAX_LINE", 50)
    path.write_bytes(b"\n".join([GOOD, b"x" * 50, b"x" * 51, b"x" * 52, b"x" * 53, b"x" * 300, GOOD, b"y" * 60]))
    values, problems = read(path)
    assert len(values) == 2
    assert [int(problem.removeprefix(f"{path}:").split(":")[0]) for problem in problems] == [2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'image,text,answer\na.png,q,"a"\n', "a table (CSV)"),
        (b'"image"\t"answer"\n', "a table (CSV)"),
        (b'[{"image": "a.png"}]', "a JSON list"),
        (b'[\n  {"image": "a.png"}\n]', "a JSON list"),
        (b'{\n  "image": "a.png"\n}', "JSON over several lines"),
        (GOOD.decode().encode("utf-16"), "UTF-16"),
        (GOOD.decode().encode("utf-16-le"), "UTF-16"),
        (GOOD.decode().encode("utf-32"), "UTF-32"),
        (b"\x1f\x8b\x08\x00" + b"x" * 50, "gzip"),
        (b"PK\x03\x04 zip", "zip"),
        (b"PAR1 parquet", "parquet"),
    ],
)
def test_another_format_is_named_once(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="expected JSON lines, one object per line; this is") as raised:
        read(tmp_path / "x")
    assert message in str(raised.value)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD)
    assert [value["answer"] for value in read(tmp_path / "x")[0]] == ["a", "a"]


def test_a_pipe_is_read_once_and_names_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    path = Path(f"/dev/fd/{reading}")
    threading.Thread(target=lambda: (os.write(writing, GOOD + b"\n" + GOOD), os.close(writing))).start()
    assert count_demonstrations(path) is None
    found = list(stream_demonstrations(path, on_problem=lambda text: pytest.fail(text)))
    assert [str(item.image) for item in found] == ["a.png", "a.png"]
    os.close(reading)
    (tmp_path / "x").write_bytes(GOOD + b"\n" + GOOD)
    assert count_lines(tmp_path / "x") == 2
    (item, _) = stream_demonstrations(tmp_path / "x", on_problem=lambda text: pytest.fail(text))
    assert item.image == str(tmp_path / "a.png")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/", "none", "a\0b", "\ud800"])
def test_what_is_no_file_is_an_error(path: str) -> None:
    with pytest.raises(InputError):
        read(Path(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINES = (
    st.binary(max_size=60)
    | VALUES.map(json.dumps).map(str.encode)
    | st.builds(
        lambda line, place, byte: line[: place % len(line)] + bytes([byte]) + line[place % len(line) :],
        st.dictionaries(st.sampled_from(["image", "text", "answer", "x"]), VALUES).map(json.dumps).map(str.encode),
        st.integers(0, 10**6),
        st.integers(0, 255),
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
@given(st.lists(LINES.filter(lambda line: b"\n" not in line), max_size=6))
def test_any_lines_become_objects_or_messages(tmp_path: Path, lines: list[bytes]) -> None:
    """Catches what is raised raw, a line that takes others with it, and values that cannot be written down."""
    path = tmp_path / "x"
    path.write_bytes(b"\n".join([GOOD, *lines, GOOD]))
    values, problems = read(path)
    assert len(values) + len(problems) == 2 + sum(bool(line.strip()) for line in lines)
    for value in values:
        assert json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode()) == value
    shown: list[str] = []
    found = list(stream_demonstrations(path, on_problem=shown.append))
    assert len(found) + len(shown) == len(values) + len(problems)


def test_folders_skip_hidden_ones_and_follow_links(tmp_path: Path) -> None:
    for name in ("a/1.jfif", ".ipynb_checkpoints/2.png", "elsewhere/3.AVIF"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", ".ipynb_checkpoints", "elsewhere"):
        (root / name).symlink_to(tmp_path / name)
    (root / "a" / "loop").symlink_to(root)
    (root / "elsewhere" / "3.txt").write_bytes("\ufeffa lynx\n".encode())
    found = list(stream_demonstrations(root, on_problem=lambda text: pytest.fail(text)))
    assert [(item.answer, Path(str(item.image)).name) for item in found] == [("a", "1.jfif"), ("a lynx", "3.AVIF")]


def test_a_name_that_is_not_utf8_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    for name in (b"bild\xe4.png", b"good.png"):
        place = os.path.join(os.fsencode(tmp_path), b"lynx")
        os.makedirs(place, exist_ok=True)
        Path(os.fsdecode(os.path.join(place, name))).write_bytes(b"")
    problems: list[str] = []
    (found,) = stream_demonstrations(tmp_path, on_problem=problems.append)
    assert str(found.image).endswith("good.png")
    assert "the name is not UTF-8" in problems[0]
