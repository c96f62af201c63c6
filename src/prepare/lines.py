"""Lines of raw files, plain or gzip, in bounded memory, and tallies of what became of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError

MAX_LINE = 4 << 20  # bytes; a longer line is no record of any known format
BLOCK = 1 << 20
NOT_KEPT = "of items that are not kept"  # why most rows about items are left out

Advance = Callable[[float, float], None]  # what is done, and the whole


class Tally:
    """What became of the parts of a file: read = kept + left out for each reason; notes are about kept ones.

    Args:
        name: of the file.
        unit: what its parts are called.
        numbered: what their numbers count, if that is something else.
    """

    def __init__(self, name: str, unit: str = "lines", numbered: str = "") -> None:
        self.name, self.unit, self.numbered = name, unit, numbered or unit.removesuffix("s")
        self.read = self.kept = 0
        self.dropped: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def drop(self, reason: str, at: int, example: object = "", n: int = 1) -> None:
        """Counts parts left out; the first is kept as an example, with its number."""
        _count(self.dropped, reason, at, example, n)

    def note(self, what: str, at: int, example: object = "", n: int = 1) -> None:
        """Counts kept parts with something to tell."""
        _count(self.notes, what, at, example, n)

    def record(self) -> dict[str, Any]:
        """All of it, for a report.

        Raises:
            RuntimeError: if the sums do not add up, which is a mistake of the reader's code.
        """
        lost = self.read - self.kept - sum(entry["count"] for entry in self.dropped.values())
        if lost:
            raise RuntimeError(f"{self.name}: {lost} of {self.read} {self.unit} are not accounted for")
        return {
            "name": self.name,
            "unit": self.unit,
            "numbered": self.numbered,
            "read": self.read,
            "kept": self.kept,
            "dropped": self.dropped,
            "notes": self.notes,
        }


def _count(entries: dict[str, dict[str, Any]], reason: str, at: int, example: object, n: int) -> None:
    if reason in entries:
        entries[reason]["count"] += n
    else:
        entries[reason] = {"count": n, "first": at, "example": shown(example)}


def shown(value: object, width: int = 60) -> str:
    """A value in one short printable line."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = text[: 4 * width].encode("utf-8", "backslashreplace").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def tally_lines(record: dict[str, Any]) -> list[str]:
    """The lines that tell a tally's record: the sum, then each reason with its first example."""
    unit = record["unit"]
    parts = [f"{record['kept']:,} kept", *(f"{e['count']:,} {reason}" for reason, e in record["dropped"].items())]
    lines = [f"{record['name']}: {record['read']:,} {unit} = {' + '.join(parts)}"]
    for reason, entry in (*record["dropped"].items(), *record["notes"].items()):
        text = f"  {reason}: {entry['count']:,}"
        if entry["first"]:
            text += f", first {record.get('numbered', unit.removesuffix('s'))} {entry['first']:,}"
        lines.append(text + (f": {entry['example']}" if entry["example"] else ""))
    return lines


def read_lines(
    path: Path, tally: Tally, accept_truncated: bool = False, advance: Advance | None = None
) -> Iterator[tuple[int, bytes]]:
    """Numbers (from 1) and bytes of the lines of a file, without their ends.

    A line longer than `MAX_LINE` and what is cut off at the end of a damaged gzip file go into the tally as read and
    dropped; all other lines are the caller's to count.

    Raises:
        UserError: if the file cannot be read, or is a gzip file that ends early or is damaged, unless that is accepted.
    """
    number, rest, too_long = 0, b"", False
    try:
        size = path.stat().st_size
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            source: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            while True:
                damage = ""
                try:
                    block = source.read1(BLOCK)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    damage = "it ends early" if isinstance(error, EOFError) else f"it is damaged ({error})"
                    block = b""
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
                if len(rest) > MAX_LINE:
                    too_long, rest = True, rest[:100]
                if advance:
                    advance(raw.tell(), size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if damage and not accept_truncated:
        raise UserError(
            f"{path.name}: not a whole gzip file: {damage} after line {number:,}; fetch it again, or go on with its whole "
            "lines by --accept_truncated"
        )
    if damage:
        tally.note(f"the gzip file is not whole: {damage}; accepted", number)
    if rest:
        number += 1
        if damage or too_long:
            tally.read += 1
            tally.drop(
                "cut off at the end of the file" if damage else f"longer than {MAX_LINE >> 20} MiB", number, rest
            )
        else:
            yield number, rest.removesuffix(b"\r")
