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
    matrix = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n, n))
    return SparseSymmetric(matrix, dataset.n_users)


class SparseSymmetric(nn.Module):
    """A constant symmetric sparse matrix [N, N] in CSR form; its product with [N, D] has itself as backward.

    The arrays are buffers (they move with the module) that are not part of the state dict.

    Args:
        matrix: symmetric; the caller vouches for it.
        split: for a bipartite graph, the number of nodes of the first kind; edges then join the two kinds only.
    """

    offsets: Tensor  # [N + 1] int64
    columns: Tensor  # [E] int64
    weights: Tensor  # [E] float32
    local_columns: Tensor  # [E] int64, counted within the kind of the column's node

    def __init__(self, matrix: sp.csr_matrix, split: int = 0) -> None:
        super().__init__()
        matrix = matrix.tocsr()
        matrix.sort_indices()
        self.split = split
        columns = matrix.indices.astype(np.int64)
        local = columns - split * (columns >= split)
        self.register_buffer("offsets", torch.from_numpy(matrix.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("columns", torch.from_numpy(columns), persistent=False)
        self.register_buffer("weights", torch.from_numpy(matrix.data.astype(np.float32)), persistent=False)
        self.register_buffer("local_columns", torch.from_numpy(local), persistent=False)

    def product(self, x: Tensor) -> Tensor:
        """A x for x [N, D], without a gradient."""
        return sparse_product(self.offsets, self.columns, self.weights, x)

    def half_product(self, x: Tensor, to_first: bool) -> Tensor:
        """What nodes of one kind receive from x of the other, without a gradient.

        Args:
            x: [N - split, D] if `to_first`, else [split, D].
            to_first: whether the receiving nodes are the first kind.

        Returns:
            [split, D] if `to_first`, else [N - split, D].
        """
        offsets = self.offsets[: self.split + 1] if to_first else self.offsets[self.split :]
        edges = slice(int(offsets[0]), int(offsets[-1]))
        return sparse_product(offsets - offsets[0], self.local_columns[edges], self.weights[edges], x)

    def forward(self, x: Tensor) -> Tensor:
        """A x for x [N, D], differentiable in x."""
        return _Product.apply(x, self)

    def propagate_mean(self, x: Tensor, n_layers: int) -> Tensor:
        """1/(L+1) sum_{l=0..L} A^l x for x [N, D]: LightGCN's readout, differentiable in x.

        The operator is a polynomial of a symmetric matrix, so it is its own backward and no layer is stored.
        """
        return _PropagateMean.apply(x, self, n_layers) if n_layers else x

    def propagate_mean_from(self, x: Tensor, n_layers: int, from_first: bool) -> tuple[Tensor, Tensor]:
        """`propagate_mean` of x on one kind of nodes and zeros on the other, at half its cost.

        The readout is linear: where several inputs share one kind's part, that part is propagated once and added.

        Args:
            x: [split, D] if `from_first`, else [N - split, D].
            n_layers: L.
            from_first: the kind that x belongs to.

        Returns:
            the first kind's result [split, D] and the other's [N - split, D].
        """
        same, other = _PropagateMeanFrom.apply(x, self, n_layers, from_first)
        return (same, other) if from_first else (other, same)


def sparse_product(offsets: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """The product of a CSR matrix with x [C, D], without a gradient.

    On a CPU a row of the result is a weighted bag of rows of x, for which PyTorch has a faster kernel than for its sparse
    types; elsewhere the CSR product is used.
    """
    if x.device.type != "cpu":
        return csr_product(offsets, columns, weights, x)
    return F.embedding_bag(
        columns, x, offsets, mode="sum", per_sample_weights=weights.to(x.dtype), include_last_offset=True
    )


def csr_product(offsets: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """The product of a CSR matrix with x [C, D] by PyTorch's sparse type, without a gradient."""
    shape = (len(offsets) - 1, len(x))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        csr = torch.sparse_csr_tensor(offsets, columns, weights.to(x.dtype), shape, check_invariants=False)
    return csr @ x


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


class _PropagateMeanFrom(torch.autograd.Function):
    """Layer l lives on the kind of x if l is even, on the other if it is odd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseSymmetric, n_layers: int, from_first: bool) -> tuple[Tensor, Tensor]:
        ctx.matrix, ctx.n_layers, ctx.from_first = matrix, n_layers, from_first
        n_other = len(matrix.offsets) - 1 - len(x)
        sums = [x.clone(), x.new_zeros(n_other, x.shape[1]) if n_layers == 0 else None]
        layer = x
        for level in range(1, n_layers + 1):
            layer = matrix.half_product(layer, to_first=from_first == (level % 2 == 0))
            before = sums[level % 2]
            sums[level % 2] = layer if before is None else before.add_(layer)
        same, other = (part.div_(n_layers + 1) for part in sums if part is not None)
        return same, other

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        total = gradients[ctx.n_layers % 2].contiguous()
        for level in range(ctx.n_layers - 1, -1, -1):
            to_first = ctx.from_first == (level % 2 == 0)
            total = ctx.matrix.half_product(total, to_first).add_(gradients[level % 2])
        return total / (ctx.n_layers + 1), None, None, None


def _mean_of_layers(x: Tensor, matrix: SparseSymmetric, n_layers: int) -> Tensor:
    """Horner's scheme: x + A (x + A (x + ...)), which keeps one table at a time."""
    total = x
    for _ in range(n_layers):
        total = matrix.product(total).add_(x)
    return total.div_(n_layers + 1)
