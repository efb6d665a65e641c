"""What the segments hold: the writes that an index does not know yet, or all that they add up to.

The segments are the truth. An index that is some writes older (a crash, a power loss, a flipped bit in its log, a
backup) is brought up to date by `tail`, if every write that is missing in it is there. If one is not, or if the
index is from before a compaction, that is damage: it is named, and `replay` makes a new index of what is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from aim_sdk.bank.disk.applying import Held, apply
from aim_sdk.bank.disk.rows import Known
from aim_sdk.bank.disk.scanning import Scanned, checked, find_end, scan
from aim_sdk.bank.disk.segments import Segments
from aim_sdk.bank.disk.writes import Rest, Write, is_whole
from aim_sdk.errors import CorruptArtifactError


@dataclass
class Tail:
    """What the segments hold that an index does not know."""

    writes: list[Write]
    """Complete ones, in order; the first follows the index's last."""
    seen: dict[int, Known]
    """What is known about the segments when these are taken in."""


def tail(segments: Segments, present: Mapping[int, int], known: Mapping[int, Known], last: int, bank: str) -> Tail:
    """Find what is missing in an index that knows some segments and the writes up to ``last``.

    Raises:
        CorruptArtifactError: the index cannot be brought up to date, because a write is missing or damaged, or a
        segment is
            another bank's.
    """
    found: dict[int, list[Write]] = {}
    seen: dict[int, Known] = {}
    compacted: list[Scanned] = []
    ahead = last  # how far the segments go, as far as they were read
    for number, size in present.items():
        old = known.get(number, Known(0, 0, base=False))
        if number in known and old.seen == size:
            continue
        scanned = scan(segments, number, size, old.size)
        if scanned.opening is not None and scanned.opening.id != bank:
            raise CorruptArtifactError(
                f"{segments.path(number)}: a segment of another bank. Next: move it out of this folder."
            )
        source = segments.source(number)
        whole = [write for write in scanned.writes if write.number > last and is_whole(source, write)]
        seen[number] = Known(old.size, size, base=scanned.base is not None)
        compacted += [scanned] if scanned.base else []
        ahead = max([ahead, scanned.base.through if scanned.base else 0, *(write.number for write in whole)])
        for write in whole:
            found.setdefault(write.number, []).append(write)
    new: list[Write] = []
    reached = last
    while reached + 1 in found:
        reached += 1
        new += found[reached]
    if ahead > reached:
        raise CorruptArtifactError(
            f"{segments.folder}: the index is older than the segments: it has the writes up to {last}, the segments "
            f"hold later ones up to {ahead}, and some in between are damaged. Nothing was changed.\n"
            f"Next: `aim-icl bank verify {segments.folder} --rebuild-index`, which keeps all that is whole."
        )
    if new and _is_older_than(segments, compacted, reached):
        raise CorruptArtifactError(
            f"{segments.folder}: the index is older than a compaction, after which demonstrations were added; that "
            "has given all of them other positions. Nothing was changed.\n"
            f"Next: `aim-icl bank verify {segments.folder} --rebuild-index`, which keeps all that is whole."
        )
    for write in new:
        seen[write.segment] = replace(seen[write.segment], size=write.end)
    return Tail(new, seen)


def _is_older_than(segments: Segments, compacted: Sequence[Scanned], reached: int) -> bool:
    """Whether a write up to ``reached`` came after one of the compactions whose segments these are."""
    for each in compacted:
        find_end(segments, each)
    return any(_is_finished(run) and _through(run) < reached for run in _bases(compacted)[1:])


def lost(segments: Segments, known: Mapping[int, Known], present: Mapping[int, int]) -> str | None:
    """What an index knows and the segments, with these sizes, do not have; in words."""
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
    missing: int
    """Writes that are not there."""
    damaged: int
    """Records and compactions that are not whole."""
    write: int
    """The last write."""
    segments: dict[int, Known]


def replay(segments: Segments, scanned: Sequence[Scanned], finished: int = 0) -> Replay:
    """Add up all writes, from the last whole compaction on.

    Where something is missing, other beginnings are tried: an earlier compaction, the first write, and a compaction
    whose end is not whole. The one that misses least counts.

    Args:
        finished: a write that is known to have been finished, and so all before it: of these, single records count
            where they are not whole. The last write after it counts only if it is whole; else it was never finished.
    """
    bases = _bases(scanned)
    whole = [write.number for each in scanned for write in each.writes if _is_whole(segments, write)]
    top = max(
        [finished, *whole, *map(_through, bases)]
    )  # a compaction that was begun proves that the writes before it were finished
    found: list[Replay] = []
    for base in sorted(bases, key=lambda base: (_is_finished(base), _through(base)), reverse=True):
        found.append(add_up(segments, scanned, base, top))
        if not found[-1].problems:
            break
    return min(found, key=lambda each: (each.missing, each.damaged))


def _bases(scanned: Sequence[Scanned]) -> list[list[Scanned]]:
    """What one can begin with: nothing, or the segments of each compaction."""
    runs: dict[str, list[Scanned]] = {}
    for each in scanned:
        if each.base:
            runs.setdefault(each.base.run, []).append(each)
    return [[], *runs.values()]


def _is_finished(base: Sequence[Scanned]) -> bool:
    """Whether all segments of a compaction are there, and each ends with the record that says so."""
    parts = {each.base.part: each.last for each in base if each.base}
    return parts == {part: part == len(parts) - 1 for part in range(len(parts))}


def _through(base: Sequence[Scanned]) -> int:
    """The last write that a compaction holds."""
    return base[0].base.through if base and base[0].base else 0


def _after(segments: Segments, scanned: Sequence[Scanned], last: int) -> dict[int, list[Write]]:
    """The writes after one of them, by number.

    Two have one number where the first was not whole and was given up. If it is whole again (its file was put back),
    both count.
    """
    writes: dict[int, list[Write]] = {}
    for write in (write for each in scanned for write in each.writes if write.number > last):
        writes.setdefault(write.number, []).append(write)
    return {
        number: same if len(same) == 1 else ([w for w in same if _is_whole(segments, w)] or same)
        for number, same in writes.items()
    }


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
    held, damage = Held(), list[str]()
    present = segments.opened()
    known = {each.number: Known(0, present[each.number], base=each.base is not None) for each in scanned}
    gaps: list[tuple[int, int]] = []
    last = _through(base)
    if not _is_finished(base):
        damage.append(f"{segments.path(base[0].number)}: the end of this compaction is damaged.")
    for each in sorted(base, key=lambda each: each.base.part if each.base else 0):
        known[each.number] = replace(known[each.number], size=each.size)
        damage += _applied(segments, held, each.number, 0, each.size, advance)
    writes = _after(segments, scanned, last)
    for number in sorted(n for n in writes if n <= top):
        gaps.append((last, number))
        for write in writes[number]:
            damage += _applied(segments, held, write.segment, write.start, write.end, advance)
            known[write.segment] = replace(known[write.segment], size=write.end)
        last = number
    gaps.append((last, top + 1))
    problems = [_missing(segments, *gap) for gap in gaps if gap[1] - gap[0] > 1] + damage
    missing = sum(number - last - 1 for last, number in gaps)
    for each in scanned:
        problems += [_altered(segments, rest) for rest in each.rests if not rest.cut]
        problems += [
            _altered(segments, Rest(write.segment, write.start, write.end, cut=False))
            for write in each.writes
            if write.number > top and not _is_whole(segments, write)
        ]
    unsure = 0 if _is_finished(base) else 1 << 62  # what it lacks is not known
    return Replay(held, problems, missing, len(damage) + unsure, top, known)


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


def _missing(segments: Segments, last: int, number: int) -> str:
    which = f"write {last + 1} is" if number - last == 2 else f"writes {last + 1} to {number - 1} are"
    return f"{segments.folder}: {which} missing, and what was added, removed or tagged in it is not known."


def _altered(segments: Segments, rest: Rest) -> str:
    return (
        f"{segments.path(rest.segment)}: bytes {rest.start} to {rest.end} are not a complete write: altered, or "
        "unfinished before a power loss. If no other line names something missing, nothing is lost; "
        f"`aim-icl bank compact {segments.folder}` drops them."
    )
