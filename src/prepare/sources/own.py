"""A user's own tables: interactions, and texts of items, in CSV or TSV files with a header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prepare.interactions import Collector, Interactions
from prepare.lines import Reading, Tally
from prepare.sources.separated import choose_columns, separated_rows, timestamp
from prepare.sources.source import Item, id_problem, is_first_wanted, item_of_words, number
from utils.data.interaction_file import KNOWN_COLUMNS, SPLIT_WORDS, plain_names
from utils.errors import UserError, nearest

OWN, TEXTS = "own", "texts"


class OwnTables:
    """The source of a user's own tables: the files `own` (interactions) and `texts` (items)."""

    name = OWN

    def interaction_file(self, files: Mapping[str, Path]) -> Path:
        return files[OWN]

    def item_file(self, files: Mapping[str, Path]) -> Path | None:
        return files.get(TEXTS)

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        return read_interactions(files[OWN], how)

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        return read_items(files[TEXTS], wanted, how)


SOURCE = OwnTables()


def read_interactions(
    path: Path, how: Reading, default_header: Sequence[str] = ()
) -> tuple[Interactions, Tally, dict[str, str]]:
    """Reads a table of interactions, plain or gzip; ids are taken as text.

    Args:
        path: the file.
        how: names columns for user, item, rating, time, split that are called otherwise than `KNOWN_COLUMNS`.
        default_header: see `separated_rows`.

    Raises:
        UserError: if columns are missing or the file cannot be read.
    """
    tally = Tally(path.name, "rows", "line")
    rows = separated_rows(path, tally, how, default_header)
    _, header = next(rows)
    place = choose_columns(path, header, how.columns)
    collector = Collector("rating" in place, "time" in place, "split" in place)
    for line, row in rows:
        user, item = row[place["user"]].strip(), row[place["item"]].strip()
        values: dict[str, Any] = {}
        problem = id_problem(user, "user") or id_problem(item, "item")
        if not problem and "rating" in place:
            values["rating"] = number(row[place["rating"]])
            problem = "with a rating that is no number" if values["rating"] is None else ""
        if not problem and "time" in place:
            values["time"] = timestamp(row[place["time"]])
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


def read_items(
    path: Path, wanted: Mapping[str, int], how: Reading, default_header: Sequence[str] = ()
) -> Iterator[Item | Tally]:
    """Reads the texts of the wanted items from a table: each once, then the tally.

    Args:
        path: the file.
        wanted: the items' ids.
        how: `text_columns` names the columns that make the text, in order (none: all but that of the ids), `text_id` the
            column of the ids (None: the one called as in the interactions, or with a known name).
        default_header: see `separated_rows`.

    Raises:
        UserError: if columns are missing.
    """
    tally = Tally(path.name, "rows", "line")
    rows = separated_rows(path, tally, how, default_header)
    _, header = next(rows)
    key, places = _text_columns(path, header, how)
    seen: set[str] = set()
    for at, row in rows:
        name = row[key].strip()
        if problem := id_problem(name, "item"):
            tally.drop(problem, at, " ".join(row))
        elif is_first_wanted(name, wanted, seen, tally, at):
            for place in places:
                if not row[place].strip():
                    tally.note(f"kept, with an empty column '{header[place]}'", at, name)
            yield item_of_words(name, [row[place] for place in places], tally, at)
    yield tally


def _text_columns(path: Path, header: Sequence[str], how: Reading) -> tuple[int, list[int]]:
    """The place of the ids' column, and of the columns that make the text."""
    listed, key, columns = ", ".join(header), how.text_id, how.text_columns
    problems = [
        f"{path.name}: no column '{name}'{nearest(name, header)}; its columns are {listed}"
        for name in (*columns, *([key] if key else []))
        if name not in header
    ]
    if key is None and how.columns.get("item") in header:
        key = how.columns["item"]
    elif key is None:
        plain = plain_names(header)
        known = [name for name in (*KNOWN_COLUMNS["item"], "id") if name in plain]
        if known:
            key = header[plain.index(known[0])]
        else:
            problems.append(
                f"{path.name}: which column holds the item's id? add --text_id NAME; its columns are {listed}"
            )
    chosen = [header.index(name) for name in columns if name in header]
    if not problems and not columns:
        chosen = [place for place, name in enumerate(header) if name != key]
        if not chosen:
            problems.append(f"{path.name}: no column besides '{key}' that could be a text")
    if problems:
        raise UserError(*problems)
    return header.index(str(key)), chosen
