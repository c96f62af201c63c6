"""Rows of CSV and TSV files: separator and columns are detected, rows of another format are counted."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from prepare.lines import Reading, Tally, read_lines, shown
from prepare.sources.source import REPLACED, number
from utils.data.interaction_file import KNOWN_COLUMNS, plain_names, separator_of
from utils.errors import UserError, nearest

MAX_BAD, FEW_BAD = 0.1, 10  # a file is refused if more than this share and number of its lines are of another format
FIELD_LIMIT = 1 << 22  # characters


def separated_rows(
    path: Path, tally: Tally, how: Reading, default_header: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """The header (number 0), then the rows of a CSV or TSV file with the line each one begins on.

    The separator is the one of tab, comma, semicolon and | that the header has most of, else a space. Blank lines and rows
    with another number of fields than the header are counted as dropped.

    Args:
        path: the file.
        tally: counts the rows; the caller counts the kept ones.
        how: see `Reading`.
        default_header: the names of the columns where the first line holds none of them; none: it must be a header.

    Raises:
        UserError: if there is no header, the file cannot be read, or more than ten and more than a tenth of its lines are
            of another format than the header.
    """
    before = csv.field_size_limit(FIELD_LIMIT)
    try:
        texts = _texts(path, tally, how)
        first = next(texts, None)
        if first is None or not first.strip():
            raise UserError(f"{path.name}: the file is empty; expected a header with the names of the columns")
        separator = separator_of(first)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator))]
        head = 1
        if default_header and not set(plain_names(header)) & set(default_header):
            header, head, texts = list(default_header), 0, _again(first, texts)
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise UserError(f"{path.name}: two columns are called '{twice}'")
        yield 0, header
        reader = csv.reader(texts, delimiter=separator, strict=True)
        lost, first_lost = 0, ""
        while True:
            line = reader.line_num + 1 + head
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                tally.read += 1
                last = reader.line_num + head
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


def _texts(path: Path, tally: Tally, how: Reading) -> Iterator[str]:
    for number_, line in read_lines(path, tally, how):
        if number_ == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{path.name}: it is UTF-16 text; save it as UTF-8")
        line = line.removeprefix(b"\xef\xbb\xbf") if number_ == 1 else line
        yield line.decode("utf-8", "replace").replace("\0", REPLACED) + "\n"


def _again(first: str, texts: Iterator[str]) -> Iterator[str]:
    yield first
    yield from texts


def choose_columns(path: Path, header: Sequence[str], named: Mapping[str, str]) -> dict[str, int]:
    """Place of each column (user, item, rating, time, split): those named, else those with a known name.

    Raises:
        UserError: for a column that is not there, or if user or item is not found.
    """
    listed = ", ".join(header)
    if any(number(name) is not None for name in header):
        listed += " (the first line has to name the columns)"
    problems = [
        f"--columns: unknown column '{role}'{nearest(role, KNOWN_COLUMNS)}; there are {', '.join(KNOWN_COLUMNS)}"
        for role in named
        if role not in KNOWN_COLUMNS
    ]
    problems += [
        f"{path.name}: no column '{name}' ({role}){nearest(name, header)}; its columns are {listed}"
        for role, name in named.items()
        if role in KNOWN_COLUMNS and name not in header
    ]
    plain = plain_names(header)
    found = {role: header.index(name) for role, name in named.items() if name in header}
    for role, names in KNOWN_COLUMNS.items():
        known = [name for name in names if name in plain]
        # A split is never assumed: a column of that name would decide what is trained on.
        if role not in named and role != "split" and known:
            found[role] = plain.index(known[0])
        elif role not in named and role in ("user", "item"):
            problems.append(
                f"{path.name}: which column is the {role}? add --columns {role}=NAME; its columns are {listed}"
            )
    if problems:
        raise UserError(*problems)
    return found


def timestamp(text: str) -> int | None:
    """A time as an integer: whole numbers as they are, fractions rounded down, ISO dates as seconds since 1970 (UTC)."""
    text = text.strip()
    try:
        return value if abs(value := int(text)) < 2**62 else None
    except ValueError:
        floating = number(text)
    if floating is not None:
        return int(floating // 1) if abs(floating) < 2**53 else None
    try:
        date = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return int((date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp())
