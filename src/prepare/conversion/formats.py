"""Readers and writers of the formats that interactions come in; see convert.py for what they are.

A reader gives a table of texts, in the order of the files. A writer gives the contents of all files before any is written.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from utils.config.request import Request, resolve
from utils.data.dataset import SPLITS
from utils.data.interaction_file import KNOWN_COLUMNS, SPLIT_WORDS, layout_of
from utils.data.pickles import load_pickle
from utils.errors import UserError

RECBOLE_TYPES = {"rating": "float", "timestamp": "float"}  # of further columns: token
MMSSL_NAMES = ("train", "val", "test")


@dataclass
class Table:
    """Interactions as texts, in the order of the files.

    Attributes:
        users, items: ids [E].
        labels: 0 train, 1 validation, 2 test, int8 [E].
        others: further columns [E] each, by name.
        folder: where companion files lie.
        notes: what was met, and what the target has no place for.
        kept: whether ids must stay as they are.
        split_up: the rows came from a file for each split, so how the splits lay among each other is not known.
    """

    users: Sequence[str]
    items: Sequence[str]
    labels: NDArray[np.int8]
    others: dict[str, Sequence[str]]
    folder: Path
    notes: list[str] = field(default_factory=list)
    kept: bool = False
    split_up: bool = False


# Readers


def _read_rows(path: Path, separator: str) -> pd.DataFrame:
    """A separated file as texts.

    Raises:
        UserError: if it cannot be read, or a row has other fields than the header.
    """
    quoting: Any = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE  # only CSV knows quotes
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
            header = next(reader, [])
            rows = []
            for row in reader:
                if len(row) != len(header) and row:
                    raise UserError(
                        f"{path.name}: line {reader.line_num}: {len(row)} fields, expected the {len(header)} of the header"
                    )
                rows += [row] * bool(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path.name}: cannot be read as a separated text file: {error}") from None
    if len(set(header)) < len(header) or not header:
        raise UserError(f"{path.name}: expected a header with the names of the columns, got {separator.join(header)!r}")
    if not rows:
        raise UserError(f"{path.name}: no rows below the header; expected interactions")
    return pd.DataFrame(rows, columns=header, dtype=object)


def _column(rows: pd.DataFrame, role: str, path: Path) -> str:
    """The column of a role: by the names that are known for it, whatever type a header adds.

    Raises:
        UserError: if there is none.
    """
    plain = {str(name).partition(":")[0].strip().lower(): str(name) for name in rows.columns}
    for known in KNOWN_COLUMNS[role]:
        if known in plain:
            return plain[known]
    listed = ", ".join(map(str, rows.columns))
    if role == "split":
        raise UserError(
            f"{path.name}: no column that tells the split (x_label or split); there are {listed}; without a split, "
            f"`main.py prepare NAME --interactions {path.name}` makes one"
        )
    raise UserError(
        f"{path.name}: no column for the {role} ({', '.join(KNOWN_COLUMNS[role][:4])}); there are {listed}; rename it"
    )


def _labels(words: Iterable[str], path: Path) -> NDArray[np.int8]:
    labels = [SPLIT_WORDS.get(word.strip().lower().removesuffix(".0"), -1) for word in words]
    if -1 in labels:
        at = labels.index(-1)
        word = list(words)[at]
        raise UserError(
            f"{path.name}: row {at + 1} below the header: the split is {word!r}, expected {', '.join(SPLIT_WORDS)}"
        )
    return np.array(labels, dtype=np.int8)


def _table(rows: pd.DataFrame, path: Path, labels: NDArray[np.int8] | None, names: tuple[str, str]) -> Table:
    """Rows with named columns of users and items; labels None: there is a column of splits."""
    split = None if labels is not None else _column(rows, "split", path)
    found = _labels(rows[split].tolist(), path) if split is not None else labels
    assert found is not None
    for name in names:
        empty = (rows[name].str.strip() == "").to_numpy()
        if empty.any():
            row = int(np.argmax(empty)) + 1
            raise UserError(f"{path.name}: row {row} below the header: {name} is empty, expected an id")
    others = [str(name) for name in rows.columns if name not in (*names, split)]
    return Table(
        rows[names[0]].tolist(),
        rows[names[1]].tolist(),
        found,
        {name.partition(":")[0]: rows[name].tolist() for name in others},
        path.parent,
    )


def read_mmrec(source: Path) -> Table:
    """A folder of the project's own format, with the names of columns that its dataset.yaml says."""
    folder = source.parent if source.is_file() else source
    name = folder.absolute().name
    (config,), _ = resolve(
        Request(["convert"], [name], {"data_path": [str(folder.absolute().parent)]}), {"convert": None}
    )
    path = source if source.is_file() else folder / (config["inter_file_name"] or f"{name}.inter")
    layout = layout_of(_existing(path), config)
    rows, names = _read_rows(path, layout.separator), layout.columns
    labels = _labels(rows[names[2]].tolist(), path)
    table = _table(rows.drop(columns=names[2]), path, labels, (names[0], names[1]))
    table.kept = True
    return table


def read_recbole(source: Path) -> Table:
    """Atomic files: one .inter with a column of splits, or one for each split."""
    if source.is_file():
        return _read_one(source, "\t")
    files = {path.name: path for path in sorted(_existing(source).glob("*.inter"))}
    found = [{n.removesuffix(f".{split}.inter"): p for n, p in files.items() if n.endswith(f".{split}.inter")}
             for split in SPLITS]  # fmt: skip
    names = set(found[0]) & set(found[1]) & set(found[2])
    if len(names) == 1:
        (name,) = names
        return _joined([_read_rows(part[name], "\t") for part in found], [part[name] for part in found])
    if len(files) == 1:
        return _read_one(next(iter(files.values())), "\t")
    listing = ", ".join(files) or "no .inter file"
    raise UserError(
        f"{source}: expected one .inter file or NAME.train.inter, NAME.valid.inter, NAME.test.inter; there is {listing}"
    )


def _read_one(path: Path, separator: str) -> Table:
    rows = _read_rows(_existing(path), separator)
    return _table(rows, path, None, (_column(rows, "user", path), _column(rows, "item", path)))


def _joined(parts: list[pd.DataFrame], paths: list[Path]) -> Table:
    """Files of the three splits as one table."""
    columns = list(parts[0].columns)
    for rows, path in zip(parts, paths, strict=True):
        if list(rows.columns) != columns:
            raise UserError(
                f"{path.name}: its columns are {', '.join(rows.columns)}, those of {paths[0].name} {', '.join(columns)}"
            )
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(rows) for rows in parts])
    names = _column(parts[0], "user", paths[0]), _column(parts[0], "item", paths[0])
    table = _table(pd.concat(parts, ignore_index=True), paths[0], labels, names)
    table.split_up = True
    return table


def read_csv(source: Path) -> Table:
    """A CSV file, or a folder with one besides mapping files."""
    if source.is_dir():
        files = [path for path in sorted(source.glob("*.csv")) if "mapping" not in path.name]
        if len(files) != 1:
            raise UserError(f"{source}: expected one .csv file, got {', '.join(p.name for p in files) or 'none'}")
        source = files[0]
    return _read_one(source, ",")


def read_mmssl(source: Path) -> Table:
    """The dictionaries or sparse matrices of LATTICE and MMSSL; where both are there they must agree."""
    folder = _existing(source)
    if not any((folder / name).is_file() for name in ("train.json", "train_mat", "train_mat.pkl")):
        folder = folder / "5-core" if (folder / "5-core").is_dir() else folder  # where LATTICE keeps them
    splits = [_mmssl_split(folder, name) for name in MMSSL_NAMES]
    pairs = np.concatenate(splits)
    if not len(pairs):
        raise UserError(f"{folder}: no interactions in any of the three splits")
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(rows) for rows in splits])
    features_folder = folder if any(folder.glob("*_feat.npy")) else source
    users, items = (pairs[:, column].astype(str).tolist() for column in (0, 1))
    return Table(users, items, labels, {}, features_folder, kept=True, split_up=True)


def _mmssl_split(folder: Path, name: str) -> NDArray[np.int64]:
    """Users and items [E, 2] of one split."""
    found = [_pairs_of_json(path) for path in [folder / f"{name}.json"] if path.is_file()]
    found += [_pairs_of_matrix(path) for path in (folder / f"{name}_mat", folder / f"{name}_mat.pkl") if path.is_file()]
    if not found:
        listing = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        raise UserError(f"{folder}: no {name}.json and no {name}_mat; there is {listing}")
    differ = set(map(tuple, found[0].tolist())) ^ set(map(tuple, found[-1].tolist()))
    if differ:
        user, item = min(differ)
        raise UserError(
            f"{name}.json and {name}_mat differ in {len(differ):,} interactions (first: user {user}, item {item}); remove "
            "the one that is not right"
        )
    return found[0]


def _pairs_of_json(path: Path) -> NDArray[np.int64]:
    """Users and items [E, 2] of a dictionary of lists."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path.name}: cannot be read as JSON: {error}".splitlines()[0]) from None
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: expected an object of users and lists of items, got {type(content).__name__}")
    rows = []
    for user, items in content.items():
        numbers = isinstance(items, list) and all(type(item) is int and 0 <= item < 2**31 for item in items)
        if not numbers or not re.fullmatch(r"0|[1-9]\d{0,9}", user):
            raise UserError(f"{path.name}: user {user!r}: expected a number and a list of numbers from 0 up")
        rows += [(int(user), item) for item in items]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _pairs_of_matrix(path: Path) -> NDArray[np.int64]:
    """Users and items [E, 2] of a pickled sparse matrix, one row for each entry that is not 0."""
    matrix = load_pickle(path)
    if not sp.issparse(matrix):
        raise UserError(f"{path.name}: expected a sparse matrix, got {type(matrix).__name__}")
    matrix = matrix.tocsr()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix = matrix.tocoo()
    return np.stack([matrix.row, matrix.col], axis=1).astype(np.int64)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"convert: there is no {path}")
    return path


# Writers: file names and contents, the one that makes it a data set last

Ids = NDArray[np.int64]


def _text(columns: Mapping[str, Any], separator: str) -> bytes:
    """A separated file of columns by header."""
    frame = pd.DataFrame(columns)
    if separator == "\t":
        for name in columns:
            column = frame[name]
            if not is_numeric_dtype(column) and column.astype(str).str.contains(r"[\t\r\n]").any():
                raise UserError(
                    f"convert: column {name} holds a tab or the end of a line, which the format cannot have"
                )
    text = io.StringIO()
    frame.to_csv(text, sep=separator, index=False, lineterminator="\n", quoting=0 if separator == "," else 3)
    return text.getvalue().encode()


def write_mmrec(users: Ids, items: Ids, table: Table, name: str, single: bool) -> dict[str, bytes]:
    """NAME.inter."""
    columns: dict[str, Any] = {"userID": users, "itemID": items, **table.others, "x_label": table.labels}
    return {f"{name}.inter": _text(columns, "\t")}


def write_recbole(users: Ids, items: Ids, table: Table, name: str, single: bool) -> dict[str, bytes]:
    """NAME.train.inter, NAME.valid.inter and NAME.test.inter, or NAME.inter with a column of splits."""
    columns: dict[str, Any] = {"user_id:token": users, "item_id:token": items}
    columns |= {f"{key}:{RECBOLE_TYPES.get(key, 'token')}": values for key, values in table.others.items()}
    if single:
        return {f"{name}.inter": _text(columns | {"x_label:token": table.labels}, "\t")}
    frame = pd.DataFrame(columns)
    return {
        f"{name}.{split}.inter": _text(dict(frame[table.labels == label].items()), "\t")
        for label, split in enumerate(SPLITS)
    }


def write_csv(users: Ids, items: Ids, table: Table, name: str, single: bool) -> dict[str, bytes]:
    """NAME.csv with the words train, valid and test."""
    split = np.array(SPLITS)[table.labels]
    return {f"{name}.csv": _text({"user": users, "item": items, **table.others, "split": split}, ",")}


def write_mmssl(users: Ids, items: Ids, table: Table, name: str, single: bool) -> dict[str, bytes]:
    """train.json, val.json, test.json and the matrices train_mat, val_mat, test_mat."""
    if table.others:
        table.notes.append(f"mmssl has no place for {', '.join(table.others)}: left out")
    shape = (int(users.max()) + 1, int(items.max()) + 1)
    files: dict[str, bytes] = {}
    for label, split in reversed(list(enumerate(MMSSL_NAMES))):
        rows = table.labels == label
        lists: dict[int, list[int]] = {}
        for user, item in zip(users[rows].tolist(), items[rows].tolist(), strict=True):
            lists.setdefault(user, []).append(item)
        pairs = np.unique(users[rows] * shape[1] + items[rows])
        ones = np.ones(len(pairs), dtype=np.float32)
        matrix = sp.csr_matrix((ones, (pairs // shape[1], pairs % shape[1])), shape=shape)
        files[f"{split}_mat"] = pickle.dumps(matrix, protocol=4)
        files[f"{split}.json"] = json.dumps(lists).encode()
    return files


READERS: dict[str, Callable[[Path], Table]] = {
    "mmrec": read_mmrec, "recbole": read_recbole, "mmssl": read_mmssl, "csv": read_csv
}  # fmt: skip
WRITERS: dict[str, Callable[[Ids, Ids, Table, str, bool], dict[str, bytes]]] = {
    "mmrec": write_mmrec, "recbole": write_recbole, "mmssl": write_mmssl, "csv": write_csv
}  # fmt: skip
