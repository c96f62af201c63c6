"""A user's own tables, CSV or TSV: rows, interactions, and what the words in them may be."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prepare.interactions import Collector, Interactions
from prepare.lines import Advance, Tally, read_lines, shown
from utils.errors import UserError, nearest

# Names of columns that are taken without being told, in this order; lower case.
KNOWN_COLUMNS = {
    "user": ("user", "userid", "user_id", "user_id:token", "reviewerid", "uid"),
    "item": ("item", "itemid", "item_id", "item_id:token", "asin", "parent_asin", "iid"),
    "rating": ("rating", "ratings", "rating:float", "overall", "score", "stars"),
    "time": ("time", "timestamp", "timestamp:float", "unixreviewtime", "date", "datetime"),
    "split": ("x_label", "split"),
}
SPLIT_WORDS = {"0": 0, "1": 1, "2": 2, "train": 0, "valid": 1, "validation": 1, "val": 1, "test": 2}
REPLACED = "\ufffd"
MAX_BAD, FEW_BAD = 0.1, 10  # share of lines in rows that are not like the header, and their number, that are too many
FIELD_LIMIT = 1 << 22  # characters


def separated_rows(
    path: Path, tally: Tally, accept_truncated: bool = False, advance: Advance | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The header (number 0) and the rows of a CSV or TSV file with the line each ends on.

    The separator is whichever of tab, comma, semicolon and | the header has most of. A row that the format does not allow
    or with another number of fields than the header is counted as dropped; so are blank lines. All are counted as read.

    Raises:
        UserError: if there is no header, the file cannot be read, or more than ten and more than a tenth of its lines are
            in rows of another format than the header's.
    """
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        texts = _texts(path, tally, accept_truncated, advance)
        first = next(texts, None)
        if first is None or not first.strip():
            raise UserError(f"{path.name}: the file is empty; expected a header with the names of the columns")
        separator = max("\t,;|", key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator))]
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise UserError(f"{path.name}: two columns are called '{twice}'")
        yield 0, header
        reader = csv.reader(texts, delimiter=separator, strict=True)
        lost, first_lost = 0, ""
        while True:
            line = reader.line_num + 2  # the row's first line; the header is line 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                tally.read += 1
                last = reader.line_num + 1
                where = f" (lines {line} to {last})" if last > line else ""
                tally.drop("not allowed by the format", line, f"{error}{where}")
                lost += last - line + 1
                first_lost = first_lost or f"line {line:,}: {error}{where}"
                continue
            tally.read += 1
            if not row:
                tally.drop("blank", line)
            elif len(row) != len(header):
                tally.drop("with another number of fields than the header", line, separator.join(row))
                lost += 1
                first_lost = first_lost or f"line {line:,}: {shown(separator.join(row))}"
            else:
                yield line, row
        if lost > max(FEW_BAD, MAX_BAD * reader.line_num):
            raise UserError(
                f"{path.name}: {lost:,} of {reader.line_num:,} lines do not have the {len(header)} fields of the header "
                f"between {separator!r} (first: {first_lost}); expected one separator in the whole file, and double quotes "
                "around fields that contain it"
            )
    except csv.Error as error:
        raise UserError(f"{path.name}: the header cannot be read: {error}") from None
    finally:
        csv.field_size_limit(before)


def _texts(path: Path, tally: Tally, accept_truncated: bool, advance: Advance | None) -> Iterator[str]:
    for number, line in read_lines(path, tally, accept_truncated, advance):
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{path.name}: it is UTF-16 text; save it as UTF-8")
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        yield line.decode("utf-8", "replace").replace("\0", REPLACED) + "\n"


def choose_columns(path: Path, header: Sequence[str], named: Mapping[str, str]) -> dict[str, int]:
    """Place of each column (user, item, rating, time, split): those named, else those with a known name.

    Raises:
        UserError: for a column that is not there, or where user or item cannot be told.
    """
    there = ", ".join(header)
    if any(number(name) is not None for name in header):
        there += " (the first line has to name the columns)"
    problems = [
        f"--columns: unknown column '{role}'{nearest(role, KNOWN_COLUMNS)}; there are {', '.join(KNOWN_COLUMNS)}"
        for role in named
        if role not in KNOWN_COLUMNS
    ]
    problems += [
        f"{path.name}: no column '{name}' ({role}){nearest(name, header)}; its columns are {there}"
        for role, name in named.items()
        if role in KNOWN_COLUMNS and name not in header
    ]
    lower = [name.lower() for name in header]
    found = {role: header.index(name) for role, name in named.items() if name in header}
    for role, names in KNOWN_COLUMNS.items():
        known = [name for name in names if name in lower]
        # A split is never assumed: a column of that name would decide what is trained on.
        if role not in named and role != "split" and known:
            found[role] = lower.index(known[0])
        elif role not in named and role in ("user", "item"):
            problems.append(
                f"{path.name}: which column is the {role}? say --columns {role}=NAME; its columns are {there}"
            )
    if problems:
        raise UserError(*problems)
    return found


def read_own(
    path: Path, named: Mapping[str, str], accept_truncated: bool = False, advance: Advance | None = None
) -> tuple[Interactions, Tally, dict[str, str]]:
    """Reads a user's own CSV or TSV file; ids are taken as text.

    Args:
        path: the file, plain or gzip, with a header.
        named: column for user, item, rating, time, split, as far as given.

    Returns:
        the table, what became of the rows, and the columns that were used.

    Raises:
        UserError: if columns are missing or nothing can be read.
    """
    tally = Tally(path.name, "rows", "line")
    rows = separated_rows(path, tally, accept_truncated, advance)
    _, header = next(rows)
    place = choose_columns(path, header, named)
    collector = Collector("rating" in place, "time" in place, "split" in place)
    for line, row in rows:
        user, item = row[place["user"]].strip(), row[place["item"]].strip()
        values: dict[str, Any] = {}
        problem = id_problem(user, "user") or id_problem(item, "item")
        if not problem and "rating" in place:
            values["rating"] = number(row[place["rating"]])
            problem = "with a rating that is no number" if values["rating"] is None else ""
        if not problem and "time" in place:
            values["time"] = moment(row[place["time"]])
            problem = "with a time that is neither a number nor an ISO date" if values["time"] is None else ""
        if not problem and "split" in place:
            values["label"] = SPLIT_WORDS.get(row[place["split"]].strip().lower())
            problem = "with a split other than 0, 1, 2" if values["label"] is None else ""
        if problem:
            tally.drop(problem, line, " ".join(row))
        else:
            tally.kept += 1
            collector.add(user, item, **values)
    return collector.table(), tally, {role: header[at] for role, at in place.items()}


def id_problem(value: str, what: str) -> str:
    """Why a text cannot be an id; empty if it can."""
    if not value:
        return f"without {what}"
    if REPLACED in value:
        return f"with an id of {what} that is not UTF-8"
    return "" if value.isprintable() else f"with an id of {what} that cannot be printed"


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e30 else None  # NaN is not less either


def moment(text: str) -> int | None:
    """A time as an integer: whole numbers as they stand, fractions rounded down, ISO dates as seconds since 1970 (UTC)."""
    text = text.strip()
    if (value := _whole(text)) is not None:
        return value
    try:
        date = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return int((date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp())


def _whole(text: str) -> int | None:
    try:
        return value if abs(value := int(text)) < 2**62 else None
    except ValueError:
        floating = number(text)
    return int(floating // 1) if floating is not None and abs(floating) < 2**53 else None
