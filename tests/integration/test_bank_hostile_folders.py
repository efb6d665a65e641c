"""Folders that a stranger made, every checksum right: what is wrong is named, and nothing of the user's is touched."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.bank.disk.rows import summed
from aim_sdk.errors import AIMError
from aim_sdk.types import Query
from tests.bank_attacks import IMAGE, item
from tests.bank_mutations import encoded, mutations, pairs
from tests.banks import CountingEncoder, open_bank


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with a compaction, later writes of every kind, and its index in one file."""
    path = tmp_path_factory.mktemp("victim") / "bank"
    with open_bank(CountingEncoder(), path, keep_readings=True) as bank:
        bank.add([item("a"), item("b")])
        bank.compact()
        bank.add([item("c"), item("d")])
        bank.tag(next(iter(bank)), label="x")
        bank.remove(list(bank)[1])
    return path


def use(path: Path, folder: Path) -> None:
    """Do everything with a bank; what is refused is refused by name."""
    every: list[Callable[[DemonstrationBank], object]] = [
        lambda bank: [(entry.demonstration, entry.fused.embeddings.sum()) for entry in bank.values()],
        lambda bank: [bank._store.reading(key) for key in bank],
        lambda bank: bank.matching({"label": {"x"}}),
        lambda bank: bank.view().own(Query(IMAGE, "t", id="1")),
        lambda bank: bank.view().features("reading"),
        lambda bank: bank.stats(),
        lambda bank: bank.verify(),
        lambda bank: bank.add([item("more")]),
        lambda bank: bank.tag(list(bank)[-1], label="x"),
        lambda bank: bank.export(folder / "out.aim"),
        lambda bank: bank.remove(list(bank)[-1]),
        lambda bank: bank.compact(),
    ]
    for act in [*every, None, *every]:
        try:
            if act is None:
                rebuild_index(path)
                continue
            with open_bank(CountingEncoder(), path) as bank:
                if len(bank) or act not in (every[8], every[10]):
                    act(bank)
        except AIMError:
            pass


@pytest.mark.parametrize("indexed", [True, False], ids=["with its index", "without"])
@pytest.mark.parametrize("share", [0.001, pytest.param(0.02, marks=pytest.mark.slow)])
def test_hostile_segments_are_named_or_harmless(tmp_path: Path, victim: Path, share: float, indexed: bool) -> None:
    dice = random.Random(1)
    for file in sorted(victim.glob("segment-*.aim")):
        for _, given in mutations(pairs(file.read_bytes())):
            if dice.random() > share or (data := encoded(given)) is None:
                continue
            path = tmp_path / "hostile"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(victim, path)
            (path / file.name).write_bytes(data)
            if not indexed:
                (path / "bank.sqlite").unlink()
                try:
                    rebuild_index(path)
                except AIMError:
                    continue
            use(path, tmp_path)


COLUMNS = {
    "settings": ["name", "value"],
    "state": ["id", "write", "entries", "digest", "features"],
    "segments": ["id", "size", "seen", "base"],
    "entries": ["key", "position", "segment", "offset", "bytes", "tokens", "origin", "metadata"],
    "features": ["name", "segment", "offset"],
}
SQL_VALUES: list[Any] = [
    *(
        None,
        0,
        1,
        -1,
        5,
        2**31,
        2**62,
        2**63 - 1,
        -(2**63),
        0.0,
        1.5,
        float("inf"),
        "",
        "x",
        "5",
        "a\0b",
        b"\xff",
        b"{}",
    ),
    *("[]", "{", "null", '{"a": {"b": 1}}', '{"a": [1]}', '{"id": null}', "[" * 100_000, "1" * 5000, "NaN"),
]


@pytest.mark.parametrize("share", [0.02, pytest.param(0.4, marks=pytest.mark.slow)])
def test_a_hostile_index_is_named_or_harmless(tmp_path: Path, victim: Path, share: float) -> None:
    dice = random.Random(2)
    for table, columns in COLUMNS.items():
        for column in columns:
            for value in SQL_VALUES:
                if dice.random() > share:
                    continue
                path = tmp_path / "hostile"
                shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(victim, path)
                if altered(path / "bank.sqlite", table, column, value):
                    use(path, tmp_path)


def altered(index: Path, table: str, column: str, value: Any) -> bool:
    """Set a field of a table's first row, and every checksum over it; False where SQLite refuses it."""
    columns = COLUMNS[table]
    where = " AND ".join(f"{name} IS ?" for name in columns)
    database = sqlite3.connect(index, isolation_level=None)
    try:
        old = database.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchone()
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *old))
        row = next(
            row
            for row in database.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
            if all(row[n] == old[n] or columns[n] == column for n in range(len(columns)))
        )
        database.execute(f"UPDATE {table} SET crc32 = ? WHERE {where}", (summed(row)[-1], *row))
        if table == "entries":
            digest = 0
            for (crc,) in database.execute("SELECT crc32 FROM entries"):
                digest ^= crc
            state = list(database.execute("SELECT id, write, entries, digest, features FROM state").fetchone())
            state[3] = digest
            database.execute("UPDATE state SET digest = ?, crc32 = ?", (digest, summed(tuple(state))[-1]))
    except (sqlite3.Error, StopIteration):
        return False
    finally:
        database.close()
    return True


@pytest.mark.parametrize("name", ["bank.sqlite.old", "bank.sqlite.new", "bank.lock", "segment-00000009.aim"])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_names_of_a_bank_that_are_no_files_of_it(tmp_path: Path, victim: Path, name: str, kind: str) -> None:
    """A link leads to a file of the user's, which stays as it is."""
    path, own = tmp_path / "bank", tmp_path / "own.txt"
    shutil.copytree(victim, path)
    own.write_text("mine")
    (path / name).unlink(missing_ok=True)
    match kind:
        case "folder":
            (path / name).mkdir()
            (path / name / "file").write_text("x")
        case "link":
            (path / name).symlink_to(own)
        case "pipe":
            os.mkfifo(path / name)
    use(path, tmp_path)
    assert own.read_text() == "mine"
