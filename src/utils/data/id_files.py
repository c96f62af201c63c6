"""Files that name users and items by their original ids: lists, pairs and titles, separated by commas or tabs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError

HEADINGS = {"id", "item", "item_id", "itemid", "user", "user_id", "userid"}  # of a first line without ids


def read_items(path: Path) -> list[str]:
    """Ids of items, one a line; a first line such as `item` is a heading.

    Raises:
        UserError: if the file cannot be read or has more columns.
    """
    rows = list(_rows(path, {1}, "an item id a line"))
    return [item for (item,) in rows]


def read_exclusions(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of user and item, and items for all users: of two columns pairs, of one column items.

    Raises:
        UserError: if the file cannot be read or has other columns.
    """
    rows = list(_rows(path, {1, 2}, "user,item or an item id a line"))
    return [(row[0], row[1]) for row in rows if len(row) == 2], [row[0] for row in rows if len(row) == 1]


def read_titles(path: Path) -> dict[str, str]:
    """Item id to title: of a file whose first line names a column `title`; ids are in `id`, `item` or the first column.

    Raises:
        UserError: if the file cannot be read or has no such column.
    """
    heading, *rows = list(_lines(path)) or [[]]
    names = [name.strip().lower() for name in heading]
    if "title" not in names or len(names) < 2:
        raise UserError(f"{path}: expected a first line that names the columns, as id,title; got {','.join(heading)!r}")
    title = names.index("title")
    key = next((number for number, name in enumerate(names) if name in HEADINGS), 1 if title == 0 else 0)
    return {row[key]: row[title] for row in rows if len(row) > max(key, title)}


def _rows(path: Path, widths: set[int], expected: str) -> Iterator[list[str]]:
    for number, row in enumerate(_lines(path), 1):
        cells = [cell.strip() for cell in row]
        if len(cells) not in widths:
            raise UserError(f"{path}, line {number}: expected {expected}, got {len(cells)} columns")
        if number > 1 or cells[-1].lower() not in HEADINGS:
            yield cells


def _lines(path: Path) -> Iterator[list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            separator = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            yield from (row for row in csv.reader(file, delimiter=separator) if any(row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({why})") from None
