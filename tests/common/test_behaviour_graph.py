"""Item graphs of behaviour against counting by hand."""

import naive
import numpy as np
import pytest
from helpers import dataset_of
from toys import N_ITEMS, N_USERS, toy_dataset

from common.behaviour_graph import behaviour_item_graph


def by_hand(data, n_users, n_items, k, least):
    """Lists of shared users, cut by number, then the item itself; every entry 1, over roots of row sums."""
    lists = naive.co_user_lists(data.train.items, data.train.users, n_items, k)
    graph = np.eye(n_items)
    for item, pairs in enumerate(lists):
        for other, count in pairs:
            graph[item, other] = count >= least
    return naive.dense_normalized(graph)


@pytest.mark.parametrize(("k", "least"), [(1, 1), (2, 2), (4, 2), (4, 3), (30, 1)])
def test_it_joins_each_item_to_those_with_most_users_in_common(k, least):
    data = toy_dataset()
    graph = behaviour_item_graph(data, k, least).toarray()
    assert graph == pytest.approx(by_hand(data, N_USERS, N_ITEMS, k, least))
    assert graph[-1, -1] == 1, "an item without interactions has itself"
    if k == 4 and least == 2:
        assert not np.array_equal(graph != 0, (graph != 0).T), "not symmetric"


def test_other_splits_do_not_count_and_equals_go_to_the_smaller_id():
    rows = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0), (2, 0, 0), (2, 3, 1), (2, 3, 2)]
    graph = behaviour_item_graph(dataset_of(rows, 3, 4), k=1).toarray()
    assert [sorted(np.flatnonzero(row)) for row in graph] == [[0, 1], [0, 1], [0, 2], [3]]
    assert graph[0, 1] == pytest.approx(1 / 2)
