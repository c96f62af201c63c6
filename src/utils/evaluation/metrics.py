"""Ranking metrics from a matrix of hits, per user, vectorised over users.

Every function takes `hits` [U, K] (bool; column k-1 tells whether the item at rank k is relevant) and `relevant` [U]
(number of relevant items of each user, at least 1) and returns float64 [U, len(cutoffs)], one column per cut-off K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def _at(values: Values, cutoffs: Sequence[int]) -> Values:
    """Columns K-1 of `values` [U, K]."""
    return values[:, [k - 1 for k in cutoffs]]


def recall(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """Recall@K = hits up to K / number of relevant items (not capped at K)."""
    return _at(np.cumsum(hits, axis=1) / relevant[:, None], cutoffs)


def precision(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """Precision@K = hits up to K / K."""
    return _at(np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1), cutoffs)


def f1(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """F1@K = 2 P R / (P + R) of the user's own precision and recall; 0 where both are 0."""
    p, r = precision(hits, relevant, cutoffs), recall(hits, relevant, cutoffs)
    total = p + r
    return np.divide(2 * p * r, total, out=np.zeros_like(total), where=total > 0)


def hit(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """Hit@K = 1 if any of the first K items is relevant, else 0."""
    return _at(np.maximum.accumulate(hits, axis=1).astype(np.float64), cutoffs)


def ndcg(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """NDCG@K = sum_{k<=K} h_k / log2(k+1), over the same sum of an ideal list with min(K, relevant) hits."""
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    gain, ideal = np.cumsum(hits * discount, axis=1), np.cumsum(discount)
    best = np.stack([ideal[np.minimum(k, relevant) - 1] for k in cutoffs], axis=1)
    return _at(gain, cutoffs) / best


def average_precision(hits: Hits, relevant: Counts, cutoffs: Sequence[int]) -> Values:
    """MAP@K (per user: AP@K) = sum_{k<=K} h_k (hits up to k / k) / min(K, relevant)."""
    at_hits = np.cumsum(np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1) * hits, axis=1)
    return _at(at_hits, cutoffs) / np.minimum(np.asarray(cutoffs)[None, :], relevant[:, None])


METRICS: dict[str, Callable[[Hits, Counts, Sequence[int]], Values]] = {
    "recall": recall,
    "ndcg": ndcg,
    "map": average_precision,
    "precision": precision,
    "f1": f1,
    "hit": hit,
}
