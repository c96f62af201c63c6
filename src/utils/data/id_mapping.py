"""Original ids of users and items, where the data set's folder has mapping files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError


def original_ids(config: Mapping[str, Any], field: str, n: int) -> list[str]:
    """Names of the ids 0..n-1 of `field`: from a mapping file if there is one, else the numbers themselves.

    A mapping file is any `*mapping*.csv` or `.tsv` in the data set's folder with exactly two columns, one named `field`
    (the number), as the published data sets have it (`u_id_mapping.csv`, `i_id_mapping.csv`).

    Raises:
        UserError: if such a file has no integer ids, or leaves out an id.
    """
    folder = Path(config["data_path"]) / config["dataset"]
    files = [p for p in sorted(folder.glob("*mapping*")) if p.suffix in (".csv", ".tsv")] if folder.is_dir() else []
    for path in files:
        try:
            table = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
        except (ValueError, OSError, csv.Error) as error:
            raise UserError(f"{path.name}: cannot be read as a mapping file: {error}".splitlines()[0]) from None
        if field not in table.columns or len(table.columns) != 2:
            continue
        names = next(column for column in table.columns if column != field)
        numbers = pd.to_numeric(table[field], errors="coerce")
        bad = ~numbers.between(0, 2**53) | (numbers % 1 != 0)
        if bad.any():
            raise UserError(f"{path.name}: column {field} holds {table[field][bad].iloc[0]!r}, no integer from 0 up")
        by_number = dict(zip(numbers.astype(int), table[names], strict=True))
        missing = [number for number in range(n) if number not in by_number]
        if missing:
            raise UserError(f"{path.name}: no row for {field} {missing[0]} ({len(missing):,} missing)")
        return [by_number[number] for number in range(n)]
    return [str(number) for number in range(n)]


@dataclass(frozen=True)
class Names:
    """Original ids of users or items by number, and back.

    Attributes:
        kind: user or item.
        ids: by number.
    """

    kind: str
    ids: list[str]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """By original id; where two are called alike, the first."""
        return {name: number for number, name in reversed(list(enumerate(self.ids)))}

    def find(self, wanted: Iterable[object]) -> tuple[list[int], list[str]]:
        """The numbers of ids, each once and in order, and the ids that are not known; 3 is the same id as "3"."""
        words = list(dict.fromkeys(str(one) for one in wanted))
        return [self.numbers[w] for w in words if w in self.numbers], [w for w in words if w not in self.numbers]

    def all_of(self, wanted: Iterable[object]) -> list[int]:
        """The number of each id, repeats included.

        Raises:
            UserError: if one is not known.
        """
        words = [str(one) for one in wanted]
        if unknown := [word for word in words if word not in self.numbers]:
            raise UserError(f"there is no {self.kind} {quoted(unknown)}; {self.looks()}")
        return [self.numbers[word] for word in words]

    def looks(self) -> str:
        """How ids look, for messages."""
        return f"ids of {self.kind}s look like {', '.join(map(repr, self.ids[:3]))}"


def quoted(words: list[str], most: int = 5) -> str:
    """'a', 'b' and 3 more."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(map(repr, words[:most])) + more
