"""What a segment holds, found from its bytes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from aim_sdk.bank.disk.entries import FORMAT, Base, Opening
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.writes import Rest, Write, is_cut, record_at, writes_of
from aim_sdk.errors import CorruptArtifactError
from aim_sdk.files import records
from aim_sdk.files.records import Record, UnreadableError


@dataclass
class Scanned:
    """One segment, as far as it was read."""

    number: int
    size: int
    opening: Opening | None
    """None if it is damaged."""
    writes: list[Write] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    last: bool | None = None
    """What the end of a compaction's segment says; None if there is none (and of a segment of writes)."""

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
    dense = segments.dense(number, start, size)
    first = record_at(source, 0, where)
    opening = opening_of(first, where)
    if opening is None:
        opening = opening_of(last_record(segments, number, dense), where)
    found = Scanned(number, size, opening)
    if found.base is None:
        begin = first.end if first and "bank" in first.header else 0
        for part in writes_of(source, number, max(start, begin), dense, where):
            (found.writes if isinstance(part, Write) else found.rests).append(part)  # type: ignore[arg-type]
        if dense < size:
            found.rests.append(Rest(number, dense, size, cut=False))
    return found


def last_record(segments: Segments, number: int, size: int) -> Record | None:
    """The last record of a segment that is whole."""
    last: Record | None = None
    for record in records.scan(segments.source(number), size, str(segments.path(number))):
        last = record if isinstance(record, Record) else last
    return last


def find_end(segments: Segments, base: Scanned) -> None:
    """Note how a compaction's segment ends, and what comes after that."""
    last = last_record(segments, base.number, base.size)
    if last is None or not isinstance(last.header.get("last"), bool):
        return
    base.last = last.header["last"]
    if last.end < base.size:
        cut = is_cut(segments.source(base.number), last.end, base.size)
        base.rests.append(Rest(base.number, last.end, base.size, cut))
        base.size = last.end


def checked(segments: Segments, number: int, start: int, end: int) -> Iterator[Record | CorruptArtifactError]:
    """The records of some bytes; a record with a damaged part counts as damaged."""
    source, where = segments.source(number), str(segments.path(number))
    for record in records.scan(source, end, where, start):
        if isinstance(record, Record):
            try:
                records.check_record(source, record, where)
            except UnreadableError:
                raise
            except CorruptArtifactError as error:
                yield error
                continue
        yield record


def scan_all(segments: Segments, present: Mapping[int, int]) -> list[Scanned]:
    """Scan segments, by number and size; those that are missing are left out.

    Raises:
        CorruptArtifactError: they are of two banks.
    """
    found = []
    for number, size in present.items():
        try:
            segments.source(number)
        except UnreadableError:
            raise
        except CorruptArtifactError:
            continue
        found.append(scan(segments, number, size))
        if found[-1].base:
            find_end(segments, found[-1])
    if len({each.opening.id for each in found if each.opening}) > 1:
        names = ", ".join(segments.path(each.number).name for each in found if each.opening)
        raise CorruptArtifactError(f"{segments.folder}: segments of more than one bank ({names}). Next: separate them.")
    return found
