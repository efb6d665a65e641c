"""Whatever is done to a bank, in whatever order, it holds what a dict would; on disk also across repairs."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank
from aim_sdk.bank.disk.maintenance import rebuild_index
from aim_sdk.errors import InputError
from tests.banks import CountingEncoder, fused_of, open_bank

IMAGE = Image.new("RGB", (2, 2))
ANSWERS = st.text(min_size=1, max_size=4, alphabet="ab\n é").filter(str.strip)
METADATA = st.dictionaries(st.sampled_from(["label", "id", "ü"]), st.sampled_from(["a", "b", 1, 2.5, True]), max_size=2)


class InMemory(RuleBasedStateMachine):
    """The model is an ordered list of (key, answer, metadata)."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = self.open()
        self.model: list[tuple[str, str, dict[str, object]]] = []

    def open(self) -> DemonstrationBank:
        return open_bank(CountingEncoder(batch=2), None)

    @rule(given=st.lists(st.tuples(ANSWERS, METADATA), max_size=5))
    def add(self, given: list[tuple[str, dict[str, object]]]) -> None:
        items = [Demonstration(IMAGE, "t", answer, fields) for answer, fields in given]
        held = {key for key, *_ in self.model}
        keys = self.bank.add(items)
        assert len(keys) == len(items)
        fresh: dict[str, tuple[str, dict[str, object]]] = {}
        for key, (answer, fields) in zip(keys, given, strict=True):
            if key in held:
                if fields:
                    self.model = [(k, a, fields if k == key else m) for k, a, m in self.model]
            else:
                fresh.setdefault(key, (answer, fields))
        self.model += [(key, answer, fields) for key, (answer, fields) in fresh.items()]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from([key for key, *_ in self.model]), max_size=3))
        self.bank.remove(*keys)
        self.model = [item for item in self.model if item[0] not in keys]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), label=st.sampled_from(["a", "c", None]))
    def tag(self, data: st.DataObject, label: str | None) -> None:
        key = data.draw(st.sampled_from([key for key, *_ in self.model]))
        self.bank.tag(key, label=label)
        for k, _, fields in self.model:
            if k == key:
                changed = {name: value for name, value in {**fields, "label": label}.items() if value is not None}
        self.model = [(k, a, changed if k == key else m) for k, a, m in self.model]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), answer=ANSWERS, fields=METADATA)
    def replace(self, data: st.DataObject, answer: str, fields: dict[str, object]) -> None:
        key = data.draw(st.sampled_from([key for key, *_ in self.model]))
        item = Demonstration(IMAGE, "t", answer, fields)
        try:
            new = self.bank.replace(key, item)
        except InputError:
            assert self.bank.key(item) in {k for k, *_ in self.model if k != key}
            return
        self.model = [(new, answer, fields) if k == key else (k, a, m) for k, a, m in self.model]

    @invariant()
    def same(self) -> None:
        assert list(self.bank) == [key for key, *_ in self.model]
        assert len(self.bank) == len(self.model)
        for (key, answer, fields), listed in zip(self.model, self.bank.view().entries, strict=True):
            entry = self.bank[key]
            assert entry.demonstration.answer == answer
            assert dict(entry.demonstration.metadata) == fields == dict(listed.metadata)
            assert torch.equal(entry.fused.embeddings, fused_of(entry.demonstration))
        features = self.bank.view().features("reading")
        assert features.shape[0] == len(self.model)


class OnDisk(InMemory):
    """The same, with restarts, repairs and copies between the steps."""

    def open(self) -> DemonstrationBank:
        self.folder, self.torn = Path(tempfile.mkdtemp()), False
        return self.reopen()

    def reopen(self) -> DemonstrationBank:
        return open_bank(CountingEncoder(batch=2), self.folder / "bank", keep_readings=True)

    @rule()
    def restart(self) -> None:
        self.bank.close()
        self.bank = self.reopen()

    @rule()
    def compact(self) -> None:
        self.bank.compact()
        assert self.bank.verify() == []

    @rule(lost=st.booleans())
    def rebuild(self, lost: bool) -> None:
        self.bank.close()
        if lost:
            (self.folder / "bank" / "bank.sqlite").unlink()
        if any((self.folder / "bank").glob("segment-*")):
            assert rebuild_index(self.folder / "bank") == [] or self.torn
        self.bank = self.reopen()
        assert self.bank.verify() == []

    @rule()
    def torn_tail(self) -> None:
        segments = sorted((self.folder / "bank").glob("segment-*"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(b"AIM\x01" + os.urandom(40))
            self.torn = True

    @rule()
    def through_an_export(self) -> None:
        self.bank.export(self.folder / "bank.aim")
        copied = DemonstrationBank.import_file(self.folder / "bank.aim", into=self.folder / "copy")
        assert len(copied) == len(self.model)
        assert list(copied) == list(self.bank)
        assert np.array_equal(copied.view().features("reading"), self.bank.view().features("reading"))
        copied.close()
        shutil.rmtree(self.folder / "copy")

    def teardown(self) -> None:
        self.bank.close()
        shutil.rmtree(self.folder)


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
