"""Nearest neighbours, exact and in blocks: item graphs of content features, and co-occurrence of users or items.

No matrix of all pairs is ever held. Ties go to the node itself, then to the smaller id.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.precision import single_precision
from utils.evaluation.topk import ranked_topk

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

BLOCK_ENTRIES = 2**24  # similarities computed at a time
PRODUCT_WORK = 2**24  # multiplications of a block of a sparse product


@torch.no_grad()
@single_precision
def nearest_neighbours(features: Tensor, k: int, shrink: float = 0.0) -> tuple[Tensor, Tensor]:
    """For each row the k most similar rows by <x_i, x_j> / (|x_i| |x_j| + shrink), itself first.

    A row of zeros has no neighbour but itself (similarity 1) and is nobody's: its similarities are undefined.

    Args:
        features: [I, F].
        k: neighbours of a row, itself among them; at most I.
        shrink: 0 gives cosines.

    Returns:
        similarities [I, k], descending but for the first, and columns int64 [I, k]; -1 where there are fewer than k.
    """
    n = len(features)
    k = min(k, n)
    lengths = torch.linalg.vector_norm(features, dim=1)
    unit = F.normalize(features, dim=1, eps=torch.finfo(features.dtype).tiny)
    empty = lengths == 0
    some_empty = bool(empty.any())
    step = max(1, BLOCK_ENTRIES // n)
    values, columns = [], []
    for begin in range(0, n, step):
        block = unit[begin : begin + step] @ unit.T  # [b, I]
        if shrink:
            products = lengths[begin : begin + step, None] * lengths
            block *= products / (products + shrink)
        if some_empty:
            block[:, empty] = -torch.inf
            block[empty[begin : begin + step]] = -torch.inf
        here = torch.arange(len(block), device=features.device)
        own = block[here, here + begin]
        block[here, here + begin] = torch.inf
        best, found = ranked_topk(block, k)
        best[:, 0] = torch.where(torch.isinf(own), torch.ones_like(own), own)
        values.append(best)
        columns.append(found.masked_fill(torch.isinf(best), -1))
    return torch.cat(values), torch.cat(columns)


def cosine_graph(dataset: Dataset, modality: str, k: int) -> sp.csr_matrix:
    """The k most similar items of each item by the cosine of raw features, itself among them, weighted by the cosine.

    Directed: row i holds i's neighbours. float32 [I, I], through the data set's cache.
    """

    def build() -> dict[str, NDArray[np.generic]]:
        values, columns = nearest_neighbours(torch.from_numpy(dataset.features[modality]), k)
        return {"values": values.numpy(), "columns": columns.numpy().astype(np.int32)}

    inputs = {"features": dataset.fingerprint[modality], "k": k}
    arrays = dataset.derived("item-neighbours", 1, inputs, build)
    return neighbour_matrix(arrays["values"], arrays["columns"])


def neighbour_matrix(values: NDArray[np.float32], columns: NDArray[np.integer]) -> sp.csr_matrix:
    """The lists [I, k] of `nearest_neighbours` as a matrix [I, I]: row i holds i's neighbours, columns ascending."""
    found = columns >= 0
    indptr = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    graph = sp.csr_matrix((values[found], columns[found], indptr), shape=(len(columns), len(columns)))
    graph.sort_indices()
    return graph


def normalize_by_row_sums(graph: sp.csr_matrix) -> sp.csr_matrix:
    """r_i^-1/2 w_ij r_j^-1/2 with r the ROW sums on both sides, 0 where a row sum is not positive; float64.

    This is how LATTICE and its successors normalise a directed item graph.
    """
    sums = np.asarray(graph.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.zeros_like(sums)
    np.power(sums, -0.5, where=sums > 0, out=scale)
    return (sp.diags(scale) @ graph.astype(np.float64) @ sp.diags(scale)).tocsr()


def weighted_item_graph(dataset: Dataset, modality: str, k: int) -> sp.csr_matrix:
    """`cosine_graph` normalised by row sums: the raw-feature graph of LATTICE, MGCN and SMORE."""
    return normalize_by_row_sums(cosine_graph(dataset, modality, k))


def edges_of_new_items(dataset: Dataset, modality: str, k: int, new: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """The rows that items [J, F] which the data set lacks would have in `weighted_item_graph`, its own rows as they are.

    Returns:
        weights of the items [J, I], and of the new item itself [J].
    """
    sums = torch.from_numpy(np.asarray(cosine_graph(dataset, modality, k).sum(axis=1)).ravel()).float()
    known = torch.from_numpy(dataset.features[modality])
    cosines = F.normalize(torch.from_numpy(new), dim=1) @ F.normalize(known, dim=1).T
    left_out = ~known.any(dim=1)
    if (present := dataset.present.get(modality)) is not None:
        left_out |= ~torch.from_numpy(present)
    cosines[:, left_out] = -torch.inf
    values, columns = ranked_topk(cosines, min(k - 1, len(known)))
    values = values.masked_fill(values.isinf(), 0)
    own = 1 + values.sum(dim=1)
    scale = torch.where(sums > 0, sums.clamp(min=1e-12).rsqrt(), torch.zeros_like(sums))
    weights = torch.zeros_like(cosines).scatter_(1, columns, values) * scale * own.rsqrt()[:, None]
    return weights, own.reciprocal()


def weighted_graph_of(features: Tensor, k: int) -> sp.csr_matrix:
    """`weighted_item_graph` of features [I, F] that are not the data set's, computed again."""
    values, columns = (part.cpu().numpy() for part in nearest_neighbours(features, k))
    return normalize_by_row_sums(neighbour_matrix(values, columns))


def binary_item_graph(dataset: Dataset, modality: str, k: int) -> sp.csr_matrix:
    """`cosine_graph` with ones for cosines, normalised by row sums: 1/k for each of k neighbours (FREEDOM)."""
    graph = cosine_graph(dataset, modality, k)
    graph.data = np.ones_like(graph.data)
    return normalize_by_row_sums(graph)


def shared_neighbours(dataset: Dataset, modalities: Sequence[str], k: int) -> sp.csr_matrix:
    """1 where item j != i is among the k most similar items of i, itself counted, in every modality: float64 [I, I].

    Directed; rows are as short as the lists' common part.
    """
    common = None
    for modality in modalities:
        graph = cosine_graph(dataset, modality, k).astype(np.float64)
        graph.data = np.ones_like(graph.data)
        common = graph if common is None else common.multiply(graph)
    assert common is not None
    common = (common - sp.eye(dataset.n_items, format="csr")).tocsr()  # each item is in its own list
    common.eliminate_zeros()
    return common


def image_share(modalities: Sequence[str], image_weight: float) -> dict[str, float]:
    """Weight of each modality: `image_weight` for visual, the rest in equal parts for the others.

    A single modality weighs 1; without a visual one among several, all weigh the same.
    """
    others = [modality for modality in modalities if modality != "visual"]
    if len(others) in (0, len(modalities)):
        return {modality: 1 / len(modalities) for modality in modalities}
    return {m: image_weight if m == "visual" else (1 - image_weight) / len(others) for m in modalities}


def mixed_item_graph(dataset: Dataset, modalities: Sequence[str], k: int, image_weight: float) -> sp.csr_matrix:
    """sum_m w_m S_m with binary graphs S_m and the weights of `image_share`: the item graph of FREEDOM, DRAGON, PGL."""
    weights = image_share(modalities, image_weight)
    return sum(weights[m] * binary_item_graph(dataset, m, k) for m in modalities)


def keep_largest(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """The k largest entries of each row, in descending order, ties to the smaller column; fewer where there are fewer."""
    counts = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), counts)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.arange(len(rows)) - np.repeat(matrix.indptr[:-1], counts)
    kept = order[rank < k]
    indptr = np.concatenate([[0], np.cumsum(np.minimum(counts, k))])
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def largest_co_occurrences(matrix: sp.csr_matrix, k: int, cosine: bool = False, shrink: float = 0.0) -> sp.csr_matrix:
    """For each row of a matrix [R, C] the k others with the largest inner product: of 0/1 rows, most columns shared.

    Sparse and exact, in blocks of rows of bounded work: sum over the columns of their squared degrees in all.

    Args:
        matrix: not negative, duplicates already collapsed.
        k: neighbours of a row at most; those that share nothing are never listed.
        cosine: divide by |x_r| |x_s| + `shrink`; the length |x| of a 0/1 row is the root of its number of columns.

    Returns:
        [R, R], row r in descending order, ties to the smaller id; float64 (counts are exact).
    """
    matrix = matrix.tocsr().astype(np.float64)
    transposed = matrix.T.tocsr()
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    work = np.asarray(matrix.astype(bool) @ np.diff(transposed.indptr).astype(np.float64))
    block_of = (np.cumsum(work) // PRODUCT_WORK).astype(np.int64)
    bounds = [*np.flatnonzero(np.diff(block_of, prepend=-1)), matrix.shape[0]]
    parts = []
    for begin, end in itertools.pairwise(bounds):
        shared = (matrix[begin:end] @ transposed).tocoo()
        other = shared.row + begin != shared.col
        rows, columns, values = shared.row[other], shared.col[other], shared.data[other]
        if cosine:
            values = values / (lengths[rows + begin] * lengths[columns] + shrink)
        part = sp.coo_matrix((values, (rows, columns)), shape=shared.shape).tocsr()
        parts.append(keep_largest(part, k))
    return sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, 0))


class SparseRows(nn.Module):
    """A constant sparse matrix [R, C] of which a few rows at a time are taken.

    The arrays are buffers (they move with the module) that are not part of the state dict.
    """

    offsets: Tensor  # [R + 1] int64
    columns: Tensor  # [E] int64
    weights: Tensor  # [E] float32

    def __init__(self, matrix: sp.csr_matrix) -> None:
        super().__init__()
        matrix = matrix.tocsr()
        self.n_columns = matrix.shape[1]
        self.register_buffer("offsets", torch.from_numpy(matrix.indptr.astype(np.int64)), persistent=False)
        self.register_buffer("columns", torch.from_numpy(matrix.indices.astype(np.int64)), persistent=False)
        self.register_buffer("weights", torch.from_numpy(matrix.data.astype(np.float32)), persistent=False)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix of the rows int64 [B], in CSR form: offsets [B + 1], columns [n], weights [n]."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        shift = (self.offsets[rows] - offsets[:-1]).repeat_interleave(counts)
        places = torch.arange(len(shift), device=rows.device) + shift
        return offsets, self.columns[places], self.weights[places]


@torch.no_grad()
def score_by_neighbours(histories: SparseRows, weights: SparseRows, users: Tensor) -> Tensor:
    """s(u, j) = sum over the training items i of u of w_ij, float32 [B, I] for users int64 [B].

    Added up in double precision: on a GPU the order is not fixed, and in single precision would show.

    Args:
        histories: 0/1, the training matrix [U, I].
        weights: [I, I], row = item of the history.
    """
    offsets, items, _ = histories.take(users)
    bounds, columns, values = weights.take(items)
    # The entries of a user stand together: from where its first item's begin to where its last one's end.
    row = torch.arange(len(users), device=users.device).repeat_interleave(bounds[offsets].diff())
    scores = torch.zeros(len(users) * weights.n_columns, dtype=torch.float64, device=users.device)
    scores.index_add_(0, row * weights.n_columns + columns, values.double())
    return scores.view(len(users), weights.n_columns).float()
