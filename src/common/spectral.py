"""What the training interactions alone say before anything is learned: their singular vectors, and the items' popularity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.features import leading_directions

if TYPE_CHECKING:
    from utils.dataset import Dataset

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
        matrix = _normalized_interactions(dataset)
        items = leading_directions(matrix, width)  # [I, K]
        items[np.diff(matrix.tocsc().indptr) == 0] = 0  # but for rounding they are
        users = matrix @ items  # singular vectors times singular values
        values = np.linalg.norm(users, axis=0)
        kept = values > NEGLIGIBLE * values.max(initial=0)
        values = values[kept].astype(np.float64)
        sides = {"users": users[:, kept] * values ** (power - 1), "items": items[:, kept] * values**power}
        return {name: _unit_mean_square(side) for name, side in sides.items()}

    inputs = {"train": dataset.fingerprint["train"], "width": width, "power": power}
    arrays = dataset.derived("spectral-embeddings", 1, inputs, build)
    return torch.from_numpy(arrays["users"]), torch.from_numpy(arrays["items"])


def log_popularity(dataset: Dataset) -> Tensor:
    """log(1 + users that took the item in training) of each item, less its mean over items: float32 [I]."""
    logs = np.log1p(np.bincount(_pairs(dataset)[1], minlength=dataset.n_items))
    return torch.from_numpy((logs - logs.mean()).astype(np.float32))


def _pairs(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and items of the training interactions, each pair once."""
    pairs = np.unique(dataset.train.users * dataset.n_items + dataset.train.items)
    return pairs // dataset.n_items, pairs % dataset.n_items


def _normalized_interactions(dataset: Dataset) -> sp.csr_matrix:
    """D_u^-1/2 R D_i^-1/2 [U, I], float32."""
    users, items = _pairs(dataset)
    weights = (np.bincount(users)[users] * np.bincount(items)[items].astype(np.float64)) ** -0.5
    shape = (dataset.n_users, dataset.n_items)
    return sp.csr_matrix((weights.astype(np.float32), (users, items)), shape=shape)


def _unit_mean_square(table: NDArray[np.floating]) -> NDArray[np.float32]:
    mean_square = np.mean(np.square(table)) if table.size else 0
    return np.ascontiguousarray(table / np.sqrt(mean_square) if mean_square else table, dtype=np.float32)
