"""Content features made ready for learning: standardised and reduced, or projected beside users' preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from common.initial import xavier_normal_embedding

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

ITERATIONS = 4


def standardized_features(dataset: Dataset, modality: str, rank: int) -> Tensor:
    """The features of a modality with zero mean and unit mean square, float32 [I, min(F, rank)].

    With 0 < `rank` < F they are reduced to their leading `rank` principal components, the best linear approximation of
    that rank; a linear layer over them is one over the raw features restricted to those directions. Items that lack the
    modality take no part, and have rows of zeros. Computed on the CPU with a fixed seed, whatever the device, and kept
    in the data set's cache.
    """
    raw = dataset.features[modality]

    def build() -> dict[str, NDArray[np.float32]]:
        present = dataset.present.get(modality)
        own = raw if present is None else raw[present]
        n = max(len(own), 1)
        centred = raw - (own.sum(axis=0, dtype=np.float64) / n).astype(np.float32)
        if present is not None:
            centred[~present] = 0
        if 0 < rank < centred.shape[1]:
            centred = centred @ leading_directions(centred, rank)
        scale = np.sqrt(np.mean(np.square(centred), dtype=np.float64) * (len(raw) / n))
        return {"features": (centred / (scale if scale > 0 else 1)).astype(np.float32)}

    inputs = {"features": dataset.fingerprint[modality], "rank": rank}
    return torch.from_numpy(dataset.derived("standardized", 1, inputs, build)["features"])


def leading_directions(matrix: NDArray[np.float32] | sp.csr_matrix | LinearOperator, rank: int) -> NDArray[np.float32]:
    """The leading right singular vectors [F, rank] of a matrix or operator [I, F], by randomised subspace iteration.

    Source: Halko et al., "Finding structure with randomness" (arXiv 0909.4061), with `ITERATIONS` power iterations.
    """
    rank = min(rank, *matrix.shape)
    random = np.random.Generator(np.random.PCG64(0))
    width = min(rank + 16, *matrix.shape)
    basis = matrix.T @ random.standard_normal((matrix.shape[0], width), dtype=np.float32)
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(basis)
        basis = matrix.T @ (matrix @ basis)
    basis, _ = np.linalg.qr(basis)
    _, _, rotation = np.linalg.svd(matrix @ basis, full_matrices=False)
    directions = basis @ rotation[:rank].T
    # The sign of a singular vector is arbitrary: the largest entry is made positive.
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.ascontiguousarray(directions * np.where(largest < 0, -1, 1), dtype=np.float32)


class PreferencesAndContent(nn.Module):
    """Rows of unit length for all nodes in one modality: users' free preferences, items' projected content features.

    X = rownorm([P ; LReLU(F W_1 + b_1) W_2 + b_2]) with slope 0.01; P is Xavier normal, the layers have PyTorch's own start.

    Args:
        n_users: U.
        n_features: width F of the features.
        width: D.
        hidden: width between the two layers.

    Source: the start of MMGCN's successors, DualGNN and DRAGON (arXiv 2301.12097).
    """

    dense_methods = ("forward",)

    def __init__(self, n_users: int, n_features: int, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.preference = xavier_normal_embedding(n_users, width)
        self.first = nn.Linear(n_features, hidden)
        self.second = nn.Linear(hidden, width)

    def project(self, features: Tensor) -> Tensor:
        """Projected content [I, D], rows of any length, for features [I, F]."""
        items: Tensor = self.second(F.leaky_relu(self.first(features)))
        return items

    def forward(self, features: Tensor) -> Tensor:
        """[U + I, D], users first, for features [I, F]."""
        return F.normalize(torch.cat([self.preference, self.project(features)]), dim=1)
