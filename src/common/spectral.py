"""What the training interactions say before anything is learned.

Their singular vectors, the items' popularity and co-occurrence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.features import leading_directions

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

NEGLIGIBLE = 1e-6  # of the largest singular value


def spectral_embeddings(dataset: Dataset, width: int, power: float) -> tuple[Tensor, Tensor]:
    """Singular vectors of D_u^-1/2 R D_i^-1/2 times the `power` of their singular values, for users and items.

    R is 1 where a user took an item in training, D_u and D_i are its row and column sums. Each table is brought to a mean
    square of 1. The largest singular value is 1, so the power damps the directions that are mostly chance. Computed on the
    CPU with a fixed seed, whatever the device, and kept in the data set's cache.

    Args:
        width: most singular vectors that are wanted.
        power: at least 0.

    Returns:
        float32 [U, K] and [I, K], K = `width` or fewer where the matrix has no more; a node without interactions has zeros.
    """

    def build() -> dict[str, NDArray[np.float32]]:
        matrix = normalized_interactions(dataset)
        items = leading_directions(matrix, width)  # [I, K]
        items[np.diff(matrix.tocsc().indptr) == 0] = 0  # but for rounding they are
        users = matrix @ items  # singular vectors times singular values
        values = np.linalg.norm(users, axis=0)
        kept = values > NEGLIGIBLE * values.max(initial=0)
        values = values[kept].astype(np.float64)
        sides = {"users": users[:, kept] * values ** (power - 1), "items": items[:, kept] * values**power}
        return {name: unit_mean_square(side) for name, side in sides.items()}

    inputs = {"train": dataset.fingerprint["train"], "width": width, "power": power}
    arrays = dataset.derived("spectral-embeddings", 1, inputs, build)
    return torch.from_numpy(arrays["users"]), torch.from_numpy(arrays["items"])


def log_popularity(dataset: Dataset, damping: float = 0.0) -> Tensor:
    """log(1 + popularity in training) of each item, less its mean over items: float32 [I].

    Popularity is the number of users that took the item. With a damping each counts n_u^-damping, n_u the user's number of
    interactions, times a factor with which the sum over all items stays the same.
    """
    users, items = _pairs(dataset)
    weights = np.bincount(users)[users] ** -damping
    counts = np.bincount(items, weights, minlength=dataset.n_items) * (len(users) / max(weights.sum(), 1e-9))
    logs = np.log1p(counts)
    return torch.from_numpy((logs - logs.mean()).astype(np.float32))


MOST_COMPANIONS = 100  # of a user; what an evaluation lists are the first 50 or so
USERS_AT_ONCE = 1024


def co_occurrence_bytes(dataset: Dataset) -> int:
    """The most that `co_occurring_items` takes while it counts: 20 for each pair of a user's items, or of all items."""
    taken = np.bincount(_pairs(dataset)[0], minlength=1).astype(np.float64)
    return 20 * int(min(np.square(taken).sum(), float(dataset.n_items) ** 2))


def co_occurring_items(dataset: Dataset, damping: float) -> tuple[Tensor, Tensor]:
    """The items that other users took together with a user's own, and how much.

    Of user u and item i: the mean over u's items j of sum_v 1 / n_v over the users v who took both j and i, divided by
    n_i^damping; n are numbers of interactions. That is a random walk from the user over an own item and another user to
    an item, but for its step to that user, which is not weighed by the own item's popularity. Only training interactions
    count, each pair once; own items are left out. Computed on the CPU, kept in the data set's cache.

    Args:
        damping: at least 0.

    Returns:
        int32 [U, K], the K = 100 items (or all, if there are fewer) with the largest values, the smaller id first among
        equals, and float32 [U, K], their values; both zeros where there are fewer.

    Source: three-step walks rank items in Cooper et al., "Random walks in recommender systems" (WWW 2014), damped in
    Paudel et al., "Updatable, accurate, diverse, and scalable recommendations" (TiiS 2017).
    """

    def build() -> dict[str, NDArray[Any]]:
        users, items = _pairs(dataset)
        own = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(dataset.n_users, dataset.n_items))
        taken = np.maximum(np.diff(own.indptr), 1).astype(np.float32)
        by = np.maximum(np.bincount(items, minlength=dataset.n_items), 1).astype(np.float64)
        steps = (own.T @ sp.diags(1 / taken) @ own @ sp.diags(by**-damping)).tocsr().astype(np.float32)  # [I, I]
        width = min(MOST_COMPANIONS, dataset.n_items)
        found = np.zeros((dataset.n_users, width), np.int32)
        values = np.zeros((dataset.n_users, width), np.float32)
        for begin in range(0, dataset.n_users, USERS_AT_ONCE):
            block = own[begin : begin + USERS_AT_ONCE]
            reached = sp.diags(1 / taken[begin : begin + USERS_AT_ONCE]) @ block @ steps
            others = (reached - reached.multiply(block)).tocsr()
            others.eliminate_zeros()
            others.sort_indices()
            for row in range(block.shape[0]):
                entries = slice(*others.indptr[row : row + 2])
                best = _largest(others.data[entries], width)
                found[begin + row, : len(best)] = others.indices[entries][best]
                values[begin + row, : len(best)] = others.data[entries][best]
        return {"items": found, "values": values}

    inputs = {"train": dataset.fingerprint["train"], "damping": damping, "most": MOST_COMPANIONS}
    arrays = dataset.derived("co-occurring-items", 1, inputs, build)
    return torch.from_numpy(arrays["items"]), torch.from_numpy(arrays["values"])


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of the `count` largest values, ascending; among equals the first."""
    if len(values) <= count:
        return np.arange(len(values))
    least = -np.partition(-values, count - 1)[count - 1]
    above = np.flatnonzero(values > least)
    return np.sort(np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]]))


def _pairs(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and items of the training interactions, each pair once."""
    pairs = np.unique(dataset.train.users * dataset.n_items + dataset.train.items)
    return pairs // dataset.n_items, pairs % dataset.n_items


def normalized_interactions(dataset: Dataset) -> sp.csr_matrix:
    """D_u^-1/2 R D_i^-1/2 [U, I] of the training interactions, float32."""
    return _normalized_pairs(*_pairs(dataset), dataset.n_users, dataset.n_items)


def _normalized_pairs(users: NDArray[np.int64], items: NDArray[np.int64], n_users: int, n_items: int) -> sp.csr_matrix:
    """D_u^-1/2 R D_i^-1/2 [U, I] of pairs that stand once each, float32."""
    weights = (np.bincount(users)[users] * np.bincount(items)[items].astype(np.float64)) ** -0.5
    return sp.csr_matrix((weights.astype(np.float32), (users, items)), shape=(n_users, n_items))


def unit_mean_square(table: NDArray[np.floating]) -> NDArray[np.float32]:
    """`table` over the root of its mean square; zeros as they are."""
    mean_square = np.mean(np.square(table)) if table.size else 0
    return np.ascontiguousarray(table / np.sqrt(mean_square) if mean_square else table, dtype=np.float32)
