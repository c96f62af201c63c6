"""Measures of recommended lists against hand-worked cases."""

import math

import numpy as np
import pytest

from utils.data.dataset import Split
from utils.evaluation.beyond_accuracy import (
    beyond_accuracy,
    coverage,
    gini,
    novelty,
    popularity_ratio,
    recommendation_counts,
)

# Items 0 to 5; training counts 3, 2, 1, 0, 0, 0 of three users, who have {0, 1}, {0, 1, 2}, {0}.
TRAIN = Split(np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 0, 1, 2, 0]))
LISTS = np.array([[2, 3], [3, 4], [1, -1]])
USERS = np.array([0, 1, 2])
EMPTY = np.full((3, 2), -1)


def test_places_without_an_item_are_not_counted():
    assert recommendation_counts(LISTS, 6).tolist() == [0, 1, 1, 2, 1, 0]


def test_coverage():
    assert coverage(LISTS, 6) == 4 / 6
    assert coverage(LISTS[:1], 6) == 2 / 6
    assert coverage(EMPTY, 6) == 0


def test_novelty_counts_a_cold_item_as_if_one_user_had_it():
    one, two = math.log2(3), math.log2(3 / 2)
    assert novelty(LISTS, TRAIN) == pytest.approx((one + one + one + one + two) / 5)
    assert novelty(np.array([[0]]), TRAIN) == 0, "an item that everybody has says nothing"
    assert novelty(EMPTY, TRAIN) == 0


def test_novelty_counts_users_with_training_rows_only():
    train = Split(np.array([0, 7]), np.array([0, 1]))
    assert novelty(np.array([[0]]), train) == 1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([2, 2, 2, 2], 0.0),
        ([0, 0, 0, 8], 0.75),  # 1 - 1/I
        ([1, 3], 0.25),
        ([3, 1], 0.25),  # order says nothing
        ([0, 1, 2, 3], 10 / 24),  # (-3*0 - 1*1 + 1*2 + 3*3) / (4 * 6)
        ([0, 0], 0.0),
    ],
)
def test_gini(counts, expected):
    assert gini(np.array(counts)) == pytest.approx(expected)


def test_gini_is_the_mean_difference_over_twice_the_mean():
    counts = np.random.default_rng(0).integers(0, 20, 40)
    differences = np.abs(counts[:, None] - counts[None]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_popularity_ratio():
    got = ((1 + 0) / 2 + 0 / 2 + 2) / 3  # mean popularity of the lists
    own = ((3 + 2) / 2 + (3 + 2 + 1) / 3 + 3) / 3
    assert popularity_ratio(LISTS, USERS, TRAIN) == pytest.approx(got / own)


def test_popularity_ratio_is_one_where_users_get_what_they_have():
    assert popularity_ratio(np.array([[0, 1, -1], [0, 1, 2], [0, -1, -1]]), USERS, TRAIN) == pytest.approx(1)


def test_popularity_ratio_leaves_out_users_without_history_or_list():
    lists, users = np.array([[2, 3], [3, 4], [-1, -1], [0, 0]]), np.array([0, 1, 2, 9])
    assert popularity_ratio(lists, users, TRAIN) == pytest.approx((0.25) / ((2.5 + 2) / 2))
    assert popularity_ratio(EMPTY, USERS, TRAIN) == 0


def test_cutoffs_take_the_head_of_the_lists():
    found = beyond_accuracy(LISTS, USERS, TRAIN, 6, [2, 1])
    assert list(found) == [f"{name}@{k}" for k in (1, 2) for name in ("coverage", "novelty", "gini", "popularity")]
    assert found["coverage@1"] == 3 / 6
    assert found["coverage@2"] == 4 / 6
    assert found["gini@1"] == pytest.approx(gini(np.array([0, 1, 1, 1, 0, 0])))
