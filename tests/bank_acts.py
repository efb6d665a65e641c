"""Every act that writes to a bank, and what a bank must hold after one that failed somewhere."""

from collections.abc import Callable
from pathlib import Path

from aim_sdk import DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from tests.bank_attacks import Content, differences, item, key_of, read
from tests.banks import CountingEncoder, open_bank

BEFORE = {f"before {number}": {} for number in range(4)}


def acts(path: Path) -> dict[str, Callable[[], object]]:
    """Every way of writing to a bank; each leaves `BEFORE` alone."""

    def opened(act: Callable[[DemonstrationBank], object]) -> Callable[[], None]:
        def run() -> None:
            with open_bank(CountingEncoder(batch=1), path) as bank:
                act(bank)

        return run

    return {
        "add": opened(lambda bank: bank.add([item("new 1"), item("new 2")])),
        "tag": opened(lambda bank: bank.tag(key_of(bank, "passing"), label=1)),
        "replace": opened(lambda bank: bank.replace(key_of(bank, "passing"), item("passed"))),
        "remove": opened(lambda bank: bank.remove(key_of(bank, "passing"))),
        "compact": opened(lambda bank: bank.compact()),
        "export": opened(lambda bank: bank.export(path.with_name("out.aim"))),
        "import": opened(lambda bank: bank.import_from(path.with_name("in.aim"))),
        "verify": opened(lambda bank: bank.verify()),
        "rebuild": lambda: rebuild_index(path),
        "make": lambda: open_bank(CountingEncoder(), path.with_name("made")).close(),
    }


ALLOWED: dict[str, list[Content]] = {
    # what may be there after an act that failed, besides the state before it: whole steps of it
    "add": [{"passing": {}, "new 1": {}}, {"passing": {}, "new 1": {}, "new 2": {}}],
    "tag": [{"passing": {"label": 1}}],
    "replace": [{"passed": {}}],
    "remove": [{}],
    "import": [{"passing": {}, "in 1": {}, "in 2": {}}],
}


def prepared(folder: Path) -> Path:
    with open_bank(CountingEncoder(), folder / "other") as other:
        other.add([item("in 1"), item("in 2")])
        other.export(folder / "in.aim")
    with open_bank(CountingEncoder(), folder / "bank") as bank:
        bank.add([item(answer) for answer in BEFORE])
        bank.add([item("passing"), item("gone")])
        bank.remove(key_of(bank, "gone"))
    return folder / "bank"


def check(path: Path, act: str, what: object, *, acknowledged: bool) -> None:
    """What was there is there; what failed is there whole or not at all; the bank goes on."""
    found = read(path)
    assert list(found)[: len(BEFORE)] == list(BEFORE), (what, differences(BEFORE, found))
    rest = {answer: fields for answer, fields in found.items() if answer not in BEFORE}
    steps = ALLOWED.get(act, [])
    wanted = steps[-1:] or [{"passing": {}}] if acknowledged else [{"passing": {}}, *steps]
    assert rest in wanted, (what, rest)
    with open_bank(CountingEncoder(), path) as bank:
        assert bank.verify() == [], what
        bank.add([item("one more")])
        bank.compact()
        assert bank.verify() == [], what
    assert read(path) == {**found, "one more": {}}, what
    assert rebuild_index(path) == [], what
    assert read(path) == {**found, "one more": {}}, what
