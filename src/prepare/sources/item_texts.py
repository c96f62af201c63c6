"""Texts of items from a user's own table, and the file in which items go from step to step."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prepare.lines import NOT_KEPT, Advance, Tally
from prepare.pipeline import whole_file
from prepare.sources.separated import KNOWN_COLUMNS, REPLACED, id_problem, separated_rows
from utils.errors import UserError, nearest


@dataclass(frozen=True)
class Item:
    """What is known of an item: its text, and the address of its image; empty where there is none."""

    id: str
    text: str
    image: str = ""


def first_wanted(name: str, wanted: Container[str], seen: set[str], tally: Tally, at: int) -> bool:
    """Whether an item's row is kept, which it counts: the first one of an item that is wanted, noted in `seen`."""
    if name not in wanted:
        tally.drop(NOT_KEPT, 0, name)
    elif name in seen:
        tally.drop("of an item that has one already", at, name)
    else:
        seen.add(name)
        tally.kept += 1
        return True
    return False


def read_texts(
    path: Path,
    columns: Sequence[str],
    id_column: str | None,
    wanted: Mapping[str, int],
    accept_truncated: bool = False,
    advance: Advance | None = None,
    item_column: str | None = None,
) -> Iterator[Item | Tally]:
    """Reads the texts of the wanted items from a CSV or TSV file with a header: each once, then the tally.

    Args:
        path: the file.
        columns: whose words make the text, in this order; none: all but that of the ids.
        id_column: of the original item ids; None: the one called like that of the interactions, or with a known name.
        wanted: the items.
        item_column: of the interactions.

    Raises:
        UserError: if columns are missing.
    """
    tally = Tally(path.name, "rows", "line")
    rows = separated_rows(path, tally, accept_truncated, advance)
    _, header = next(rows)
    key, places = _columns(path, header, columns, id_column, item_column)
    seen: set[str] = set()
    for at, row in rows:
        name = row[key].strip()
        if problem := id_problem(name, "item"):
            tally.drop(problem, at, " ".join(row))
        elif first_wanted(name, wanted, seen, tally, at):
            text = " ".join(" ".join(row[place].split()) for place in places if row[place].strip())
            if not text:
                tally.note("kept, without any text", at, name)
            if REPLACED in text:
                tally.note("kept, with text that is not UTF-8", at, name)
            yield Item(name, text)
    yield tally


def _columns(
    path: Path, header: Sequence[str], columns: Sequence[str], id_column: str | None, item_column: str | None
) -> tuple[int, list[int]]:
    there = ", ".join(header)
    problems = [
        f"{path.name}: no column '{name}'{nearest(name, header)}; its columns are {there}"
        for name in (*columns, *([id_column] if id_column else []))
        if name not in header
    ]
    if id_column is None and item_column in header:
        id_column = item_column
    elif id_column is None:
        lower = [name.lower() for name in header]
        known = [name for name in (*KNOWN_COLUMNS["item"], "id") if name in lower]
        if known:
            id_column = header[lower.index(known[0])]
        else:
            problems.append(
                f"{path.name}: which column holds the item's id? say --text_id NAME; its columns are {there}"
            )
    chosen = [header.index(name) for name in columns if name in header]
    if not problems and not columns:
        chosen = [place for place, name in enumerate(header) if name != id_column]
        if not chosen:
            problems.append(f"{path.name}: no column besides '{id_column}' that could be a text")
    if problems:
        raise UserError(*problems)
    assert id_column is not None
    return header.index(id_column), chosen


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Writes items as JSON lines."""
    with whole_file(path) as file:
        for item in items:
            file.write((json.dumps([item.id, item.text, item.image], ensure_ascii=False) + "\n").encode())


def stored_items(path: Path) -> Iterator[Item]:
    """Reads what `write_items` wrote."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield Item(*json.loads(line))
