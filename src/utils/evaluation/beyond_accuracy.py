"""What recommended lists are like beyond their hits: how much of the catalogue, how novel, how even, how popular.

Lists are int64 [U, K], best first, -1 where fewer than K items were left to rank: these places count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.data.dataset import Split

Lists = NDArray[np.int64]


def recommendation_counts(lists: Lists, n_items: int) -> NDArray[np.int64]:
    """How often each item stands in the lists: int64 [I]."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def coverage(lists: Lists, n_items: int) -> float:
    """Share of the items that are recommended to anybody."""
    return float((recommendation_counts(lists, n_items) > 0).mean())


def novelty(lists: Lists, train: Split) -> float:
    """Mean over recommendations of -log2 of the share of training users who have the item, in bits; 0 for no lists.

    An item that nobody has in training counts as if one user had it: its share of 0 has no logarithm.
    """
    items = lists[lists >= 0]
    if not len(items):
        return 0.0
    owners = np.bincount(train.items, minlength=int(items.max()) + 1)
    return float(-np.log2(np.maximum(owners[items], 1) / len(np.unique(train.users))).mean())


def gini(counts: NDArray[np.int64]) -> float:
    """Gini index of how often each of the I items is recommended: 0 all alike, 1 - 1/I one item only.

    sum_j (2 j - I - 1) c_(j) / (I sum_j c_j), c_(1) <= ... <= c_(I), items never recommended among them; 0 for no lists.
    """
    total = int(counts.sum())
    if not total:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float(((2 * ranks - len(counts) - 1) * np.sort(counts)).sum() / (len(counts) * total))


def popularity_ratio(lists: Lists, users: NDArray[np.int64], train: Split) -> float:
    """Popularity of what users get over that of what they have: above 1, recommendations are more popular than tastes.

    Popularity of an item: its number of training interactions. Mean over users of the mean popularity of the user's list,
    over the mean over the same users of the mean popularity of the user's training items; users [U] without either are
    left out; 0 where none is left.
    """
    size = 1 + max(int(lists.max(initial=0)), int(train.items.max()))
    popularity = np.bincount(train.items, minlength=size)
    n_users = 1 + max(int(users.max(initial=0)), int(train.users.max()))
    owned = np.bincount(train.users, minlength=n_users)[users]
    own = np.bincount(train.users, weights=popularity[train.items], minlength=n_users)[users]
    there = lists >= 0
    length = there.sum(axis=1)
    got = np.where(there, popularity[lists], 0).sum(axis=1)
    kept = (owned > 0) & (length > 0)
    return float((got[kept] / length[kept]).mean() / (own[kept] / owned[kept]).mean()) if kept.any() else 0.0


def beyond_accuracy(
    lists: Lists, users: NDArray[np.int64], train: Split, n_items: int, cutoffs: Sequence[int]
) -> dict[str, float]:
    """Every measure at every cut-off by name ("coverage@20"); row r of the lists is that of users[r]."""
    values: dict[str, float] = {}
    for k in sorted(set(cutoffs)):
        top = lists[:, :k]
        values |= {
            f"coverage@{k}": coverage(top, n_items),
            f"novelty@{k}": novelty(top, train),
            f"gini@{k}": gini(recommendation_counts(top, n_items)),
            f"popularity@{k}": popularity_ratio(top, users, train),
        }
    return values
