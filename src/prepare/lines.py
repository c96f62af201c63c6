"""Lines of raw files, plain or gzip, in bounded memory, and counts of what was kept and what was left out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError

MAX_LINE = 4 << 20  # bytes; a longer line is no record of any known format
BLOCK = 1 << 20
NOT_KEPT = "of items that are not kept"  # the usual reason to leave out a row about an item
Record = TypeVar("Record")


@dataclass(frozen=True)
class Reading:
    """How raw files are read.

    Attributes:
        accept_truncated: take the complete lines of a gzip file that ends early.
        progress: called with the bytes read and the size of the file.
        limit: read at most so many lines; 0 reads all.
        columns: of a user's table: role (user, item, rating, time, split) to the name of its column.
        text_columns, text_id: of a user's table of items: the columns that make the text, and the column of the ids.
    """

    accept_truncated: bool = False
    progress: Callable[[float, float], None] | None = None
    limit: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    text_columns: tuple[str, ...] = ()
    text_id: str | None = None


class Tally:
    """Counts of the parts of a file: read = kept + dropped, by reason; notes are about kept parts.

    Args:
        name: of the file.
        unit: what its parts are called.
        numbered: what their numbers count, if not the unit.
    """

    def __init__(self, name: str, unit: str = "lines", numbered: str = "") -> None:
        self.name, self.unit, self.numbered = name, unit, numbered or unit.removesuffix("s")
        self.read = self.kept = 0
        self.dropped: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def drop(self, reason: str, at: int, example: object = "", n: int = 1) -> None:
        """Counts dropped parts; the first one is kept as an example, with its number."""
        entry = self.dropped.setdefault(reason, {"count": 0, "first": at, "example": shown(example)})
        entry["count"] += n

    def note(self, what: str, at: int, example: object = "") -> None:
        """Counts a kept part that is worth a remark."""
        entry = self.notes.setdefault(what, {"count": 0, "first": at, "example": shown(example)})
        entry["count"] += 1

    def record(self) -> dict[str, Any]:
        """All counts, for a report.

        Raises:
            RuntimeError: if the sums do not add up, which is an error of the reader's code.
        """
        lost = self.read - self.kept - sum(entry["count"] for entry in self.dropped.values())
        if lost:
            raise RuntimeError(f"{self.name}: {lost} of {self.read} {self.unit} are not accounted for")
        names = ("name", "unit", "numbered", "read", "kept", "dropped", "notes")
        return {name: getattr(self, name) for name in names}

    def reasons(self) -> str:
        """The counts of dropped parts by reason, each with its first example."""
        parts = (f"{e['count']:,} {reason} (first: {e['example']})" for reason, e in self.dropped.items())
        return ", ".join(parts)


def shown(value: object, width: int = 60) -> str:
    """A value in one short printable line."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text[: 4 * width].encode("utf-8", "backslashreplace").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def tally_lines(record: dict[str, Any]) -> list[str]:
    """The lines that print a tally: the sum, then each reason with its first example."""
    parts = [f"{record['kept']:,} kept", *(f"{e['count']:,} {reason}" for reason, e in record["dropped"].items())]
    lines = [f"{record['name']}: {record['read']:,} {record['unit']} = {' + '.join(parts)}"]
    for reason, entry in (*record["dropped"].items(), *record["notes"].items()):
        first = f", first {record['numbered']} {entry['first']:,}" if entry["first"] else ""
        lines.append(f"  {reason}: {entry['count']:,}{first}" + (f": {entry['example']}" if entry["example"] else ""))
    return lines


def read_lines(path: Path, tally: Tally, how: Reading) -> Iterator[tuple[int, bytes]]:
    """Numbers (from 1) and bytes of the lines of a file, without their ends.

    A line longer than `MAX_LINE`, and what is cut off at the end of a damaged gzip file, is counted as read and dropped.
    The caller counts all other lines.

    Raises:
        UserError: if the file cannot be read, or is a gzip file that ends early or is damaged, unless that is accepted.
    """
    number, rest, too_long, damage = 0, b"", False, ""
    try:
        size = path.stat().st_size
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            source: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            while True:
                try:
                    block = source.read1(BLOCK)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    damage = "it ends early" if isinstance(error, EOFError) else f"it is damaged ({error})"
                    break
                if not block:
                    break
                parts = (rest + block).split(b"\n")
                rest = parts.pop()
                for part in parts:
                    number += 1
                    if too_long or len(part) > MAX_LINE:
                        tally.read += 1
                        tally.drop(f"longer than {MAX_LINE >> 20} MiB", number, part[:100])
                        too_long = False
                    else:
                        yield number, part.removesuffix(b"\r")
                    if number == how.limit:
                        return
                if len(rest) > MAX_LINE:
                    too_long, rest = True, rest[:100]
                if how.progress:
                    how.progress(raw.tell(), size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if damage and not how.accept_truncated:
        raise UserError(
            f"{path.name}: not a complete gzip file: {damage} after line {number:,}; download it again, or use its "
            "complete lines with --accept_truncated"
        )
    if damage:
        tally.note(f"the gzip file is not complete: {damage}; accepted", number)
    if rest and (damage or too_long):
        tally.read += 1
        tally.drop(
            "cut off at the end of the file" if damage else f"longer than {MAX_LINE >> 20} MiB", number + 1, rest
        )
    elif rest:
        yield number + 1, rest.removesuffix(b"\r")


def records(
    path: Path, tally: Tally, how: Reading, what: str, parse: Callable[[bytes], Record | None]
) -> Iterator[tuple[int, bytes, Record]]:
    """Number, bytes and content of each line that `parse` makes something of; blank and other lines are dropped.

    Args:
        path, tally, how: see `read_lines`; the caller counts what is yielded as kept or dropped.
        what: a line should be.
        parse: gives None for what is something else.
    """
    for at, line in read_lines(path, tally, how):
        tally.read += 1
        content = parse(line) if line.strip() else None
        if content is not None:
            yield at, line, content
        elif line.strip():
            tally.drop(f"malformed: not {what}", at, line)
        else:
            tally.drop("blank", at)
