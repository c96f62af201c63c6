"""Graphs as sparse matrices: building, normalising, and products with symmetric backward passes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from utils.dataset import Dataset


def bipartite_adjacency(
    users: NDArray[np.int64], items: NDArray[np.int64], n_users: int, n_items: int
) -> sp.csr_matrix:
    """A = [[0, R], [R^T, 0]], float64 [N, N], N = U + I, users first; a repeated pair counts once."""
    pairs = np.unique(users * n_items + items)
    rows, columns = pairs // n_items, pairs % n_items + n_users
    n = n_users + n_items
    upper = sp.coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(n, n))
    return (upper + upper.T).tocsr()


def normalize_symmetric(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1/2 A D^-1/2 with D the row sums; isolated nodes keep empty rows. float64 in and out."""
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    scale = np.zeros_like(degree)
    np.power(degree, -0.5, where=degree > 0, out=scale)
    return (sp.diags(scale) @ adjacency @ sp.diags(scale)).tocsr()


def normalized_interaction_graph(dataset: Dataset) -> SparseSymmetric:
    """D^-1/2 A D^-1/2 of the training interactions, [U + I, U + I], through the data set's cache."""

    def build() -> dict[str, NDArray[np.generic]]:
        train = dataset.train
        matrix = normalize_symmetric(bipartite_adjacency(train.users, train.items, dataset.n_users, dataset.n_items))
        matrix.sort_indices()
        return {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data.astype(np.float32)}

    arrays = dataset.derived("interaction-graph", 1, {"train": dataset.fingerprint["train"]}, build)
    n = dataset.n_users + dataset.n_items
    return SparseSymmetric(sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n, n)))


class SparseSymmetric(nn.Module):
    """A constant symmetric sparse matrix [N, N] in CSR form; its product with [N, D] has itself as backward.

    The arrays are buffers (they move with the module) that are not part of the state dict.

    Args:
        matrix: symmetric; the caller vouches for it.
    """

    offsets: Tensor  # [N + 1] int64
    columns: Tensor  # [E] int64
    weights: Tensor  # [E] float32

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        matrix = matrix.tocsr()
        matrix.sort_indices()
        self.register_buffer("offsets", torch.from_numpy(matrix.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("columns", torch.from_numpy(matrix.indices.astype(np.int64)), persistent=False)
        self.register_buffer("weights", torch.from_numpy(matrix.data.astype(np.float32)), persistent=False)

    def product(self, x: Tensor) -> Tensor:
        """A x for x [N, D], without a gradient.

        On a CPU a row of the result is a weighted bag of rows of x, for which PyTorch has a faster kernel than for its
        sparse types; elsewhere the CSR product is used.
        """
        if x.device.type != "cpu":
            return self.csr_product(x)
        return F.embedding_bag(
            self.columns,
            x,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights.to(x.dtype),
            include_last_offset=True,
        )

    def csr_product(self, x: Tensor) -> Tensor:
        """A x for x [N, D] by PyTorch's sparse product, without a gradient."""
        n = len(self.offsets) - 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
            csr = torch.sparse_csr_tensor(
                self.offsets, self.columns, self.weights.to(x.dtype), (n, n), check_invariants=False
            )
        return csr @ x

    def forward(self, x: Tensor) -> Tensor:
        """A x for x [N, D], differentiable in x."""
        return _Product.apply(x, self)

    def propagate_mean(self, x: Tensor, n_layers: int) -> Tensor:
        """1/(L+1) sum_{l=0..L} A^l x for x [N, D]: LightGCN's readout, differentiable in x.

        The operator is a polynomial of a symmetric matrix, so it is its own backward and no layer is stored.
        """
        return _PropagateMean.apply(x, self, n_layers) if n_layers else x


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseSymmetric) -> Tensor:
        ctx.matrix = matrix
        return matrix.product(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.product(gradient.contiguous()), None


class _PropagateMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseSymmetric, n_layers: int) -> Tensor:
        ctx.matrix, ctx.n_layers = matrix, n_layers
        return _mean_of_layers(x, matrix, n_layers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _mean_of_layers(gradient.contiguous(), ctx.matrix, ctx.n_layers), None, None


def _mean_of_layers(x: Tensor, matrix: SparseSymmetric, n_layers: int) -> Tensor:
    """Horner's scheme: x + A (x + A (x + ...)), which keeps one table at a time."""
    total = x
    for _ in range(n_layers):
        total = matrix.product(total).add_(x)
    return total.div_(n_layers + 1)
