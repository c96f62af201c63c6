"""User-item graphs: building, normalising, drawing edges, and products that are their own backward passes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.precision import single_precision
from common.sparse import sparse_product

if TYPE_CHECKING:
    from utils.data.dataset import Dataset


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


def row_means(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Each row over its sum, float64; rows without entries stay empty. Of 0/1 interactions: the mean over neighbours."""
    sums = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(1, sums, where=sums > 0, out=np.zeros_like(sums))
    return (sp.diags(scale) @ matrix.astype(np.float64)).tocsr()


def pruned_interaction_graph(dataset: Dataset, kept: Tensor) -> SparseSymmetric:
    """D^-1/2 A D^-1/2 [U + I, U + I] of some training interactions, D counted among them.

    Args:
        kept: places in `dataset.train`, int64 [E'].
    """
    places = kept.cpu().numpy()
    users, items = dataset.train.users[places], dataset.train.items[places]
    matrix = normalize_symmetric(bipartite_adjacency(users, items, dataset.n_users, dataset.n_items))
    return SparseSymmetric(matrix, dataset.n_users)


def degree_sensitive_weights(dataset: Dataset) -> Tensor:
    """deg_u^-1/2 deg_i^-1/2 of each training interaction, float64 [E]: edges of high-degree nodes weigh less."""
    users, items = dataset.train.users, dataset.train.items
    return torch.from_numpy((np.bincount(users)[users] * np.bincount(items)[items].astype(np.float64)) ** -0.5)


def draw_without_replacement(weights: Tensor, count: int) -> Tensor:
    """`count` of n places, each draw with probability proportional to `weights` among those left; ascending.

    The largest values of log w + Gumbel noise are such a sample, whatever n (torch.multinomial ends at 2^24). Drawn on the
    CPU from PyTorch's default stream.

    Args:
        weights: positive, [n].
        count: 0 to n.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    # An exponential variable over the weight: its order is that of log w + Gumbel, reversed.
    keys = torch.empty(len(weights), dtype=torch.float64).exponential_() / weights.double().cpu()
    return keys.topk(count, largest=False).indices.sort().values


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

    def with_weights(self, weights: Tensor) -> SparseSymmetric:
        """The same entries with other weights, float32 [E] and symmetric; all else is shared."""
        other = copy.copy(self)
        other._buffers = self._buffers | {"weights": weights}
        return other

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
        half = len(self.columns) // 2  # each edge has an entry in the rows of either kind
        offsets, begin = (self.offsets[: self.split + 1], 0) if to_first else (self.offsets[self.split :], half)
        edges = slice(begin, begin + half)
        return sparse_product(offsets - begin, self.local_columns[edges], self.weights[edges], x)

    @single_precision
    def forward(self, x: Tensor) -> Tensor:
        """A x for x [N, D], differentiable in x."""
        return _Product.apply(x, self)

    @single_precision
    def to_first(self, x: Tensor) -> Tensor:
        """What the first kind of nodes (users) receive from x [N - split, D] of the other: [split, D], differentiable."""
        return _HalfProduct.apply(x, self, True)

    @single_precision
    def to_second(self, x: Tensor) -> Tensor:
        """What the second kind of nodes (items) receive from x [split, D] of the first: [N - split, D], differentiable."""
        return _HalfProduct.apply(x, self, False)

    @single_precision
    def propagate_mean(self, x: Tensor, n_layers: int) -> Tensor:
        """1/(L+1) sum_{l=0..L} A^l x for x [N, D]: LightGCN's readout, differentiable in x.

        The operator is a polynomial of a symmetric matrix, so it is its own backward and no layer is stored.
        """
        return _PropagateMean.apply(x, self, n_layers) if n_layers else x

    @single_precision
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


class EdgesLeftOut(nn.Module):
    """A bipartite graph D^-1/2 A D^-1/2, A of zeros and ones, without some of its edges, the degrees D counted again.

    Args:
        graph: the whole, with its `split`.
    """

    rows: Tensor  # [E] int64: the row of each entry of the graph
    keys: Tensor  # [E / 2] int64, ascending: the edges as pairs of both kinds
    mirrors: Tensor  # [E / 2] int64: where the other entry of each edge is

    def __init__(self, graph: SparseSymmetric) -> None:
        super().__init__()
        rows = torch.repeat_interleave(torch.arange(len(graph.offsets) - 1), graph.offsets.diff())
        half, self.n_second = len(rows) // 2, len(graph.offsets) - 1 - graph.split
        first, second = graph.local_columns[half:], rows[half:] - graph.split
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("keys", rows[:half] * self.n_second + graph.local_columns[:half], persistent=False)
        self.register_buffer("mirrors", half + (first * self.n_second + second).argsort(), persistent=False)

    def forward(self, graph: SparseSymmetric, first: Tensor, second: Tensor) -> SparseSymmetric:
        """`graph` without the edges of the pairs int64 [B] of both kinds; pairs that are no edges change nothing."""
        weights = torch.ones_like(graph.weights)
        if len(self.keys):
            pairs = first * self.n_second + second
            places = torch.searchsorted(self.keys, pairs).clamp(max=len(self.keys) - 1)
            kept = (self.keys[places] != pairs).to(weights.dtype)  # 0 for an edge; indexing by it would wait for a GPU
            for entries in (places, self.mirrors[places]):
                weights.scatter_reduce_(0, entries, kept, "amin")
        degrees = weights.new_zeros(len(graph.offsets) - 1).index_add_(0, self.rows, weights)
        scale = degrees.clamp(min=1).rsqrt()
        return graph.with_weights(weights.mul_(scale[self.rows]).mul_(scale[graph.columns]))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseSymmetric) -> Tensor:
        ctx.matrix = matrix
        return matrix.product(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.product(gradient.contiguous()), None


class _HalfProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseSymmetric, to_first: bool) -> Tensor:
        ctx.matrix, ctx.to_first = matrix, to_first
        return matrix.half_product(x, to_first)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.half_product(gradient.contiguous(), not ctx.to_first), None, None


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
