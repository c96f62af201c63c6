"""The helpers that MMRec's files import, against loops over their definitions."""

from __future__ import annotations

import math
import time

import pytest
import torch
from naive import dot, rows_of, unit

from mmrec.stand_ins.utils import (
    build_knn_neighbourhood,
    build_knn_normalized_graph,
    build_sim,
    compute_normalized_laplacian,
    dict2str,
    early_stopping,
    get_dense_laplacian,
    get_local_time,
    get_sparse_laplacian,
)

N, K = 6, 3


@pytest.fixture
def adj():
    """Positive and not symmetric, with a row of zeros."""
    matrix = torch.rand(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    matrix[2] = 0
    return matrix


def normalized(rows, kind):
    """D^-1/2 A D^-1/2, D^-1 A or A, entry by entry."""
    degree = [sum(row) for row in rows]
    scale = {
        "sym": lambda i, j: 0 if not degree[i] or not degree[j] else 1 / math.sqrt(degree[i] * degree[j]),
        "rw": lambda i, j: 0 if not degree[i] else 1 / degree[i],
        "none": lambda i, j: 1,
    }[kind]
    return torch.tensor([[a * scale(i, j) for j, a in enumerate(row)] for i, row in enumerate(rows)]).double()


def kept(rows, k):
    """The k largest entries of each row."""
    return [[a if a in sorted(row)[-k:] else 0.0 for a in row] for row in rows]


def test_similarity_is_the_cosine_and_zero_rows_have_none():
    x = torch.randn(5, 3, dtype=torch.float64)
    x[1] = 0
    rows = [unit(row) for row in rows_of(x)]
    expected = torch.tensor([[dot(a, b) for b in rows] for a in rows], dtype=torch.float64)
    torch.testing.assert_close(build_sim(x), expected)
    assert build_sim(x)[1].tolist() == [0] * 5


def test_neighbourhood_keeps_the_largest_of_each_row(adj):
    found = build_knn_neighbourhood(adj, K)
    assert found.tolist() == kept(adj.tolist(), K)
    assert build_knn_neighbourhood(-adj, 1)[0].sum() == -adj[0].min(), "negative values are values too"


def test_laplacian_is_normalised_by_row_sums(adj):
    torch.testing.assert_close(compute_normalized_laplacian(adj), normalized(adj.tolist(), "sym"))


@pytest.mark.parametrize("kind", ["none", "sym", "rw"])
def test_sparse_and_dense_laplacians_are_the_definition(adj, kind):
    expected = normalized(adj.tolist(), kind)
    torch.testing.assert_close(get_dense_laplacian(adj, kind), expected)
    edges = adj.nonzero().T
    index, weights = get_sparse_laplacian(edges, adj[edges[0], edges[1]], N, normalization=kind)
    assert torch.equal(index, edges)
    torch.testing.assert_close(
        torch.sparse_coo_tensor(index, weights, (N, N), check_invariants=False).to_dense(), expected
    )


@pytest.mark.parametrize("kind", ["none", "sym", "rw"])
@pytest.mark.parametrize("is_sparse", [True, False])
def test_neighbour_graph_is_the_normalised_neighbourhood(adj, is_sparse, kind):
    found = build_knn_normalized_graph(adj, K, is_sparse, kind)
    assert found.is_sparse == is_sparse
    dense = found.to_dense() if is_sparse else found
    torch.testing.assert_close(dense, normalized(kept(adj.tolist(), K), kind))


@pytest.mark.parametrize(
    ("value", "best", "waited", "bigger", "expected"),
    [
        (0.3, 0.2, 4, True, (0.3, 0, False, True)),
        (0.2, 0.2, 0, True, (0.2, 1, False, False)),
        (0.1, 0.2, 2, True, (0.2, 3, False, False)),
        (0.1, 0.2, 3, True, (0.2, 4, True, False)),
        (0.1, 0.2, 3, False, (0.1, 0, False, True)),
        (0.3, 0.2, 3, False, (0.2, 4, True, False)),
    ],
)
def test_early_stopping_stops_after_the_wait_is_over(value, best, waited, bigger, expected):
    assert early_stopping(value, best, waited, 3, bigger=bigger) == expected


def test_metrics_in_a_line():
    assert dict2str({"recall@10": 0.123456, "ndcg@10": 1}).split() == ["recall@10:", "0.1235", "ndcg@10:", "1.0000"]


def test_local_time_is_now():
    before = time.time()
    then = time.mktime(time.strptime(get_local_time(), "%b-%d-%Y-%H-%M-%S"))
    assert int(before) <= then <= time.time()
