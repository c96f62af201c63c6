"""ItemKNN's scores from their formula, pair by pair."""

import math

import numpy as np
import pytest
import torch
from toys import N_ITEMS, N_USERS, all_scores, build, split_of, toy_dataset

from utils.data.dataset import Dataset


def sets_of(data):
    users = [set(data.train.users[data.train.items == item].tolist()) for item in range(data.n_items)]
    items = [set(data.train.items[data.train.users == user].tolist()) for user in range(data.n_users)]
    return users, items


@pytest.mark.parametrize("shrink", [0.0, 7.0])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_scores_are_those_of_the_formula(k, shrink):
    data = toy_dataset([])
    users_of, items_of = sets_of(data)
    lists = []
    for j, own in enumerate(users_of):
        similar = [
            (-len(own & other) / ((len(own) * len(other)) ** 0.5 + shrink), i)
            for i, other in enumerate(users_of)
            if i != j and own & other
        ]
        lists.append({i: -value for value, i in sorted(similar)[:k]})  # ties: the smaller id
    expected = [[sum(lists[j].get(i, 0.0) for i in items_of[u]) for j in range(N_ITEMS)] for u in range(N_USERS)]
    found = all_scores(build("ItemKNN", data, knn_k=k, shrink=shrink, weighting="none"))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=0)
    assert not found[-1].any(), "a user without a history"
    assert not found[:, -1].any(), "an item that nobody has"


def test_the_lists_are_those_of_the_scored_items():
    # Item 0 shares a user with each of 1, 2 and 3; these share none among themselves. 1 is the nearest of 0.
    pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 0), (2, 3), (3, 2), (4, 3)]
    users, items = np.array(pairs).T
    data = Dataset("few", 5, 4, dict.fromkeys(("train", "valid", "test"), split_of(users, items)))
    scores = all_scores(build("ItemKNN", data, knn_k=1, shrink=0.0, weighting="none"))
    assert scores[0, 1] > 0, "0 is the nearest of 1 and in the history"
    assert scores[3, 0] == 0, "2 is in the history, and 0 is its nearest; but the nearest of 0 is 1"
    assert scores[0, 0] == scores[0, 1], "by its neighbour 1, not by itself"


def test_tf_idf_weighs_users_by_the_logarithm_of_their_share_of_items():
    # User 0 has four of six items, 1 has two, 2 all, 3 one.
    histories = {0: [0, 1, 2, 3], 1: [0, 4], 2: [0, 1, 2, 3, 4, 5], 3: [0]}
    users, items = np.array([(user, item) for user, own in histories.items() for item in own]).T
    data = Dataset("few", 4, 6, dict.fromkeys(("train", "valid", "test"), split_of(users, items)))
    weight = {user: max(0.0, math.log(6 / (1 + len(own)))) for user, own in histories.items()}
    assert weight[2] == 0 < weight[0] < weight[1] < weight[3]
    scores = all_scores(build("ItemKNN", data, knn_k=30, shrink=2.0, weighting="tf_idf"))

    def length(item):
        return sum(weight[user] ** 2 for user, own in histories.items() if item in own) ** 0.5

    for other, shared in ((1, 0), (4, 1)):
        expected = weight[shared] ** 2 / (length(0) * length(other) + 2.0)
        assert scores[3, other].item() == pytest.approx(expected, rel=1e-6)
    assert scores[3, 5] == 0, "shared by the user of weight 0 alone"
