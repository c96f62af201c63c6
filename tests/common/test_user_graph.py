"""The user-user graph: lists and weights from their definitions, the padding's distribution, and what a checkpoint keeps."""

from __future__ import annotations

import naive
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import dataset_of, random_dataset
from torch import Tensor

from common.user_graph import UserGraph, co_occurrence_lists
from utils.data.cache import ArrayCache


def naive_lists(dataset, k):
    return naive.co_user_lists(dataset.train.users.tolist(), dataset.train.items.tolist(), dataset.n_users, k)


def dense(graph: UserGraph) -> Tensor:
    """S [U, U]."""
    return graph(torch.eye(len(graph.counts)))


@pytest.mark.parametrize("k", [1, 4, 40])
def test_lists_hold_the_users_with_most_items_in_common(k):
    dataset = random_dataset(3)
    lists = co_occurrence_lists(dataset, k)
    expected = np.zeros((dataset.n_users, dataset.n_users))
    for user, pairs in enumerate(naive_lists(dataset, k)):
        for other, count in pairs:
            expected[user, other] = count
    np.testing.assert_array_equal(lists.toarray(), expected)
    assert (np.diff(lists.indptr) == k).any() == (k < 40), "some lists are cut"
    assert expected.max() > 3, "counts differ"


def test_only_training_interactions_count():
    # Users 0 and 1 share item 0 in train; items 1 and 2 are shared in validation and test only.
    dataset = dataset_of([(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 2, 2), (1, 2, 2), (2, 3, 0)], 3, 4)
    np.testing.assert_array_equal(co_occurrence_lists(dataset, 40).toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_lists_go_through_the_cache(tmp_path):
    dataset = random_dataset()
    dataset.cache = ArrayCache(tmp_path)
    first = co_occurrence_lists(dataset, 5)
    assert len(list(tmp_path.glob("user-co-occurrences-*.npz"))) == 1
    assert (co_occurrence_lists(dataset, 5) != first).nnz == 0
    assert (np.diff(co_occurrence_lists(dataset, 3).indptr) <= 3).all(), "the length is part of the key"


@pytest.mark.parametrize(("padding", "k"), [("resample", 40), ("resample", 6), ("none", 40), ("none", 6)])
def test_weights_are_those_of_the_specification(padding, k):
    dataset = random_dataset(1)
    torch.manual_seed(0)
    graph = UserGraph(dataset, k, padding)
    lists = naive_lists(dataset, k)
    assert {len(pairs) == 0 for pairs in lists} == {True, False}, "one user has no co-user"
    expected = naive.co_user_weights(lists, k, int(graph.seed) if padding == "resample" else None)
    torch.testing.assert_close(dense(graph).double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        dense(graph).sum(1), torch.tensor([1.0 if pairs else 0.0 for pairs in lists]), rtol=1e-5, atol=0
    )


def test_backward_is_the_transpose():
    torch.manual_seed(0)
    graph = UserGraph(random_dataset(), 40)
    x = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(30, 4, dtype=torch.float64)
    (graph(x) * y).sum().backward()
    torch.testing.assert_close(x.grad, dense(graph).double().T @ y)


def test_counts_too_large_for_an_exponential_are_no_trouble():
    rows = [(user, item, 0) for user in (0, 1) for item in range(1200)] + [(2, 0, 0)]
    s = dense(UserGraph(dataset_of(rows, 3, 1200), 40))
    assert torch.equal(s[:2], torch.tensor([[0.0, 1, 0], [1, 0, 0]]))
    torch.testing.assert_close(s[2].sum(), torch.tensor(1.0))


def test_padding_is_a_polya_urn():
    # With two co-users and k slots, the number of slots of the first is uniform on 1..k-1.
    n, k = 4000, 6
    rows = [(user, 2 * (user // 3), 0) for user in range(3 * n)]
    torch.manual_seed(1)
    graph = UserGraph(dataset_of(rows, 3 * n, 2 * n), k)
    multiplicities = graph.multiplicities()[:, :2]
    assert torch.equal(multiplicities.sum(1), torch.full((3 * n,), k))
    shares = torch.bincount(multiplicities[:, 0], minlength=k).double() / (3 * n)
    torch.testing.assert_close(shares[1:], torch.full((k - 1,), 1 / (k - 1), dtype=torch.float64), rtol=0, atol=0.02)
    assert shares[0] == 0, "every listed user keeps a slot"
    assert not torch.equal(multiplicities[0::3], multiplicities[1::3]), "users draw for themselves"


def test_full_lists_are_not_random():
    dataset = random_dataset()
    graph = UserGraph(dataset, 2)
    full = (graph.counts > 0).all(dim=1)
    before = dense(graph)
    graph.draw()
    assert torch.equal(dense(graph)[full], before[full])
    assert full.sum() > 10


def test_each_draw_is_another_one_and_the_seed_decides():
    dataset = random_dataset()

    def draws():
        torch.manual_seed(7)
        graph = UserGraph(dataset, 40)
        first = dense(graph)
        graph.draw()
        return first, dense(graph)

    (a, b), (c, d) = draws(), draws()
    assert not torch.equal(a, b)
    assert torch.equal(a, c)
    assert torch.equal(b, d)


def test_the_state_dict_brings_the_graph_back_without_touching_the_random_stream():
    dataset = random_dataset()
    graph = UserGraph(dataset, 40)
    state = {key: value.clone() for key, value in graph.state_dict().items()}
    assert set(state) == {"seed"}
    before = dense(graph)
    graph.draw()
    other = torch.nn.Sequential(UserGraph(dataset, 40))
    stream = torch.get_rng_state()
    graph.load_state_dict(state)
    other.load_state_dict({f"0.{key}": value for key, value in state.items()})
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(dense(graph), before)
    assert torch.equal(dense(other[0]), before)
    x = torch.randn(30, 2, requires_grad=True)
    other[0](x).sum().backward()
    torch.testing.assert_close(x.grad[:, 0], before.sum(0), rtol=1e-5, atol=1e-6)


def test_without_padding_nothing_is_drawn():
    stream = torch.get_rng_state()
    graph = UserGraph(random_dataset(), 40, "none")
    before = dense(graph)
    graph.draw()
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(dense(graph), before)


def test_a_graph_of_one_s_own_is_cut_in_its_own_order():
    dataset = random_dataset()
    own = sp.csr_matrix((30, 30), dtype=np.int64)
    own.indptr = np.array([0, 3, *[4] * 29], dtype=np.int64)
    own.indices, own.data = np.array([9, 4, 7, 0], dtype=np.int64), np.array([2, 1, 1, 2], dtype=np.int64)
    dataset.user_graph = own
    lists = co_occurrence_lists(dataset, 2).toarray()
    expected = np.zeros((30, 30))
    expected[0, [9, 4]] = 2, 1
    expected[1, 0] = 2
    np.testing.assert_array_equal(lists, expected)
    assert own.indices.tolist() == [9, 4, 7, 0], "the data set's graph is left as it is"
