"""Definitions written out in plain Python, float64, one entry at a time: what the tests compare the source with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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


def co_occurrence(users: Iterable[int], items: Iterable[int], n_users: int, n_items: int) -> Matrix:
    """Mean over a user's items j of sum_v 1 / n_v over the users v of both j and i, 0 for own items: [U, I]."""
    own: list[set[int]] = [set() for _ in range(n_users)]
    for user, item in zip(users, items, strict=True):
        own[user].add(item)
    out = np.zeros((n_users, n_items))
    for u in range(n_users):
        for i in set(range(n_items)) - own[u]:
            for j in own[u]:
                out[u, i] += sum(1 / len(mine) for mine in own if {i, j} <= mine) / len(own[u])
    return out


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


def weighted_item_graph(rows: Rows, k: int) -> Matrix:
    """The k largest cosines of each row, itself first, as weights, over the square roots of both rows' sums."""
    n = len(rows)
    units = [unit(row) for row in rows]
    kept = np.zeros((n, n))
    for i in range(n):
        others = [j for j in range(n) if j != i and any(rows[i]) and any(rows[j])]
        kept[i, i] = 1
        for j in sorted(others, key=lambda j: -dot(units[i], units[j]))[: k - 1]:
            kept[i, j] = dot(units[i], units[j])
    return dense_normalized(kept)


def co_user_lists(users: Iterable[int], items: Iterable[int], n_users: int, k: int) -> list[list[tuple[int, int]]]:
    """For each user [(co-user, number of shared items)] by descending number, then ascending id, the first k."""
    owned: list[set[int]] = [set() for _ in range(n_users)]
    for user, item in zip(users, items, strict=True):
        owned[user].add(item)
    found = []
    for user, mine in enumerate(owned):
        shared = [(other, len(mine & theirs)) for other, theirs in enumerate(owned) if other != user and mine & theirs]
        found.append(sorted(shared, key=lambda pair: (-pair[1], pair[0]))[:k])
    return found


def co_user_weights(lists: list[list[tuple[int, int]]], k: int, seed: int | None) -> Matrix:
    """The user graph [U, U] slot by slot, with the source's random numbers; without a seed, a slot for each listed user."""
    s = np.zeros((len(lists), len(lists)))
    uniform: Rows = []
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(k, len(lists), generator=generator, dtype=torch.float64).tolist()
    for user, pairs in enumerate(lists):
        slots = sorted(pairs)
        for place in range(len(pairs), k if pairs and uniform else 0):
            slots.append(slots[int(uniform[place][user] * place)])
        total = sum(math.exp(count) for _, count in slots)
        for other, count in slots:
            s[user, other] += math.exp(count) / total
    return s


def preferences_and_content(nodes: nn.Module, features: Rows) -> Rows:
    """Users' preferences, then items' features through two layers with a leaky rectifier between, as unit rows."""
    first, second = nodes.get_submodule("first"), nodes.get_submodule("second")
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    hidden = [[max(value, 0.01 * value) for value in affine(row, first)] for row in features]
    return [unit(row) for row in rows_of(nodes.get_parameter("preference")) + [affine(row, second) for row in hidden]]


# Layers


def affine(row: Row, layer: nn.Linear) -> Row:
    """W x + b, or W x for a layer without b."""
    bias = layer.bias.tolist() if layer.bias is not None else [0.0] * layer.out_features
    return [dot(weights, row) + b for weights, b in zip(rows_of(layer.weight), bias, strict=True)]


def gate(row: Row, layer: nn.Linear) -> Row:
    """sigmoid(W x + b)."""
    return [sigmoid(value) for value in affine(row, layer)]


def softmax(row: Row) -> Row:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def times(*rows: Row) -> Row:
    """The element-wise product."""
    return [math.prod(values) for values in zip(*rows, strict=True)]


def plus(*rows: Row) -> Row:
    """The element-wise sum."""
    return [sum(values) for values in zip(*rows, strict=True)]


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


def log_sigmoid_bpr(pos_scores: Sequence[float], neg_scores: Sequence[float]) -> float:
    """mean of -log sigmoid(s_ui - s_uj)."""
    terms = [-math.log(sigmoid(pos - neg)) for pos, neg in zip(pos_scores, neg_scores, strict=True)]
    return sum(terms) / len(terms)


def one_way_info_nce(anchors: Rows, candidates: Rows, temperature: float) -> float:
    """mean_b of -log exp(c_bb / t) / sum_c exp(c_bc / t) with cosines c."""
    one, other = [unit(row) for row in anchors], [unit(row) for row in candidates]
    terms = [cross_entropy([dot(a, c) / temperature for c in other], b) for b, a in enumerate(one)]
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
