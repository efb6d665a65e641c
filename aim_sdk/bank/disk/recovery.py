"""What the segments hold: the writes that an index does not know yet, or all that they add up to.

The segments are the truth. An index that is some writes older (a crash, a power loss, a flipped bit in its log, a
backup) is brought up to date by :func:`tail`, if every write that is missing in it is there. If one is not, or if the
index is from before a compaction, that is damage: it is named, and :func:`replay` makes a new index of what is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydantic import ValidationError

from aim_sdk.bank import records
from aim_sdk.bank.disk.entries import FORMAT, Base, Opening, entry_of, row_of, vectors_of
from aim_sdk.bank.disk.rows import Known, Row
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.writes import Rest, Write, is_whole, record_at, writes_of
from aim_sdk.bank.records import Record
from aim_sdk.errors import CorruptArtifactError


class Rows(Protocol):
    """What records are applied to: the index, or rows in memory."""

    def get(self, key: str) -> Row | None: ...
    def put(self, rows: Iterable[Row]) -> None: ...
    def remove(self, keys: Iterable[str]) -> None: ...
    def put_features(self, name: str, segment: int, offset: int) -> None: ...


def apply(record: Record, segment: int, rows: Rows, where: str) -> None:
    """Do what a record says.

    Raises:
        CorruptArtifactError: it says nothing that a bank knows.
    """
    header = record.header
    if "key" in header:
        rows.put([row_of(entry_of(record, where), record, segment)])
    elif "features" in header:
        rows.put_features(vectors_of(record, where)[0], segment, record.offset)
    elif isinstance(header.get("remove"), str):
        rows.remove([header["remove"]])
    elif isinstance(header.get("tag"), str) and isinstance(header.get("metadata"), dict):
        if (row := rows.get(header["tag"])) is not None:
            rows.put([replace(row, metadata=header["metadata"])])
    else:
        raise CorruptArtifactError(f"{where}: the record at byte {record.offset} is none of a bank's.")


@dataclass
class Held:
    """Rows in memory, by key."""

    rows: dict[str, Row] = field(default_factory=dict)
    features: list[tuple[str, int, int]] = field(default_factory=list)
    removed: set[int] = field(default_factory=set)

    def get(self, key: str) -> Row | None:
        return self.rows.get(key)

    def put(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows[row.key] = row
            self.removed.discard(row.position)

    def remove(self, keys: Iterable[str]) -> None:
        self.removed |= {row.position for key in keys if (row := self.rows.pop(key, None))}

    def put_features(self, name: str, segment: int, offset: int) -> None:
        self.features.append((name, segment, offset))


@dataclass
class Scanned:
    """One segment, as far as it was read."""

    number: int
    size: int
    opening: Opening | None
    """None where it is damaged."""
    writes: list[Write]
    rests: list[Rest]

    @property
    def base(self) -> Base | None:
        """Which part of which compaction it is; None for a segment of writes."""
        return self.opening.base if self.opening else None


def opening_of(record: Record | None, where: str) -> Opening | None:
    """What a segment says of itself at its beginning (a compaction's also at its end), if it is whole.

    Raises:
        CorruptArtifactError: it is of another format.
    """
    if record is None or "bank" not in record.header:
        return None
    if record.header["bank"] != FORMAT:
        raise CorruptArtifactError(
            f"{where}: a segment of format {record.header['bank']!r}; this aim-icl reads {FORMAT}. "
            "Next: export the bank with the aim-icl that made it, and `aim-icl bank import` the file."
        )
    try:
        return Opening.model_validate(record.header)
    except ValidationError:
        return None


def scan(segments: Segments, number: int, size: int, start: int = 0) -> Scanned:
    """Find the writes of a segment's bytes from ``start`` to ``size``."""
    source, where = segments.source(number), str(segments.path(number))
    first = record_at(source, 0, where)
    opening = opening_of(first, where)
    if opening is None:
        opening = opening_of(_last(segments, number, size), where)
    found = Scanned(number, size, opening, [], [])
    if found.base is None:
        begin = first.end if first and "bank" in first.header else 0
        for part in writes_of(source, number, max(start, begin), size, where):
            (found.writes if isinstance(part, Write) else found.rests).append(part)  # type: ignore[arg-type]
    return found


def _last(segments: Segments, number: int, size: int) -> Record | None:
    """The last record of a segment, if it is whole."""
    last: Record | CorruptArtifactError | None = None
    for record in records.scan(segments.source(number), size, str(segments.path(number))):
        last = record
    return last if isinstance(last, Record) else None


def checked(segments: Segments, number: int, start: int, end: int) -> Iterator[Record | CorruptArtifactError]:
    """The records of some bytes; one of which a part is damaged counts as damaged."""
    source, where = segments.source(number), str(segments.path(number))
    for record in records.scan(source, end, where, start):
        if isinstance(record, Record):
            try:
                records.check_record(source, record, where)
            except CorruptArtifactError as error:
                yield error
                continue
        yield record


@dataclass
class Tail:
    """What the segments hold that an index does not know."""

    writes: list[Write]
    """Whole ones, in order, the first of which follows the index's last."""
    seen: dict[int, Known]
    """What is known of the segments when these are taken in."""


def tail(segments: Segments, known: Mapping[int, Known], last: int, bank: str) -> Tail:
    """Find what is missing in an index that knows some segments and the writes up to ``last``.

    Raises:
        CorruptArtifactError: the index cannot be brought up to date, for a write is missing or damaged, or a segment is
            another bank's.
    """
    found: dict[int, Write] = {}
    seen: dict[int, Known] = {}
    ahead = last  # how far the segments go, of what is seen of them
    for number, size in segments.present().items():
        old = known.get(number, Known(0, 0, base=False))
        if number in known and old.seen == size:
            continue
        scanned = scan(segments, number, size, old.size)
        if scanned.opening is not None and scanned.opening.id != bank:
            raise CorruptArtifactError(
                f"{segments.path(number)}: a segment of another bank. Next: move it out of this folder."
            )
        source = segments.source(number)
        whole = {write.number: write for write in scanned.writes if write.number > last and is_whole(source, write)}
        seen[number] = Known(old.size, size, base=scanned.base is not None)
        ahead = max([ahead, scanned.base.through if scanned.base else 0, *whole])
        found.update(whole)
    new: list[Write] = []
    while last + len(new) + 1 in found:
        new.append(found[last + len(new) + 1])
    if ahead > last + len(new):
        raise CorruptArtifactError(
            f"{segments.folder}: the index is older than the segments: it knows the writes up to {last}, they hold "
            f"later ones up to {ahead}, and not all between are whole. Nothing was changed.\n"
            f"Next: `aim-icl bank verify {segments.folder} --rebuild-index`, which keeps all that is whole."
        )
    for write in new:
        seen[write.segment] = replace(seen[write.segment], size=write.end)
    return Tail(new, seen)


def lost(segments: Segments, known: Mapping[int, Known], present: Mapping[int, int]) -> str | None:
    """What an index knows and the segments, of so many bytes, do not have; in words."""
    for number, old in known.items():
        if old.size > present.get(number, 0):
            what = f"has only {present[number]} of {old.size} bytes" if number in present else "is missing"
            return (
                f"{segments.path(number)}: {what}. Next: put the whole file back, or run "
                f"`aim-icl bank verify {segments.folder} --rebuild-index`, which keeps all that is whole."
            )
    return None


@dataclass
class Replay:
    """What segments add up to."""

    held: Held
    problems: list[str]
    write: int
    """The last write."""
    segments: dict[int, Known]


def scan_all(segments: Segments, present: Mapping[int, int]) -> list[Scanned]:
    """Scan segments, by number and size; those that are missing are left out.

    Raises:
        CorruptArtifactError: they are of two banks.
    """
    found = []
    for number, size in present.items():
        try:
            segments.source(number)
        except CorruptArtifactError:
            continue
        found.append(scan(segments, number, size))
    if len({each.opening.id for each in found if each.opening}) > 1:
        names = ", ".join(segments.path(each.number).name for each in found if each.opening)
        raise CorruptArtifactError(f"{segments.folder}: segments of more than one bank ({names}). Next: separate them.")
    return found


def replay(segments: Segments, scanned: Sequence[Scanned], finished: int = 0) -> Replay:
    """Add up all writes, from the last whole compaction on.

    Args:
        finished: a write that is known to have been finished, and so all before it: of these, single records count
            where they are not whole. The last write after it counts only if it is whole; else it was never finished.
    """
    found = []
    for base in _bases(segments, scanned):
        writes = _after(segments, scanned, _through(base))
        last = next((n for n in sorted(writes, reverse=True) if _is_whole(segments, writes[n])), 0)
        found.append(add_up(segments, scanned, base, max(last, finished)))
        if not found[-1].problems:
            return found[-1]
    return found[0]


def _bases(segments: Segments, scanned: Sequence[Scanned]) -> list[list[Scanned]]:
    """What to begin with: the segments of each compaction that was finished, the latest first; then nothing."""
    runs: dict[str, dict[int, Scanned]] = {}
    for each in scanned:
        if each.base:
            runs.setdefault(each.base.run, {})[each.base.part] = each
    whole = [
        [parts[part] for part in range(len(parts))]
        for parts in runs.values()
        if set(parts) == set(range(len(parts))) and all(_is_finished(segments, parts, part) for part in parts)
    ]
    return [*sorted(whole, key=_through, reverse=True), []]


def _is_finished(segments: Segments, parts: Mapping[int, Scanned], part: int) -> bool:
    """Whether a part of a compaction ends with the record that says so, and says rightly whether it is the last."""
    last = _last(segments, parts[part].number, parts[part].size)
    return last is not None and last.header.get("last") is (part == len(parts) - 1)


def _through(parts: Sequence[Scanned]) -> int:
    """The last write that a compaction holds."""
    return parts[0].base.through if parts and parts[0].base else 0


def _after(segments: Segments, scanned: Sequence[Scanned], last: int) -> dict[int, Write]:
    """The writes after one of them, by number; of two with one number, the whole one (the other was given up)."""
    writes: dict[int, Write] = {}
    for write in (write for each in scanned for write in each.writes if write.number > last):
        other = writes.get(write.number)
        if other is None or not _is_whole(segments, other):
            writes[write.number] = write
    return writes


def _is_whole(segments: Segments, write: Write) -> bool:
    return is_whole(segments.source(write.segment), write)


def add_up(
    segments: Segments,
    scanned: Sequence[Scanned],
    base: Sequence[Scanned],
    top: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Replay:
    """Add up a compaction's segments and the writes after it, up to the write ``top``."""
    held, problems = Held(), list[str]()
    known = {each.number: Known(0, each.size, base=each.base is not None) for each in scanned}
    last = _through(base)
    for each in base:
        known[each.number] = Known(each.size, each.size, base=True)
        problems += _applied(segments, held, each.number, 0, each.size, advance)
    writes = _after(segments, scanned, last)
    for number in sorted(n for n in writes if n <= top):
        write = writes[number]
        problems += _missing(segments, last, number)
        problems += _applied(segments, held, write.segment, write.start, write.end, advance)
        known[write.segment] = replace(known[write.segment], size=write.end)
        last = number
    problems += _missing(segments, last, top + 1)
    for each in scanned:
        problems += [_altered(segments, rest) for rest in each.rests if not rest.cut]
        problems += [
            _altered(segments, Rest(write.segment, write.start, write.end, cut=False))
            for write in each.writes
            if write.number > top and not _is_whole(segments, write)
        ]
    return Replay(held, problems, top, known)


def _applied(
    segments: Segments, held: Held, number: int, start: int, end: int, advance: Callable[[int], None]
) -> list[str]:
    """Apply the whole records of some bytes; return what is wrong with the others."""
    problems = []
    for record in checked(segments, number, start, end):
        if isinstance(record, CorruptArtifactError):
            problems.append(str(record))
        elif "bank" not in record.header:
            try:
                apply(record, number, held, str(segments.path(number)))
            except CorruptArtifactError as error:
                problems.append(str(error))
            advance("key" in record.header)
    return problems


def _missing(segments: Segments, last: int, number: int) -> list[str]:
    if number - last <= 1:
        return []
    which = f"write {last + 1} is" if number - last == 2 else f"writes {last + 1} to {number - 1} are"
    return [f"{segments.folder}: {which} missing, and what was added, removed or tagged in it is not known."]


def _altered(segments: Segments, rest: Rest) -> str:
    return (
        f"{segments.path(rest.segment)}: bytes {rest.start} to {rest.end} are no whole write: altered, or never "
        "finished before a power loss. Where no other line names what is missing, nothing is; "
        f"`aim-icl bank compact {segments.folder}` drops them."
    )
