"""The one function of the package sparsesvd, whose sources no longer build."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

Array = NDArray[np.float64]


def sparsesvd(matrix: Any, k: int) -> tuple[Array, Array, Array]:
    """The k largest singular values s [k] of a sparse matrix [m, n], descending, with rows u^T [k, m] and v^T [k, n]."""
    matrix = matrix.tocsc().astype(np.float64)
    smaller = min(matrix.shape)
    k = min(k, smaller)
    if k == smaller:  # the iteration gives less than all
        left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
        return left.T[:k], values[:k], right[:k]
    start = np.random.default_rng(0).standard_normal(smaller)  # else it begins anywhere
    left, values, right = svds(matrix, k=k, v0=start)
    order = np.argsort(-values)
    return left.T[order], values[order], right[order]
