"""Ranking metrics against numbers worked by hand, a plain double loop, and what must hold of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from utils.evaluation.metrics import METRICS


def naive(name: str, hits: Sequence[bool], relevant: int, k: int) -> float:
    """The definition, one rank at a time."""
    found, gain, precisions = 0, 0.0, 0.0
    for rank in range(1, k + 1):
        if hits[rank - 1]:
            found += 1
            gain += 1 / math.log2(rank + 1)
            precisions += found / rank
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, relevant) + 1))
    precision, recall = found / k, found / relevant
    values = {
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall) if found else 0.0,
        "hit": float(found > 0),
        "ndcg": gain / ideal,
        "map": precisions / min(k, relevant),
    }
    return values[name]


def one_user(name: str, ranks: Sequence[int], relevant: int, k: int, width: int = 50) -> float:
    """The metric of one user with hits at these ranks."""
    hits = np.zeros((1, width), dtype=bool)
    hits[0, [rank - 1 for rank in ranks]] = True
    (row,) = METRICS[name](hits, np.array([relevant]), [k])
    return float(row[0])


def random_case(width: int = 50) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Hits of 200 users with 1, 3 or 60 relevant items."""
    random = np.random.default_rng(0)
    relevant = random.choice([1, 3, 60], size=200)
    hits = np.zeros((200, width), dtype=bool)
    for user, count in enumerate(relevant):
        found = random.integers(0, min(count, width) + 1)
        hits[user, random.choice(width, size=found, replace=False)] = True
    return hits, relevant


L2, L3, L4, L5, L6 = (math.log2(k) for k in (2, 3, 4, 5, 6))


@pytest.mark.parametrize(
    ("name", "ranks", "relevant", "k", "expected"),
    [
        # one relevant item, found at rank 3
        ("recall", [3], 1, 5, 1.0),
        ("precision", [3], 1, 5, 0.2),
        ("f1", [3], 1, 5, 2 * 0.2 / 1.2),
        ("hit", [3], 1, 5, 1.0),
        ("ndcg", [3], 1, 5, 1 / L4),
        ("map", [3], 1, 5, 1 / 3),
        # the same, cut off before it
        ("recall", [3], 1, 2, 0.0),
        ("f1", [3], 1, 2, 0.0),
        ("hit", [3], 1, 2, 0.0),
        ("ndcg", [3], 1, 2, 0.0),
        ("map", [3], 1, 2, 0.0),
        # three relevant items, found at ranks 1, 4 and 20
        ("recall", [1, 4, 20], 3, 5, 2 / 3),
        ("precision", [1, 4, 20], 3, 5, 2 / 5),
        ("f1", [1, 4, 20], 3, 5, 0.5),
        ("ndcg", [1, 4, 20], 3, 5, (1 + 1 / L5) / (1 + 1 / L3 + 1 / L4)),
        ("map", [1, 4, 20], 3, 5, (1 + 2 / 4) / 3),
        ("recall", [1, 4, 20], 3, 50, 1.0),
        ("precision", [1, 4, 20], 3, 50, 3 / 50),
        ("ndcg", [1, 4, 20], 3, 50, (1 + 1 / L5 + 1 / math.log2(21)) / (1 + 1 / L3 + 1 / L4)),
        ("map", [1, 4, 20], 3, 50, (1 + 2 / 4 + 3 / 20) / 3),
        # sixty relevant items: recall is not capped at K, NDCG and MAP are
        ("recall", [1, 2, 3, 4, 5], 60, 5, 5 / 60),
        ("precision", [1, 2, 3, 4, 5], 60, 5, 1.0),
        ("f1", [1, 2, 3, 4, 5], 60, 5, 2 * (5 / 60) / (1 + 5 / 60)),
        ("ndcg", [1, 2, 3, 4, 5], 60, 5, 1.0),
        ("map", [1, 2, 3, 4, 5], 60, 5, 1.0),
        ("ndcg", [2, 3], 60, 5, (1 / L3 + 1 / L4) / (1 / L2 + 1 / L3 + 1 / L4 + 1 / L5 + 1 / L6)),
        ("map", [2, 3], 60, 5, (1 / 2 + 2 / 3) / 5),
        ("recall", range(1, 51), 60, 50, 50 / 60),
        ("precision", range(1, 51), 60, 50, 1.0),
        ("ndcg", range(1, 51), 60, 50, 1.0),
        ("map", range(1, 51), 60, 50, 1.0),
    ],
)
def test_hand_worked_number(name, ranks, relevant, k, expected):
    assert one_user(name, ranks, relevant, k) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("cutoffs", [(5, 50), (50, 1, 20), (7,)])
def test_agrees_with_a_double_loop(name, cutoffs):
    hits, relevant = random_case()
    values = METRICS[name](hits, relevant, cutoffs)
    assert values.dtype == np.float64
    assert values.shape == (200, len(cutoffs))
    for user in range(200):
        for column, k in enumerate(cutoffs):
            assert values[user, column] == pytest.approx(naive(name, hits[user], relevant[user], k), abs=1e-14)


@pytest.mark.parametrize("name", METRICS)
def test_lies_between_zero_for_no_hit_and_one_for_a_perfect_list(name):
    hits, relevant = random_case()
    values = METRICS[name](hits, relevant, range(1, 51))
    assert values.min() >= 0
    assert values.max() <= 1 + 1e-15
    assert not METRICS[name](np.zeros_like(hits), relevant, [1, 50]).any()
    assert one_user(name, [1, 2, 3], 3, 3) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name", ["recall", "hit"])
def test_grows_with_the_cutoff(name):
    hits, relevant = random_case()
    values = METRICS[name](hits, relevant, range(1, 51))
    assert (np.diff(values, axis=1) >= 0).all()
    assert (np.diff(values, axis=1) > 0).any()


@pytest.mark.parametrize("name", METRICS)
def test_items_below_the_cutoff_do_not_matter(name):
    hits, relevant = random_case()
    short = METRICS[name](hits[:, :10], relevant, [5, 10])
    np.testing.assert_array_equal(METRICS[name](hits, relevant, [5, 10]), short)


@pytest.mark.parametrize("name", METRICS)
def test_the_rank_of_a_hit_counts_in_ndcg_and_map_only(name):
    higher, lower = one_user(name, [2], 3, 5), one_user(name, [3], 3, 5)
    assert higher > lower if name in ("ndcg", "map") else higher == lower
