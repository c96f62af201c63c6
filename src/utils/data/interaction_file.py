"""The layout of an interaction file as people have it: its separator, its columns, its words for the splits."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError

# Names of columns that are recognised, best first, in lower case and without RecBole's types (user_id:token).
KNOWN_COLUMNS = {
    "user": ("user", "userid", "user_id", "reviewerid", "uid"),
    "item": ("item", "itemid", "item_id", "asin", "parent_asin", "iid", "movieid", "movie_id"),
    "rating": ("rating", "ratings", "overall", "score", "stars"),
    "time": ("time", "timestamp", "unixreviewtime", "date", "datetime"),
    "split": ("x_label", "split"),
}
SPLIT_WORDS = {"0": 0, "1": 1, "2": 2, "train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1}
SPLIT_WORDS |= {"test": 2, "testing": 2}
# Of the settings: the key of each column, and the name that stands for "as people call it".
KEYS = {"user": ("user_id_field", "userID"), "item": ("item_id_field", "itemID"), "split": ("split_field", "x_label")}


def plain_names(header: Sequence[str]) -> list[str]:
    """The names of columns in lower case, without RecBole's types."""
    return [name.partition(":")[0].strip().lower() for name in header]


def separator_of(line: str) -> str:
    """The one of tab, comma, semicolon and | that a line has most of, else a space."""
    best = max("\t,;|", key=line.count)
    return best if best in line else " "


@dataclass(frozen=True)
class Layout:
    """How a file is read.

    Attributes:
        separator: between its fields.
        header: all names of its columns.
        columns: of users, items and splits.
        remark: what is not as the settings say, in a line; empty where all is.
    """

    separator: str
    header: list[str]
    columns: list[str]
    remark: str


def layout_of(path: Path, config: Mapping[str, Any]) -> Layout:
    """The layout that the first line shows: the separator and the columns of the settings, else others that are known.

    Raises:
        UserError: for a file without a line, that is no text, or without one of the columns.
    """
    wanted = [str(config[key]) for key, _ in KEYS.values()]
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline().rstrip("\r\n")
        if not first.strip():
            raise UserError(f"{path.name}: the file is empty; expected a header with {', '.join(wanted)}")
        given = config["field_separator"]
        separator = given if given in first else separator_of(first)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator, skipinitialspace=True))]
    except (ValueError, OSError, csv.Error) as error:  # among them UnicodeDecodeError
        raise UserError(f"{path.name}: cannot be read as a separated text file: {error}".splitlines()[0]) from None
    plain = plain_names(header)
    columns, missing = [], []
    for role, (key, ours) in KEYS.items():
        name = str(config[key])
        known = (name.lower(), *(KNOWN_COLUMNS[role] if name == ours else ()))
        place = header.index(name) if name in header else next((plain.index(n) for n in known if n in plain), None)
        if place is None:
            missing.append(name)
        else:
            columns.append(header[place])
    if missing:
        raise UserError(
            f"{path.name}: no column {', '.join(missing)}; its columns are {', '.join(header)} (separator {separator!r})"
        )
    remarks = [f"separator {separator!r}"] if separator != given else []
    others = [f"{column} as {name}" for column, name in zip(columns, wanted, strict=True) if column != name]
    remarks += [f"columns {', '.join(others)}"] if others else []
    return Layout(separator, header, columns, f"{path.name}: read with {', '.join(remarks)}" if remarks else "")
