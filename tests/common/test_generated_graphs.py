"""Graphs made in training: their entries from the pairs, what is dropped, and the state that they come back from."""

import numpy as np
import scipy.sparse as sp
import torch

from common.generated_graphs import Collection, GeneratedGraph, PairGraph

N_USERS, N_ITEMS = 4, 5


def dense(graph):
    return graph(torch.eye(N_USERS + N_ITEMS, dtype=torch.float64)).numpy()


def generated(keep_rate=1.0):
    graph = GeneratedGraph(N_USERS, N_ITEMS, 2, keep_rate)
    graph.item_ids.copy_(torch.tensor([[0, 1], [1, 2], [0, 4], [1, 0]]))
    graph.rebuild()
    return graph


def test_a_generated_graph_is_normalised_with_its_loops():
    adjacency = np.eye(N_USERS + N_ITEMS)
    for user, items in enumerate([[0, 1], [1, 2], [0, 4], [1, 0]]):
        for item in items:
            adjacency[user, N_USERS + item] = adjacency[N_USERS + item, user] = 1
    degree = adjacency.sum(1)
    np.testing.assert_allclose(dense(generated()), adjacency / np.sqrt(np.outer(degree, degree)), rtol=1e-6)


def test_before_anything_is_generated_there_are_only_loops():
    np.testing.assert_array_equal(dense(GeneratedGraph(N_USERS, N_ITEMS, 2, 0.5)), np.eye(N_USERS + N_ITEMS) / 0.5)


def test_entries_are_dropped_each_for_itself_and_the_rest_is_scaled():
    torch.manual_seed(0)
    whole, graph = dense(generated()), generated(keep_rate=0.5)
    kept = np.zeros_like(whole)
    for _ in range(400):
        graph.draw()
        found = dense(graph)
        there = found != 0
        np.testing.assert_allclose(found[there], whole[there] / 0.5, rtol=1e-6)
        kept += there
    share = kept[whole != 0] / 400
    assert share.min() > 0.4
    assert share.max() < 0.6
    assert not np.array_equal(found != 0, (found != 0).T)


def test_a_generated_graph_comes_back_from_its_state():
    torch.manual_seed(0)
    graph = generated(keep_rate=0.5)
    graph.draw()
    other = GeneratedGraph(N_USERS, N_ITEMS, 2, 0.5)
    other.load_state_dict(graph.state_dict())
    np.testing.assert_array_equal(dense(other), dense(graph))


INTERACTIONS = sp.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 1.0]]))


def both(graph):
    users, items = graph(torch.eye(N_USERS, dtype=torch.float64), torch.eye(N_ITEMS, dtype=torch.float64))
    return users.numpy(), items.numpy()


def one_sided(counts):
    return counts / np.sqrt(np.maximum(counts.sum(1, keepdims=True), 1))


def test_a_graph_of_pairs_starts_as_the_interactions_and_counts_what_repeats():
    graph = PairGraph(INTERACTIONS, 8)
    counts = INTERACTIONS.toarray()
    for found, expected in zip(both(graph), (one_sided(counts), one_sided(counts.T)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    graph.replace(torch.tensor([0, 0, 0, 3]), torch.tensor([2, 2, 1, 2]))
    counts = np.zeros((N_USERS, N_ITEMS))
    counts[0, 2], counts[0, 1], counts[3, 2] = 2, 1, 1
    for found, expected in zip(both(graph), (one_sided(counts), one_sided(counts.T)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    other = PairGraph(INTERACTIONS, 8)
    other.load_state_dict(graph.state_dict())
    for found, expected in zip(both(other), both(graph), strict=True):
        np.testing.assert_array_equal(found, expected)


def pairs_of(graph):
    there = graph.item_ids >= 0
    return sorted(zip(graph.user_ids[there].tolist(), graph.item_ids[there].tolist(), strict=True))


SCORES = torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5], [0, 9, 0, 8, 0]])


def test_the_released_collection_gives_items_to_other_users_and_forgets():
    graph = PairGraph(INTERACTIONS, 12)
    collection = Collection(graph, 2, latest=False)
    collection.add(torch.tensor([0, 1, 3]), SCORES)
    collection.build()
    # Items 0 1 | 4 3 | 1 3 beside users 0 1 3 0 1 3.
    assert pairs_of(graph) == sorted([(0, 0), (1, 1), (3, 4), (0, 3), (1, 1), (3, 3)])
    collection.build()
    assert pairs_of(graph) == []
    assert not any(part.any() for part in both(graph))


def test_the_latest_collection_keeps_each_users_latest_items():
    graph = PairGraph(INTERACTIONS, 2 * N_USERS)
    collection = Collection(graph, 2, latest=True)
    collection.add(torch.tensor([0, 1, 3]), SCORES)
    collection.build()
    assert pairs_of(graph) == sorted([(0, 0), (0, 1), (1, 4), (1, 3), (3, 1), (3, 3)])
    collection.add(torch.tensor([2, 1, 0]), SCORES)
    collection.add(torch.tensor([0]), SCORES[1:2])
    collection.build()
    assert pairs_of(graph) == sorted([(2, 0), (2, 1), (1, 4), (1, 3), (0, 4), (0, 3), (3, 1), (3, 3)])
    collection.build()
    assert len(pairs_of(graph)) == 8


def test_gradients_pass_through_both_products():
    graph = PairGraph(INTERACTIONS, 4)
    users = torch.randn(N_USERS, 3, dtype=torch.float64, requires_grad=True)
    items = torch.randn(N_ITEMS, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda u, i: graph(u, i), (users, items))
