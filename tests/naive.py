"""Definitions written out in plain Python, float64, one entry at a time: what the tests compare the source with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Row = list[float]
Rows = list[Row]
Matrix = NDArray[np.float64]


def rows_of(matrix: Tensor) -> Rows:
    """A matrix as lists of Python floats."""
    rows: Rows = matrix.detach().double().tolist()
    return rows


def dot(*rows: Iterable[float]) -> float:
    """sum_k prod_m rows[m][k]."""
    return sum(math.prod(values) for values in zip(*rows, strict=True))


def unit(row: Row) -> Row:
    """The row divided by its length; a row of zeros as it is."""
    length = math.sqrt(dot(row, row))
    return [value / length for value in row] if length else row


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Graphs


def dense_adjacency(users: Iterable[int], items: Iterable[int], n_users: int, n_items: int) -> Matrix:
    """A = [[0, R], [R^T, 0]]."""
    a = np.zeros((n_users + n_items, n_users + n_items))
    for user, item in zip(users, items, strict=True):
        a[user, n_users + item] = a[n_users + item, user] = 1
    return a


def dense_normalized(a: Matrix) -> Matrix:
    """a_ij / sqrt(d_i d_j) where there is an edge."""
    out = np.zeros_like(a)
    for i in range(len(a)):
        for j in range(len(a)):
            if a[i, j]:
                out[i, j] = a[i, j] / (a[i].sum() ** 0.5 * a[j].sum() ** 0.5)
    return out


def mean_of_layers(a: Matrix, x: Rows, n_layers: int) -> Rows:
    """1/(L+1) sum_{l=0..L} A^l x."""
    layer = np.asarray(x)
    total = layer.copy()
    for _ in range(n_layers):
        layer = a @ layer
        total += layer
    rows: Rows = (total / (n_layers + 1)).tolist()
    return rows


# Losses


def bpr(pos_scores: Sequence[float], neg_scores: Sequence[float]) -> float:
    """mean of -log(1e-10 + sigmoid(s_ui - s_uj))."""
    terms = [-math.log(1e-10 + sigmoid(pos - neg)) for pos, neg in zip(pos_scores, neg_scores, strict=True)]
    return sum(terms) / len(terms)


def sum_of_squares(rows: Rows) -> float:
    return sum(value * value for row in rows for value in row)


def frobenius_over_batch(*matrices: Rows) -> float:
    """Unsquared norms of the matrices, summed, over the number of rows."""
    return sum(math.sqrt(sum_of_squares(rows)) for rows in matrices) / len(matrices[-1])


def half_squared_l2_over_batch(*matrices: Rows) -> float:
    """Half the squares of the matrices, summed, over the number of rows."""
    return sum(sum_of_squares(rows) for rows in matrices) / 2 / len(matrices[-1])


def cross_entropy(logits: Sequence[float], target: int) -> float:
    """-log of the target's share in a softmax."""
    highest = max(logits)
    return math.log(sum(math.exp(logit - highest) for logit in logits)) + highest - logits[target]


def info_nce(first: Rows, second: Rows, scale: float) -> float:
    """Both directions' cross-entropies of cosines times scale, averaged."""
    one, other = [unit(row) for row in first], [unit(row) for row in second]
    size = len(one)
    terms = [
        cross_entropy([scale * dot(a[i], b[j]) for j in range(size)], i)
        for a, b in ((one, other), (other, one))
        for i in range(size)
    ]
    return sum(terms) / len(terms)


def total_correlation(views: Sequence[Rows], scale: float, generator: torch.Generator | None = None) -> float:
    """Anchor by anchor, row by row, negative by negative, with the permutations drawn in the source's order."""
    if len(views) == 2:
        return info_nce(views[0], views[1], scale)
    units = [[unit(row) for row in view] for view in views]
    size, width = len(views[0]), len(views[0][0])
    factor = scale * math.sqrt(width) ** (len(views) - 2)
    terms = []
    for anchor in range(len(views)):
        others = [m for m in range(len(views)) if m != anchor]
        orders = {m: torch.randperm(size, generator=generator).tolist() for m in others}
        for i in range(size):
            logits = [
                factor * dot(units[anchor][i], *(units[m][i if j == i else orders[m][j]] for m in others))
                for j in range(size)
            ]
            terms.append(cross_entropy(logits, i))
    return sum(terms) / len(terms)
