"""A user-user graph from a file: reading it, checking it against the training split, converting MMRec's pickled one.

Format: a .npz file with the integer arrays indptr [U + 1], indices [E] and counts [E]. The co-users of user u are
indices[indptr[u]:indptr[u + 1]], best first, and counts says how many training items each shares with u.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from utils.data.pickles import read_pickle
from utils.errors import UserError
from utils.files import write_bytes

ARRAYS = ("indptr", "indices", "counts")
COMMAND = "python src/main.py convert_user_graph"
LOOKUPS = 2**22  # of pairs' items at a time


def read_user_graph(path: Path, train: sp.csr_matrix) -> sp.csr_matrix:
    """The graph of a file as counts [U, U], each row in the order of the file, checked against the training split.

    Args:
        path: the .npz file.
        train: the 0/1 training matrix [U, I].

    Raises:
        UserError: if it is not of the format or does not fit the users, or where users share more items than they do in
            training: those were counted with interactions that the model must not know.
    """
    if path.suffix == ".npy":
        raise UserError(
            f"{path.name}: a .npy user graph holds a pickle, which is not read; convert it by "
            f"`{COMMAND} {path} {path.with_suffix('.npz')}` and name the .npz as user_graph_file"
        )
    graph = read_arrays(path, train.shape[0])
    rows, true = shared_in_training(graph, train)
    wrong = np.flatnonzero(graph.data > true)
    if len(wrong):
        at = int(wrong[0])
        raise UserError(
            f"{path.name}: {len(wrong):,} of {len(rows):,} user pairs share more training items than the training split "
            f"has (first: users {rows[at]} and {graph.indices[at]}: {graph.data[at]:,} in the file, {true[at]:,} in the "
            "training split): validation or test interactions leaked into the graph; leave user_graph_file out and it is "
            "computed from the training split"
        )
    return graph


def shared_in_training(graph: sp.csr_matrix, train: sp.csr_matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each pair of a graph [U, U]: its row, and how many training items the two share; int64 [E] each."""
    rows = np.repeat(np.arange(train.shape[0]), graph.indptr[1:] - graph.indptr[:-1])
    return rows, shared_items(train, rows, graph.indices)


def read_arrays(path: Path, n_users: int) -> sp.csr_matrix:
    """The graph of a file as counts [U, U], each row in the order of the file; nothing but its format is checked.

    Raises:
        UserError: if it is not of the format or does not fit the users.
    """
    try:
        # Opened here, since np.load leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            indptr, indices, counts = (stored[name] for name in ARRAYS)
    except FileNotFoundError:
        raise UserError(
            f"user_graph_file: no file {path}; leave the key out and the graph is computed from the training split"
        ) from None
    except KeyError:
        raise UserError(f"{path.name}: expected the arrays {', '.join(ARRAYS)} (see {COMMAND})") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects" if "allow_pickle" in str(error) else str(error).partition("\n")[0]
        raise UserError(f"{path.name}: not a .npz file of numbers: {reason}") from None
    problem = _misfit(indptr, indices, counts, n_users)
    if problem:
        raise UserError(f"{path.name}: {problem}")
    # Users after the last listed one have no co-users.
    indptr = np.concatenate([indptr, np.full(n_users + 1 - len(indptr), indptr[-1], dtype=indptr.dtype)])
    graph = sp.csr_matrix((n_users, n_users), dtype=np.int64)
    # Put in place, since the constructor would be free to sort.
    graph.indptr, graph.indices, graph.data = (array.astype(np.int64) for array in (indptr, indices, counts))
    return graph


def _misfit(indptr: NDArray[Any], indices: NDArray[Any], counts: NDArray[Any], n_users: int) -> str:
    """What is wrong with the arrays, or an empty string."""
    arrays = dict(zip(ARRAYS, (indptr, indices, counts), strict=True))
    for name, array in arrays.items():
        if array.dtype.kind not in "iu" or array.ndim != 1:
            return f"{name}: expected a row of integers, got {array.dtype} {list(array.shape)}"
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        return f"indptr: expected offsets that rise from 0 to the {len(indices):,} indices"
    if len(counts) != len(indices):
        return f"counts: expected one for each of the {len(indices):,} indices, got {len(counts):,}"
    if len(indptr) - 1 > n_users:
        return f"lists of {len(indptr) - 1:,} users, but the data set has {n_users:,}: it belongs to another one"
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_users:
        return f"indices: expected user ids from 0 to {n_users - 1}, got {indices.min()} to {indices.max()}"
    if len(counts) and int(counts.min()) < 1:
        return f"counts: expected at least 1 shared item, got {counts.min()}"
    offsets = indptr.astype(np.int64)
    rows = np.repeat(np.arange(len(indptr) - 1), offsets[1:] - offsets[:-1])
    own = np.flatnonzero(rows == indices)
    if len(own):
        return f"user {rows[own[0]]} is in the list of its own co-users"
    pairs, times = np.unique(rows * n_users + indices.astype(np.int64), return_counts=True)
    if (times > 1).any():
        user, other = divmod(int(pairs[np.argmax(times)]), n_users)
        return f"user {other} is twice in the list of user {user}"
    return ""


def shared_items(train: sp.csr_matrix, users: NDArray[Any], others: NDArray[Any]) -> NDArray[np.int64]:
    """How many columns of a 0/1 matrix [U, I] the rows users[p] and others[p] share: int64 [P].

    Each item of the one with fewer is looked up among the other's, in blocks.
    """
    train = train.tocsr()
    train.sort_indices()
    n_items, starts = train.shape[1], train.indptr.astype(np.int64)
    degree = starts[1:] - starts[:-1]
    keys = np.repeat(np.arange(len(degree)) * n_items, degree) + train.indices  # ascending
    fewer = np.where(degree[users] <= degree[others], users, others)
    more = users + others - fewer
    shared = np.zeros(len(users), dtype=np.int64)
    block_of = np.cumsum(degree[fewer]) // LOOKUPS
    bounds = [*np.flatnonzero(np.diff(block_of, prepend=-1)), len(users)]
    for begin, end in itertools.pairwise(bounds):
        lengths = degree[fewer[begin:end]]
        pair = np.repeat(np.arange(end - begin), lengths)
        first = starts[fewer[begin:end]] - (np.cumsum(lengths) - lengths)
        items = train.indices[np.arange(len(pair)) + first[pair]]
        wanted = more[begin:end][pair] * n_items + items
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        shared[begin:end] = np.bincount(pair[keys[places] == wanted], minlength=end - begin)
    return shared


# The pickled dictionary {user: [co-users, counts]} that MMRec's preprocessing saves


def convert_user_graph(source: Path, target: Path) -> tuple[int, int]:
    """Writes the .npz form of a `user_graph_dict.npy`; returns the numbers of users and pairs.

    The pickle inside is read by a reader that runs nothing that it names, see utils/data/pickles.py.

    Raises:
        UserError: if the file is anything else, or the target cannot be written.
    """
    if target.suffix != ".npz":
        raise UserError(f"convert_user_graph: expected a target that ends in .npz, got {target}")
    content = _unpickled(source)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{source.name}: expected a dictionary of users, got {_kind(content)}")
    lists = {_whole(source, user, "a user's id"): _pair(source, user, entry) for user, entry in content.items()}
    n_users = 1 + max([*lists, *(int(ids.max()) for ids, _ in lists.values() if len(ids))])
    empty = np.zeros(0, dtype=np.int64)
    rows = [lists.get(user, (empty, empty)) for user in range(n_users)]
    indptr = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in rows])])
    indices, counts = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
    if problem := _misfit(indptr, indices, counts, n_users):
        raise UserError(f"{source.name}: {problem}")

    buffer = io.BytesIO()
    np.savez_compressed(buffer, indptr=indptr, indices=indices.astype(np.int32), counts=counts.astype(np.int32))
    write_bytes(target, buffer.getvalue())
    return n_users, len(indices)


def _pair(source: Path, user: Any, entry: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The co-users and counts of one entry of the dictionary."""
    if isinstance(entry, list | tuple | np.ndarray) and len(entry) == 2:
        ids, counts = ([_whole(source, x, f"an id or count of user {user}") for x in _plain(part)] for part in entry)
        if len(ids) == len(counts):
            return np.array(ids, dtype=np.int64), np.array(counts, dtype=np.int64)
    raise UserError(f"{source.name}: user {user}: expected [co-users, counts], two lists of one length")


def _plain(part: Any) -> list[Any]:
    if isinstance(part, np.ndarray):
        return list(part.ravel().tolist())
    return list(part) if isinstance(part, list | tuple) else [part]


def _whole(source: Path, value: Any, what: str) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1 and 0 <= value < 2**31:
        return int(value)
    raise UserError(f"{source.name}: {what}: expected a whole number from 0 up, got {_kind(value)}")


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else type(value).__name__.strip("_").lower()


def _unpickled(path: Path) -> Any:
    """The single object in an object array of a .npy file."""
    headers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        with open(path, "rb") as file:
            shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
            content = file.read()
    except FileNotFoundError:
        raise UserError(f"convert_user_graph: no file {path}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a broken header raises many kinds
        raise UserError(f"{path.name}: not a .npy file with a dictionary: {error}".splitlines()[0]) from None
    if not dtype.hasobject or shape not in ((), (1,)):
        raise UserError(f"{path.name}: expected the dictionary that MMRec saves, got {dtype} {list(shape)}")
    found = read_pickle(content, path.name)
    if not isinstance(found, np.ndarray) or found.size != 1:
        raise UserError(f"{path.name}: expected the dictionary that MMRec saves, got {_kind(found)}")
    return found.reshape(-1)[0]
