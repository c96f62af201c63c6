"""Graphs of users and of items that files open beside the data: made from the training rows, and handed over.

A file reads `user_graph_dict.npy` as {user: [co-users, shared items]}, most first, and `item_graph_dict_2.npy` likewise
of items, for counts of at least 2. Both hold a pickle, which is never loaded: where the user has one, its numbers are read
by a reader that makes nothing else, and checked for interactions that the model must not know.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from common.neighbours import largest_co_occurrences
from mmrec.running import GRAPH_NAMES, Run, current
from utils.data.user_graph_file import convert_user_graph, read_arrays, shared_in_training
from utils.errors import UserError

MOST = 200  # neighbours of each in the published files


def handed_over(path: Path) -> NDArray[Any] | None:
    """What `numpy.load` gives for a graph of users or items: an array of one dictionary; None for any other file."""
    run = current()
    if run is None:
        return None
    found = re.fullmatch(GRAPH_NAMES, path.name)
    kind = run.graph_files.get(path.name) or (found and found.group(1))
    if kind is None or path.suffix != ".npy":
        return None
    given = _given(run, path)
    lists = _checked(run, given, kind) if given else _made(run, kind, _least(path.name))
    run.opened[path.name] = f"{kind} graph, " + (f"from {given}, checked" if given else "made from the training rows")
    content = np.empty((), dtype=object)
    content[()] = {
        row: [neighbours.tolist(), counts.astype(float).tolist()] for row, (neighbours, counts) in enumerate(lists)
    }
    return content


def _given(run: Run, path: Path) -> Path | None:
    """The user's own file, or None where there is only what stands for it in the run's folder."""
    for place in (run.source / path.name, path.absolute()):
        if place.is_file() and run.folder not in place.resolve().parents:
            return place
    return None


def _least(name: str) -> int:
    """The smallest count that a file of this name lists: the number at its end."""
    digits = re.search(r"dict_(\d+)\.npy$", name)
    return int(digits.group(1)) if digits else 1


def _made(run: Run, kind: str, least: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    def build() -> dict[str, NDArray[np.generic]]:
        lists = largest_co_occurrences(_rows(run, kind), MOST)
        return {"indptr": lists.indptr, "indices": lists.indices, "counts": lists.data.astype(np.int32)}

    inputs = {"train": run.dataset.fingerprint["train"], "k": MOST}
    arrays = run.dataset.derived(f"{kind}-co-occurrences", 1, inputs, build)
    rows = _split(arrays["indptr"], arrays["indices"], arrays["counts"])
    return [(neighbours[counts >= least], counts[counts >= least]) for neighbours, counts in rows]


def _rows(run: Run, kind: str) -> sp.csr_matrix:
    """The training matrix with the users, or the items, as rows."""
    train = run.dataset.inter_matrix("csr")
    return train if kind == "user" else train.T.tocsr()


def _checked(run: Run, path: Path, kind: str) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The lists of a file of the user's.

    Raises:
        UserError: if it holds something else, or counts that the training rows do not have.
    """
    target = run.folder / f"{path.stem}.npz"
    convert_user_graph(path, target)
    train = _rows(run, kind)
    graph = read_arrays(target, train.shape[0])
    rows, true = shared_in_training(graph, train)
    wrong = np.flatnonzero(graph.data > true)
    if len(wrong):
        at = int(wrong[0])
        raise UserError(
            f"{path}: {len(wrong):,} of {len(rows):,} pairs of {kind}s share more than they do in training "
            f"(first: {rows[at]} and {graph.indices[at]}: {graph.data[at]:,} in the file, {true[at]:,} in training): "
            "validation or test interactions leaked into it; take the file away and it is made from the training rows"
        )
    return _split(graph.indptr, graph.indices, graph.data)


def _split(
    indptr: NDArray[Any], indices: NDArray[Any], counts: NDArray[Any]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    bounds = indptr[1:-1]
    return list(zip(np.split(indices, bounds), np.split(counts, bounds), strict=True))
