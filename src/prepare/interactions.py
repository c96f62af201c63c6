"""Interactions as a table of columns: collected, cleaned, cut to a k-core, numbered, kept between steps."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import zipfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prepare.lines import Tally
from utils.data.dataset import split_column
from utils.errors import UserError
from utils.files import atomic_file


@dataclass
class Interactions:
    """Columns of equal length E, one row per interaction, in the order of the file.

    Attributes:
        users, items: int32 [E], places in user_ids and item_ids.
        ratings: float32 [E], or None.
        times: int64 [E], seconds or any unit that orders, or None.
        user_ids, item_ids: the original ids.
        labels: int8 [E], 0 train, 1 validation, 2 test, where the file says so.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ratings: NDArray[np.float32] | None
    times: NDArray[np.int64] | None
    user_ids: list[str]
    item_ids: list[str]
    labels: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.users)

    def sizes(self) -> dict[str, int]:
        """Numbers of users, items and rows."""
        return {"users": len(self.user_ids), "items": len(self.item_ids), "rows": len(self)}

    def rows(self, kept: NDArray[Any]) -> Interactions:
        """Some of the rows (a mask or places), with all ids."""
        columns = ("users", "items", "ratings", "times", "labels")
        some: dict[str, Any] = {
            name: None if (column := getattr(self, name)) is None else column[kept] for name in columns
        }
        return dataclasses.replace(self, **some)


class Collector:
    """Takes interactions one by one, in little memory.

    Args:
        ratings, times, labels: whether there are such columns.
    """

    def __init__(self, ratings: bool, times: bool, labels: bool = False) -> None:
        self.users, self.items = array("i"), array("i")
        self.ratings = array("f") if ratings else None
        self.times = array("q") if times else None
        self.labels = array("b") if labels else None
        self.user_of: dict[str, int] = {}
        self.item_of: dict[str, int] = {}

    def add(self, user: str, item: str, rating: float = 0.0, time: int = 0, label: int = 0) -> None:
        """One row more."""
        self.users.append(self.user_of.setdefault(user, len(self.user_of)))
        self.items.append(self.item_of.setdefault(item, len(self.item_of)))
        if self.ratings is not None:
            self.ratings.append(rating)
        if self.times is not None:
            self.times.append(time)
        if self.labels is not None:
            self.labels.append(label)

    def table(self) -> Interactions:
        """What was added."""

        def column(values: Any, kind: type) -> Any:
            if values is None:
                return None
            return np.frombuffer(values, dtype=kind) if len(values) else np.zeros(0, dtype=kind)

        return Interactions(
            column(self.users, np.int32),
            column(self.items, np.int32),
            column(self.ratings, np.float32),
            column(self.times, np.int64),
            list(self.user_of),
            list(self.item_of),
            column(self.labels, np.int8),
        )


# Cleaning


def above(table: Interactions, threshold: float | None, tally: Tally) -> Interactions:
    """Keeps the rows rated `threshold` or better.

    Raises:
        UserError: if there are no ratings.
    """
    if threshold is None:
        return table
    if table.ratings is None:
        raise UserError("--threshold: the interactions have no ratings; name their column with --columns rating=NAME")
    kept = table.ratings >= np.float32(threshold)
    return _dropped(table, kept, f"rated below {threshold:g}", tally)


def without_repeats(table: Interactions, keep: str, tally: Tally) -> Interactions:
    """Keeps one row of each (user, item) pair: the `first` or the `last` by time, then by place in the file."""
    pairs = table.users.astype(np.int64) * max(len(table.item_ids), 1) + table.items
    place = np.arange(len(table)) if keep == "first" else -np.arange(len(table))
    times = np.zeros(len(table), dtype=np.int64) if table.times is None else table.times
    order = np.lexsort((place, times if keep == "first" else -times, pairs))
    kept = np.zeros(len(table), dtype=bool)
    kept[order[np.diff(pairs[order], prepend=-1) != 0]] = True
    return _dropped(table, kept, f"repeated pairs, the {keep} kept", tally)


def k_core(table: Interactions, k: int, tally: Tally) -> tuple[Interactions, list[dict[str, int]]]:
    """Takes away users and items with fewer than k rows until all have k; the result is unique.

    Returns:
        the rows left, and for each round how many users, items and rows it took.
    """
    kept = np.ones(len(table), dtype=bool)
    rounds: list[dict[str, int]] = []
    while True:
        places = np.flatnonzero(kept)
        users, items = table.users[places], table.items[places]
        n_users = np.bincount(users, minlength=len(table.user_ids))
        n_items = np.bincount(items, minlength=len(table.item_ids))
        weak = (n_users[users] < k) | (n_items[items] < k)
        if not weak.any():
            break
        kept[places[weak]] = False
        few = {"users": (n_users > 0) & (n_users < k), "items": (n_items > 0) & (n_items < k), "rows": weak}
        rounds.append({name: int(mask.sum()) for name, mask in few.items()})
    return _dropped(table, kept, f"outside the {k}-core", tally), rounds


def _dropped(table: Interactions, kept: NDArray[np.bool_], reason: str, tally: Tally) -> Interactions:
    if kept.all():
        return table
    first = int(np.argmin(kept))
    example = f"{table.user_ids[table.users[first]]} {table.item_ids[table.items[first]]}"
    tally.drop(reason, 0, example, int((~kept).sum()))
    return table.rows(kept)


def renumbered(table: Interactions, keep_ids: bool = False) -> Interactions:
    """Numbers users and items from 0 in order of first appearance, leaving out those without a row.

    Args:
        table: the rows.
        keep_ids: the original ids are such numbers already, and stay.

    Raises:
        UserError: if ids that should stay are no whole numbers, or so large that they leave most numbers unused.
    """
    columns: dict[str, Any] = {}
    for what, ids in (("users", table.user_ids), ("items", table.item_ids)):
        used, first, places = np.unique(getattr(table, what), return_index=True, return_inverse=True)
        if keep_ids:
            numbers = _numbers(what, [ids[place] for place in used])
            names = [str(n) for n in range(int(numbers.max(initial=-1)) + 1)]
        else:
            order = np.argsort(first)
            numbers = np.empty(len(used), dtype=np.int64)
            numbers[order] = np.arange(len(used))
            names = [ids[place] for place in used[order]]
        columns |= {what: numbers[places.reshape(-1)].astype(np.int32), f"{what[:-1]}_ids": names}
    return dataclasses.replace(table, **columns)


def _numbers(what: str, ids: Sequence[str]) -> NDArray[np.int64]:
    bad = [name for name in ids if not re.fullmatch(r"(?a:0|[1-9]\d{0,8})", name)]
    if bad:
        raise UserError(
            f"--keep_ids: expected ids of {what} that are whole numbers from 0, got '{bad[0]}'; leave it out"
        )
    numbers = np.array([int(name) for name in ids], dtype=np.int64)
    if len(ids) and numbers.max() > 1000 * len(ids):
        raise UserError(f"--keep_ids: {len(ids):,} {what}, but an id of {numbers.max():,}; leave it out")
    return numbers


# Between steps


def save(table: Interactions, path: Path) -> None:
    """Writes a table as .npz (arrays only, the same bytes for the same table)."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in ("users", "items", "ratings", "times", "labels"):
        if (column := getattr(table, name)) is not None:
            arrays[name] = column
    for name in ("user_ids", "item_ids"):
        texts = [text.encode() for text in getattr(table, name)]
        arrays[name] = np.frombuffer(b"".join(texts), dtype=np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, column in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(column), allow_pickle=False)


def load(path: Path) -> Interactions:
    """Reads what `save` wrote."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    for name in ("user_ids", "item_ids"):
        blob, ends = found[name].tobytes(), found.pop(f"{name}_ends").tolist()
        found[name] = [blob[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]  # type: ignore[assignment]
    return Interactions(**{"ratings": None, "times": None, **found})  # type: ignore[arg-type]


def write_mapping(path: Path, ids: Sequence[str], field: str) -> None:
    """Writes original ids and their numbers, tab-separated, as `utils.data.id_mapping` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["original", field])
    writer.writerows((name, place) for place, name in enumerate(ids))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def write_inter(path: Path, table: Interactions, splits: Sequence[NDArray[np.int8]]) -> None:
    """Writes NAME.inter with a column for each split: x_label, x_label_2...; rows by user, then first split, then item."""
    order = np.lexsort((table.items, splits[0], table.users))
    columns: dict[str, list[Any]] = {"userID": table.users[order].tolist(), "itemID": table.items[order].tolist()}
    if table.ratings is not None:
        columns["rating"] = [f"{rating:g}" for rating in table.ratings[order].tolist()]
    if table.times is not None:
        columns["timestamp"] = table.times[order].tolist()
    columns |= {split_column("x_label", number): labels[order].tolist() for number, labels in enumerate(splits)}
    with atomic_file(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in zip(*columns.values(), strict=True):
            file.write(("\t".join(map(str, row)) + "\n").encode())
