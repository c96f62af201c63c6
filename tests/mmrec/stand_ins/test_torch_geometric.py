"""The stand-in for PyTorch Geometric: message passing against double loops, helpers against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmrec.stand_ins.torch_geometric import edges as utils
from mmrec.stand_ins.torch_geometric import inits, nn

N, E = 9, 40


@pytest.fixture
def edges():
    return torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights():
    return torch.rand(E, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def x():
    return torch.randn(N, 4, generator=torch.Generator().manual_seed(2))


class Asking(nn.MessagePassing):
    """Asks for all that a message can ask for."""

    def forward(self, x, edge_index, w):
        return self.propagate(edge_index, x=x, w=w, size=(x.size(0), x.size(0)), scale=2.0)

    def message(self, x_i, x_j, w, scale, edge_index, edge_index_i, index, size, size_i, dim_size):
        assert torch.equal(edge_index_i, index)
        assert tuple(size) == (N, N)
        assert size_i == dim_size == N
        return (x_j - x_i / 2) * w[:, None] * scale

    def update(self, aggr_out, x):
        return aggr_out + x


@pytest.mark.parametrize("aggr", ["add", "mean", "max"])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_messages(aggr, flow, x, edges, weights):
    found = Asking(aggr=aggr, flow=flow)(x, edges, weights)
    source, target = (0, 1) if flow == "source_to_target" else (1, 0)
    for node in range(N):
        came = [(x[edges[source, e]] - x[node] / 2) * weights[e] * 2 for e in range(E) if int(edges[target, e]) == node]
        stacked = torch.stack(came) if came else torch.zeros(1, 4)
        expected = {"add": stacked.sum(0), "mean": stacked.mean(0), "max": stacked.max(0).values}[aggr]
        torch.testing.assert_close(found[node], expected + x[node])


def test_two_kinds_of_nodes(x):
    class Across(nn.MessagePassing):
        def forward(self, x, y, edge_index):
            return self.propagate(edge_index, x=(x, y))

    edges = torch.tensor([[0, 1, 8], [0, 0, 2]])
    found = Across(aggr="add")(x, torch.zeros(3, 4), edges)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, torch.stack([x[0] + x[1], torch.zeros(4), x[8]]))


def test_names_that_nobody_gives_are_told(x, edges):
    class Wrong(nn.MessagePassing):
        def message(self, x_j, nothing):
            return x_j

    with pytest.raises(TypeError, match="asks for 'nothing', which was not given"):
        Wrong().propagate(edges, x=x)
    with pytest.raises(ValueError, match="aggr"):
        nn.MessagePassing(aggr="median")


def test_layers_are_products_with_the_normalised_graph(x, edges):
    layer = nn.GCNConv(4, 3)
    dense = torch.zeros(N, N)
    for source, target in edges.t().tolist():
        if source != target:
            dense[target, source] += 1
    dense += torch.eye(N)
    degrees = dense.sum(1)
    expected = (dense / degrees.sqrt()[:, None] / degrees.sqrt()) @ (x @ layer.lin.weight.T)
    without = edges[:, edges[0] != edges[1]]
    torch.testing.assert_close(layer(x, without), expected)
    dense -= torch.eye(N)
    degrees = dense.sum(1)
    scale = torch.where(degrees > 0, degrees, torch.inf) ** -0.5
    torch.testing.assert_close(nn.LGConv()(x, without), (scale[:, None] * dense * scale) @ x)


def test_softmax_over_the_edges_of_a_node(edges, weights):
    found = utils.softmax(weights * 100, edges[1], num_nodes=N)
    for node in range(N):
        own = edges[1] == node
        torch.testing.assert_close(found[own], torch.softmax(weights[own] * 100, 0))
    assert torch.equal(found, utils.softmax(weights * 100, edges[1], N)), "the old place of num_nodes"


def test_degree_and_self_loops(edges, weights):
    assert utils.degree(edges[0], N).tolist() == [float((edges[0] == node).sum()) for node in range(N)]
    assert utils.degree(edges[0], N, dtype=torch.long).dtype == torch.long
    without, kept = utils.remove_self_loops(edges, weights)
    assert not utils.contains_self_loops(without)
    assert kept is not None
    assert len(kept) == int((edges[0] != edges[1]).sum())
    looped, extended = utils.add_self_loops(without, kept, 3.0, N)
    assert extended is not None
    assert looped[:, -N:].tolist() == [list(range(N))] * 2
    assert extended[-N:].tolist() == [3.0] * N
    remaining, values = utils.add_remaining_self_loops(edges, weights, num_nodes=N)
    assert remaining.shape[1] == without.shape[1] + N
    assert values is not None
    own = [e for e in range(E) if edges[0, e] == edges[1, e]]
    for e in own:
        node = int(edges[0, e])
        last = max(other for other in own if int(edges[0, other]) == node)
        assert values[without.shape[1] + node] == weights[last] or weights[e] == values[without.shape[1] + node]


@pytest.mark.parametrize("kind", [None, "sym", "rw"])
def test_laplacian(kind, edges, weights):
    index, values = utils.get_laplacian(edges, weights, kind, num_nodes=N)
    dense = utils.to_dense_adj(
        *utils.remove_self_loops(edges)[:1], None, utils.remove_self_loops(edges, weights)[1], N
    )[0]
    degrees = dense.sum(1)
    scale = torch.where(degrees > 0, degrees, torch.inf)
    expected = {
        None: torch.diag(degrees) - dense,
        "sym": torch.eye(N) - dense / scale.sqrt()[:, None] / scale.sqrt(),
        "rw": torch.eye(N) - dense / scale[:, None],
    }[kind]
    torch.testing.assert_close(utils.to_dense_adj(index, None, values, N)[0], expected)
    with pytest.raises(ValueError, match="normalization"):
        utils.get_laplacian(edges, weights, "other")


def test_dropped_edges(edges, weights):
    kept, values = utils.dropout_adj(edges, weights, p=0.4)
    assert 0 < kept.shape[1] < E
    assert values is not None
    pairs = [(*pair, w) for pair, w in zip(edges.t().tolist(), weights.tolist(), strict=True)]
    assert all((*pair, w) in pairs for pair, w in zip(kept.t().tolist(), values.tolist(), strict=True))
    assert torch.equal(utils.dropout_adj(edges, p=0.4, training=False)[0], edges)
    both, _ = utils.dropout_adj(utils.to_undirected(edges), p=0.4, force_undirected=True)
    assert utils.is_undirected(both)
    with pytest.raises(ValueError, match="probability"):
        utils.dropout_edge(edges, 2.0)


def test_coalesce_and_matrices(edges, weights):
    index, values = utils.coalesce(edges, weights, N)
    dense = utils.to_dense_adj(edges, None, weights, N)[0]
    torch.testing.assert_close(utils.to_dense_adj(index, None, values, N)[0], dense)
    assert index.shape[1] == len(set(map(tuple, edges.t().tolist())))
    assert index.t().tolist() == sorted(index.t().tolist())
    matrix = utils.to_scipy_sparse_matrix(edges, weights, N)
    np.testing.assert_allclose(matrix.toarray(), dense.numpy(), rtol=1e-6)
    again, back = utils.from_scipy_sparse_matrix(matrix)
    assert torch.equal(again, edges)
    assert torch.equal(back, weights)
    places, kept = utils.dense_to_sparse(dense)
    assert torch.equal(dense[places[0], places[1]], kept)
    within, _ = utils.subgraph(torch.tensor([2, 5, 7]), edges, weights, relabel_nodes=True)
    assert within.shape[1] == sum(set(pair) <= {2, 5, 7} for pair in edges.t().tolist())
    assert within.numel() == 0 or int(within.max()) <= 2


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_scatter_goes_along_the_first_dimension(reduce, x):
    index = torch.tensor([0, 0, 1, 3, 3, 3, 4, 4, 4])
    found = utils.scatter(x, index, dim_size=6, reduce=reduce)
    for place in range(6):
        own = x[index == place] if bool((index == place).any()) else torch.zeros(1, 4)
        expected = {"sum": own.sum(0), "mean": own.mean(0), "max": own.max(0).values, "min": own.min(0).values}[reduce]
        torch.testing.assert_close(found[place], expected)


def test_initialisers():
    table = torch.zeros(30, 10)
    inits.uniform(16, table)
    assert 0.2 < float(table.abs().max()) <= 0.25
    inits.glorot(table)
    bound = math.sqrt(6 / 40)
    assert 0.9 * bound < float(table.abs().max()) <= bound
    inits.ones(table)
    assert bool((table == 1).all())
    inits.zeros(None)
    layer = torch.nn.Linear(2, 2)
    inits.zeros(layer)
    assert not layer.weight.any()


try:
    import torch_geometric
except ImportError:
    torch_geometric = None


@pytest.mark.skipif(torch_geometric is None, reason="torch_geometric is not installed")
def test_as_the_package(edges, weights, x):
    real = torch_geometric.utils
    torch.testing.assert_close(
        utils.softmax(weights, edges[1], num_nodes=N), real.softmax(weights, edges[1], num_nodes=N)
    )
    for name in ("get_laplacian", "add_remaining_self_loops", "coalesce", "to_undirected"):
        torch.testing.assert_close(getattr(utils, name)(edges, weights), getattr(real, name)(edges, weights))
