"""Checks of graphs that lie beside a data set: do they count interactions that training does not have?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from audit.check import LEAK, PASS, WARNING, Check
from utils.data.dataset import Split
from utils.data.loading import MMREC_USER_GRAPH
from utils.data.raw_dataset import Raw
from utils.data.user_graph_file import ARRAYS, COMMAND, convert_user_graph, read_arrays, shared_in_training
from utils.errors import UserError


def check_graphs(raw: Raw, train: Split, user_graph: Path | None) -> list[Check]:
    """Graphs in the folder, and a user graph named on the command line, against the training split."""
    ones = np.ones(len(train), dtype=np.float32)
    matrix = sp.csr_matrix((ones, (train.users, train.items)), shape=(raw.n_users, raw.n_items))
    checks = []
    paths = sorted(raw.folder.glob("*.npz")) if raw.folder else []
    if user_graph is not None:
        inside = raw.folder / user_graph if raw.folder and not user_graph.exists() else user_graph
        path = inside if inside.exists() else user_graph
        paths = [other for other in paths if not path.exists() or not other.samefile(path)]
        checks.append(_overlaps(f"user graph {path.name}", read_arrays(path, raw.n_users), matrix))
    checks += [_graph_of_file(f"user graph {path.name}", path, matrix) for path in paths if _holds_graph(path)]
    for path in sorted(raw.folder.glob("*graph*.npy")) if raw.folder else []:
        of_items = "item" in path.name
        shared = matrix.T.tocsr() if of_items else matrix
        checks.append(_pickled(path, "item" if of_items else "user", shared))
    return checks or [Check("graph files", PASS, "none in the folder: graphs are computed from the training split")]


def _holds_graph(path: Path) -> bool:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return set(ARRAYS) <= set(stored.files)
    except (OSError, ValueError, EOFError):
        return False


def _graph_of_file(name: str, path: Path, matrix: sp.csr_matrix) -> Check:
    try:
        return _overlaps(name, read_arrays(path, matrix.shape[0]), matrix)
    except UserError as error:
        return Check(name, WARNING, f"not checked: {error.problems[0]}")


def _pickled(path: Path, kind: str, matrix: sp.csr_matrix) -> Check:
    """A dictionary of co-users or co-items as MMRec saves it: no run reads it, but what it holds is checked."""
    name = f"{kind} graph {path.name}"
    advice = f"; runs do not read it (`{COMMAND} {path.name} OUT.npz` converts it)" if path.name == MMREC_USER_GRAPH else (
        "; runs do not read it, graphs are computed from the training split"
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "graph.npz"
        try:
            convert_user_graph(path, target)
        except UserError as error:
            return Check(name, WARNING, f"not checked: {error.problems[0]}{advice}")
        check = _graph_of_file(name, target, matrix)
    verdict = check.verdict if check.verdict != PASS else WARNING
    return Check(name, verdict, check.text.replace("graph.npz", path.name) + advice, check.numbers)


def _overlaps(name: str, graph: sp.csr_matrix, matrix: sp.csr_matrix) -> Check:
    """Counts of a graph against those of the training split [R, C]."""
    rows, true = shared_in_training(graph, matrix)
    wrong = np.flatnonzero(graph.data > true)
    numbers = {"pairs": len(rows), "leaking_pairs": len(wrong), "surplus": int((graph.data - true)[wrong].sum())}
    if not len(wrong):
        return Check(name, PASS, f"none of its {len(rows):,} pairs share more than they do in training", numbers)
    at = int(wrong[0])
    text = (
        f"{len(wrong):,} of {len(rows):,} pairs ({len(wrong) / len(rows):.1%}) share more than they do in training (first: "
        f"{rows[at]} and {graph.indices[at]}: {graph.data[at]:,} for {true[at]:,}): counted with held-out interactions"
    )
    return Check(name, LEAK, text, numbers)
