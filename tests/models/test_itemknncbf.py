"""ItemKNNCBF's scores from their formula, pair by pair."""

import numpy as np
import pytest
import torch
from naive import dot
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, split_of, toy_dataset

from utils.data.dataset import Dataset


@pytest.mark.parametrize("shrink", [0.0, 10.0])
@pytest.mark.parametrize("k", [1, 4, 30])
@pytest.mark.parametrize("modalities", [["textual"], list(WIDTHS)], ids="+".join)
def test_scores_are_those_of_the_formula(modalities, k, shrink):
    data = toy_dataset(modalities)
    x = np.concatenate([*data.features.values()], axis=1).astype(np.float64).tolist()
    lengths = [dot(row, row) ** 0.5 for row in x]
    lists = []
    for i in range(N_ITEMS - 1):  # the last has features of zeros
        others = [j for j in range(N_ITEMS - 1) if j != i]
        similarity = {j: dot(x[i], x[j]) / (lengths[i] * lengths[j] + shrink) for j in others}
        kept = sorted(others, key=lambda j: -similarity[j])[: k - 1]  # i itself is one of the k
        own = lengths[i] ** 2 / (lengths[i] ** 2 + shrink)
        lists.append({j: similarity[j] for j in kept} | {i: own})
    expected = [
        [sum(lists[i].get(j, 0.0) for i in data.train.items[data.train.users == user]) for j in range(N_ITEMS)]
        for user in range(N_USERS)
    ]
    found = all_scores(build("ItemKNNCBF", data, knn_k=k, shrink=shrink))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)


def few(features):
    """User 0 has item 0, user 1 has item 1; items 2 and up are to be ranked."""
    split = split_of([0, 1], [0, 1])
    matrix = np.array(features, dtype=np.float32)
    return Dataset("few", 2, len(matrix), dict.fromkeys(("train", "valid", "test"), split), {"visual": matrix})


def test_the_lists_are_those_of_the_user_s_items():
    data = few([[1.0, 0.0], [1.0, 0.5], [1.0, 0.4]])
    scores = all_scores(build("ItemKNNCBF", data, knn_k=2, shrink=0.0))
    assert scores[1, 2] > 0.99, "2 is the nearest of 1"
    assert scores[0, 2] > 0.9, "2 is the nearest of 0, though 0 is not the nearest of 2"


def test_shrinking_favours_items_of_large_norm():
    data = few([[1.0, 0.0], [0.0, 1.0], [0.1, 0.0], [8.0, 4.0]])
    near, large = all_scores(build("ItemKNNCBF", data, knn_k=2, shrink=0.0))[0, 2:]
    assert near == 1
    assert large == 0
    near, large = all_scores(build("ItemKNNCBF", data, knn_k=2, shrink=10.0))[0, 2:]
    assert near == 0
    assert large == pytest.approx(8 / (80**0.5 + 10))


def test_of_equals_the_smaller_id_is_listed():
    scores = all_scores(build("ItemKNNCBF", few([[1.0, 0.0]] + [[0.0, 1.0]] * 4), knn_k=2, shrink=10.0))
    assert scores[1].tolist() == pytest.approx([0, 1 / 11, 1 / 11, 0, 0])
