"""Neighbour graphs against sorting every pair, and what happens to ties and to rows of zeros."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from naive import dot
from toys import N_ITEMS, toy_dataset

from common import neighbours
from common.neighbours import (
    binary_item_graph,
    cosine_graph,
    image_share,
    keep_largest,
    largest_co_occurrences,
    mixed_item_graph,
    nearest_neighbours,
    normalize_by_row_sums,
    shared_neighbours,
    weighted_graph_of,
    weighted_item_graph,
)
from utils.data.cache import ArrayCache


def naive_neighbours(rows, k, shrink=0.0):
    """For each row its (similarity, column) list: itself, then the others by falling similarity, then id."""
    lengths = [dot(row, row) ** 0.5 for row in rows]
    lists = []
    for i, row in enumerate(rows):
        found = []
        for j, other in enumerate(rows):
            if i == j:
                found.append((np.inf, j))
            elif lengths[i] and lengths[j]:
                found.append((dot(row, other) / (lengths[i] * lengths[j] + shrink), j))
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        own = lengths[i] ** 2 / (lengths[i] ** 2 + shrink) if lengths[i] else 1.0
        lists.append([(own, i), *found[1:k]])
    return lists


@pytest.mark.parametrize("shrink", [0.0, 3.0])
@pytest.mark.parametrize("block", [1, 40, 10**6])
def test_neighbours_are_those_of_sorting_all_pairs(monkeypatch, block, shrink):
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", block)
    features = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features[7] = 0
    values, columns = nearest_neighbours(features, 6, shrink)
    for row, expected in enumerate(naive_neighbours(features.tolist(), 6, shrink)):
        n = len(expected)
        assert columns[row].tolist() == [column for _, column in expected] + [-1] * (6 - n)
        assert values[row, :n].tolist() == pytest.approx([value for value, _ in expected], rel=1e-12)
    assert columns[7].tolist() == [7, -1, -1, -1, -1, -1], "a row of zeros has itself alone"
    assert not (columns[:7] == 7).any()


def test_ties_go_to_the_row_itself_then_to_the_smaller_id():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    _, columns = nearest_neighbours(features, 3)
    assert columns.tolist() == [[0, 1, 3], [1, 0, 3], [2, 0, 1], [3, 0, 1], [4, 0, 1]]


def test_no_more_neighbours_than_rows():
    values, columns = nearest_neighbours(torch.randn(3, 2), 10)
    assert values.shape == columns.shape == (3, 3)
    assert columns.sort(dim=1).values.tolist() == [[0, 1, 2]] * 3


def test_scaling_a_row_does_not_change_cosines():
    features = torch.randn(12, 5, dtype=torch.float64)
    scaled = features * torch.rand(12, 1, dtype=torch.float64) * 1e6 + 0
    assert torch.equal(nearest_neighbours(features, 4)[1], nearest_neighbours(scaled, 4)[1])


# Item graphs


def dense_graph(data, modality, k, weighted):
    """The normalised item graph, entry by entry."""
    n = data.n_items
    graph = np.zeros((n, n))
    for row, found in enumerate(naive_neighbours(data.features[modality].astype(np.float64).tolist(), k)):
        for value, column in found:
            graph[row, column] = value if weighted else 1.0
    sums = graph.sum(axis=1)
    for i in range(n):
        for j in range(n):
            if graph[i, j]:
                graph[i, j] /= (sums[i] * sums[j]) ** 0.5 if min(sums[i], sums[j]) > 0 else np.inf
    return graph


@pytest.mark.parametrize("weighted", [True, False])
def test_item_graphs_are_those_of_the_formula(weighted):
    data = toy_dataset()
    graph = (weighted_item_graph if weighted else binary_item_graph)(data, "visual", 4)
    np.testing.assert_allclose(graph.toarray(), dense_graph(data, "visual", 4, weighted), atol=1e-6)


def test_each_entry_of_a_binary_graph_is_one_over_k_but_for_items_without_features():
    graph = binary_item_graph(toy_dataset(), "visual", 5).tocsr()
    assert np.diff(graph.indptr).tolist() == [5] * (N_ITEMS - 1) + [1]
    np.testing.assert_allclose(graph.data[:-1], 1 / 5, rtol=1e-12)
    assert graph[N_ITEMS - 1, N_ITEMS - 1] == 1


def test_a_row_whose_weights_sum_to_nothing_positive_is_cut_off():
    graph = normalize_by_row_sums(sp.csr_matrix(np.array([[1.0, -1.5], [0.5, 1.5]])))
    np.testing.assert_allclose(graph.toarray(), [[0, 0], [0, 0.75]])


def test_the_mixed_graph_weighs_visual_against_the_rest():
    data = toy_dataset(["visual", "textual", "acoustic"])
    parts = [binary_item_graph(data, name, 4).toarray() for name in data.features]
    mixed = mixed_item_graph(data, list(data.features), 4, 0.2).toarray()
    np.testing.assert_allclose(mixed, 0.2 * parts[0] + 0.4 * parts[1] + 0.4 * parts[2], atol=1e-12)


@pytest.mark.parametrize(
    ("modalities", "shares"),
    [
        (["visual"], [1.0]),
        (["textual"], [1.0]),
        (["visual", "textual"], [0.1, 0.9]),
        (["acoustic", "visual"], [0.9, 0.1]),
        (["acoustic", "textual"], [0.5, 0.5]),
    ],
)
def test_shares_of_modalities(modalities, shares):
    assert list(image_share(modalities, 0.1).values()) == pytest.approx(shares)


def test_graphs_come_from_the_cache_unless_features_or_k_change(tmp_path):
    data = toy_dataset()
    data.cache = ArrayCache(tmp_path)
    first = cosine_graph(data, "visual", 4)
    assert (cosine_graph(data, "visual", 4) != first).nnz == 0
    assert len(list(tmp_path.iterdir())) == 1
    cosine_graph(data, "visual", 3)
    cosine_graph(data, "textual", 4)
    assert len(list(tmp_path.iterdir())) == 3
    other = toy_dataset(seed=1)
    other.cache = data.cache
    assert (cosine_graph(other, "visual", 4) != first).nnz > 0


# Sparse rows


def test_the_largest_of_each_row_come_first_ties_by_column():
    matrix = sp.csr_matrix(np.array([[0, 2, 5, 2, 2], [0, 0, 0, 0, 0], [7, 0, 0, 0, 9], [1, 1, 1, 1, 1.0]]))
    kept = keep_largest(matrix, 3)
    rows = [kept.indices[a:b].tolist() for a, b in zip(kept.indptr[:-1], kept.indptr[1:], strict=True)]
    assert rows == [[2, 1, 3], [], [4, 0], [0, 1, 2]]
    assert kept.data.tolist() == [5, 2, 2, 9, 7, 1, 1, 1]


@pytest.mark.parametrize("work", [1, 200, 10**9])
@pytest.mark.parametrize("cosine", [False, True])
def test_co_occurrences_are_those_of_counting_pair_by_pair(monkeypatch, work, cosine):
    monkeypatch.setattr(neighbours, "PRODUCT_WORK", work)
    random = np.random.default_rng(0)
    dense = (random.random((25, 12)) < 0.3).astype(np.float32)
    dense[[0, 4, 24]] = 0
    found = largest_co_occurrences(sp.csr_matrix(dense), 5, cosine, shrink=2.0)
    assert found.shape == (25, 25)
    for u in range(25):
        shared = []
        for v in range(25):
            count = sum(int(a and b) for a, b in zip(dense[u], dense[v], strict=True))
            if v != u and count:
                length = (dense[u].sum() * dense[v].sum()) ** 0.5
                shared.append((count / (length + 2.0) if cosine else count, v))
        shared.sort(key=lambda pair: (-round(pair[0], 12), pair[1]))
        row = slice(found.indptr[u], found.indptr[u + 1])
        assert found.indices[row].tolist() == [v for _, v in shared[:5]]
        assert found.data[row].tolist() == pytest.approx([value for value, _ in shared[:5]], rel=1e-6)


def test_co_occurrences_of_nothing():
    assert largest_co_occurrences(sp.csr_matrix((4, 3)), 2).nnz == 0


def test_shared_neighbours_are_in_the_lists_of_every_modality():
    data, k = toy_dataset(), 9
    graphs = [cosine_graph(data, modality, k).toarray() != 0 for modality in data.features]
    expected = graphs[0] & graphs[1]
    np.fill_diagonal(expected, False)
    found = shared_neighbours(data, list(data.features), k)
    assert np.array_equal(found.toarray(), expected)
    assert found.nnz == expected.sum() > 0
    np.fill_diagonal(graphs[0], False)
    assert np.array_equal(shared_neighbours(data, ["visual"], k).toarray(), graphs[0])


def test_a_graph_of_given_features_is_that_of_the_data_set_s_own():
    data = toy_dataset()
    found = weighted_graph_of(torch.from_numpy(data.features["visual"]), 4)
    assert (found != weighted_item_graph(data, "visual", 4)).nnz == 0
    assert found.nnz > N_ITEMS
