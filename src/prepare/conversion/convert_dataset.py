"""Conversions between the project's format and those that other frameworks read.

- `mmrec`, the project's own: a folder with NAME.inter, features and mapping files beside it.
- `recbole`: atomic files, NAME.inter with typed headers, either NAME.train.inter, NAME.valid.inter and NAME.test.inter (what
  `benchmark_filename` reads) or one file with a column of splits.
- `mmssl`, as LATTICE and MMSSL have it: train.json, val.json, test.json (user to list of items) and the pickled sparse
  matrices train_mat, val_mat, test_mat, either or both.
- `csv`: one row an interaction, with columns for user, item and split.
- `user_graph`: MMRec's pickled user_graph_dict.npy and the .npz that runs read.

Ids that count from 0 are kept, and files whose rows follow them (features, masks, mappings) are copied as they are.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prepare.conversion.formats import READERS, WRITERS, Table
from prepare.file_tools import make_named_folder
from prepare.interactions import write_mapping
from utils.data.dataset import SPLITS
from utils.data.user_graph_file import convert_user_graph, read_arrays
from utils.errors import UserError, nearest
from utils.files import write_bytes

COMPANIONS = ("*_feat.npy", "*_mask.npy", "*mapping*.csv", "*mapping*.tsv")


def convert(source: Path, target: Path, form: str, to: str, single: bool = False, renumber: bool = False) -> list[str]:
    """Converts a data set; returns lines on what was written and what has no place in the target format.

    Args:
        source: a folder, or the file of a csv or recbole data set.
        target: the folder to make.
        form: format of the source.
        to: format of the target.
        single: one recbole file in place of three.
        renumber: number users and items again.

    Raises:
        UserError: if the source is not of the format, or the target holds a data set already.
    """
    problems = [f"convert: unknown format '{word}'{nearest(word, READERS)}; there are {', '.join(READERS)}, user_graph"
                for word in (form, to) if word not in READERS]  # fmt: skip
    if not problems and form == to and not (single or renumber):
        problems.append(f"convert: {form} to {to}: nothing to convert; name another format with --to")
    elif not problems and single and to != "recbole":
        problems.append("convert: --single goes with --to recbole")
    if problems:
        raise UserError(*problems)
    table = READERS[form](source)
    users, user_names = _numbers("users", table.users, table, renumber)
    items, item_names = _numbers("items", table.items, table, renumber)
    if table.split_up:
        order = np.argsort(users, kind="stable")
        users, items, table.labels = users[order], items[order], table.labels[order]
        table.others = {name: np.asarray(column, dtype=object)[order].tolist() for name, column in table.others.items()}
    companions = sorted({path for pattern in COMPANIONS for path in table.folder.glob(pattern)})
    if user_names is not None or item_names is not None:
        if companions:
            names = ", ".join(path.name for path in companions)
            table.notes.append(
                f"ids were numbered again, so files whose rows follow the old ones are left out: {names}"
            )
        companions = []
    # All contents are made before anything is written; the file that makes it a data set comes last.
    files = WRITERS[to](users, items, table, target.name, single)
    existing = [name for name in files if (target / name).exists()]
    if existing:
        raise UserError(f"convert: {target} holds {', '.join(existing)} already: delete it or choose another folder")
    make_named_folder(target, "OUT")
    for path in companions:
        write_bytes(target / path.name, path.read_bytes())
    mappings = {"u_id_mapping.csv": (user_names, "userID"), "i_id_mapping.csv": (item_names, "itemID")}
    for file, (ids, column) in mappings.items():
        if ids is not None:
            write_mapping(target / file, ids, column)
    for name, content in files.items():
        write_bytes(target / name, content)
    counts = ", ".join(f"{int((table.labels == label).sum()):,} {name}" for label, name in enumerate(SPLITS))
    copied = "".join(f", {path.name}" for path in companions)
    return [
        f"{target}: {', '.join(files)}{copied}",
        f"{len(users):,} interactions ({counts}), users up to {int(users.max()):,}, items up to {int(items.max()):,}",
        *(f"note: {note}" for note in table.notes),
    ]


def _numbers(what: str, ids: Sequence[str], table: Table, renumber: bool) -> tuple[NDArray[np.int64], list[str] | None]:
    """Numbers [E] of ids, and the id of each number; None where ids are numbers already and are kept."""
    codes, unique = pd.factorize(np.asarray(ids, dtype=object))
    names = [str(name) for name in unique]
    numeric = all(re.fullmatch(r"0|[1-9]\d{0,9}", name) for name in names)
    if numeric and not renumber:
        numbers = np.array([int(name) for name in names], dtype=np.int64)
        gaps = int(numbers.max()) + 1 - len(numbers)
        if table.kept or gaps <= len(numbers):  # else raw ids, for which rows of features would be no use
            if gaps:
                table.notes.append(f"{what} keep their numbers, {gaps:,} of which nobody has")
            return numbers[codes], None
    return codes.astype(np.int64), names


# User graphs


def pickle_user_graph(source: Path, target: Path) -> tuple[int, int]:
    """Writes the dictionary that MMRec reads, {user: [co-users, counts]}, from the .npz form; users and pairs.

    Raises:
        UserError: if the source is not of that form, or the target cannot be written.
    """
    try:
        with open(source, "rb") as file, np.load(file, allow_pickle=False) as stored:
            n_users = len(stored["indptr"]) - 1
    except (OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{source}: not a user graph in .npz form ({type(error).__name__})") from None
    graph = read_arrays(source, n_users)
    lists = {}
    for user in range(n_users):
        part = slice(graph.indptr[user], graph.indptr[user + 1])
        lists[user] = [graph.indices[part].tolist(), graph.data[part].tolist()]
    buffer = io.BytesIO()
    np.save(buffer, np.array(lists, dtype=object), allow_pickle=True)  # MMRec's format is a pickle; it is not read here
    write_bytes(target, buffer.getvalue())
    return n_users, len(graph.indices)


def convert_graph(source: Path, target: Path) -> list[str]:
    """Converts a user graph, in the direction that the endings .npy and .npz say; returns a line on what was written.

    Raises:
        UserError: for other endings, a target that is there, or a source that is no user graph.
    """
    kinds = source.suffix, target.suffix
    if kinds not in ((".npy", ".npz"), (".npz", ".npy")):
        raise UserError(f"convert: user_graph: expected a .npy and a .npz file, either way, got {source} and {target}")
    if target.exists():
        raise UserError(f"convert: {target} is there already: delete it or choose another name")
    n_users, n_pairs = (convert_user_graph if kinds[0] == ".npy" else pickle_user_graph)(source, target)
    return [f"{target}: {n_users:,} users, {n_pairs:,} co-users"]
