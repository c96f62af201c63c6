"""Graphs against dense float64 matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from naive import dense_adjacency, dense_normalized
from toys import N_ITEMS, N_USERS, saved_by, split_of, toy_dataset

from common import sparse
from common.graph import (
    EdgesLeftOut,
    SparseSymmetric,
    bipartite_adjacency,
    degree_sensitive_weights,
    draw_without_replacement,
    normalize_symmetric,
    normalized_interaction_graph,
    pruned_interaction_graph,
    row_means,
)
from common.sparse import EdgePattern, SparseMatrix, csr_product, sparse_product
from utils.data.cache import ArrayCache

# User 2 and item 3 are isolated; the pair (0, 1) stands twice.
USERS, ITEMS = np.array([0, 0, 1, 3, 0, 3]), np.array([1, 0, 1, 2, 1, 0])


@pytest.fixture
def dense():
    """A symmetric matrix [9, 9], float32 values, with an empty row."""
    random = np.random.default_rng(0)
    upper = np.triu(random.standard_normal((9, 9)) * (random.random((9, 9)) < 0.4)).astype(np.float32)
    a = upper + np.triu(upper, 1).T
    a[4] = a[:, 4] = 0
    assert (a != 0).sum() > 10
    return a.astype(np.float64)


def test_adjacency_has_a_one_per_pair_and_direction_however_often_the_pair_occurs():
    a = bipartite_adjacency(USERS, ITEMS, 4, 4)
    np.testing.assert_array_equal(a.toarray(), dense_adjacency(USERS, ITEMS, 4, 4))


def test_normalisation_equals_the_dense_formula_and_isolated_nodes_have_zero_rows():
    a = dense_adjacency(USERS, ITEMS, 4, 4)
    normalized = normalize_symmetric(sp.csr_matrix(a))
    np.testing.assert_allclose(normalized.toarray(), dense_normalized(a), rtol=1e-15)
    for isolated in (2, 4 + 3):
        assert not normalized.toarray()[isolated].any()
        assert not normalized.toarray()[:, isolated].any()


def test_normalisation_takes_weights_into_account():
    random = np.random.default_rng(0)
    a = random.random((6, 6)) * (random.random((6, 6)) < 0.6)
    a = a + a.T
    np.testing.assert_allclose(normalize_symmetric(sp.csr_matrix(a)).toarray(), dense_normalized(a), rtol=1e-14)


def test_the_interaction_graph_is_made_of_training_interactions_alone():
    data = toy_dataset()
    identity = torch.eye(N_USERS + N_ITEMS, dtype=torch.float64)
    found = normalized_interaction_graph(data).product(identity).numpy()
    expected = dense_normalized(dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert not found[N_USERS - 1].any(), "the user without training interactions"
    assert not found[-1].any(), "the item without any interaction"
    assert not found[-2].any(), "the item of the test split alone"


def test_the_interaction_graph_comes_from_the_cache_unless_the_training_interactions_change(tmp_path):
    data = toy_dataset()
    data.cache = ArrayCache(tmp_path)
    first = normalized_interaction_graph(data)
    assert len(list(tmp_path.iterdir())) == 1
    again = normalized_interaction_graph(data)
    assert len(list(tmp_path.iterdir())) == 1
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, again.get_buffer(name))
    other = toy_dataset()
    other.splits["train"] = split_of(data.train.users[1:], data.train.items[1:])
    other.cache = data.cache
    assert len(normalized_interaction_graph(other).columns) == len(first.columns) - 2


@pytest.mark.parametrize("path", [sparse_product, csr_product])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_products_equal_the_dense_one(dense, dtype, path):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    x = torch.randn(9, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    product = path(matrix.offsets, matrix.columns, matrix.weights, x)
    assert product.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(product.double(), torch.from_numpy(dense) @ x.double(), rtol=0, atol=tolerance)
    assert not product[4].any(), "an empty row"
    strided = torch.randn(5, 9, dtype=dtype).T
    product = path(matrix.offsets, matrix.columns, matrix.weights, strided)
    torch.testing.assert_close(product.double(), torch.from_numpy(dense) @ strided.double(), rtol=0, atol=tolerance)


def test_the_order_of_a_matrix_s_entries_does_not_matter(dense):
    ordered = sp.csr_matrix(dense)
    backwards = ordered[:, ::-1].sorted_indices()  # ascending in mirrored columns
    backwards = sp.csr_matrix((backwards.data, 8 - backwards.indices, backwards.indptr), (9, 9))
    assert not backwards.has_sorted_indices
    np.testing.assert_array_equal(backwards.toarray(), dense)
    x = torch.randn(9, 3)
    assert torch.equal(SparseSymmetric(backwards).product(x), SparseSymmetric(ordered).product(x)), "to the last bit"


@pytest.mark.parametrize("n_layers", [0, 1, 2, 4])
def test_propagate_mean_equals_the_mean_of_dense_powers(dense, n_layers):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    a = torch.from_numpy(dense)
    expected = torch.zeros_like(x)
    for power in range(n_layers + 1):
        expected += torch.linalg.matrix_power(a, power) @ x
    torch.testing.assert_close(matrix.propagate_mean(x, n_layers), expected / (n_layers + 1), rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before), "the argument is left alone"


def test_gradients_of_products_are_right(dense):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    x = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(matrix, (x,))
    for n_layers in (0, 1, 3):
        assert torch.autograd.gradcheck(lambda x, n=n_layers: matrix.propagate_mean(x, n), (x,))


def test_gradients_survive_a_gradient_that_is_expanded(dense):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    x = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    for product in (matrix, lambda x: matrix.propagate_mean(x, 2)):
        (found,) = torch.autograd.grad(product(x).sum(), x)  # the gradient of a sum has stride 0
        torch.testing.assert_close(found, product(torch.ones_like(x)).detach())


def test_propagation_keeps_no_layer_for_the_backward_pass(dense):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    x = torch.randn(9, 2, requires_grad=True)
    assert saved_by(lambda: matrix.propagate_mean(x, 4)) == []


def test_the_matrix_moves_with_its_module_and_stays_out_of_the_state_dict(dense):
    matrix = SparseSymmetric(sp.csr_matrix(dense))
    assert matrix.state_dict() == {}
    assert list(matrix.parameters()) == []
    assert matrix.double().weights.dtype == torch.float64


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("from_first", [True, False])
def test_propagation_from_one_kind_of_nodes_is_that_of_a_table_with_zeros_on_the_other(n_layers, from_first):
    data = toy_dataset()
    matrix = normalized_interaction_graph(data)
    sizes = [N_USERS, N_ITEMS]
    part = torch.randn(sizes[not from_first], 5, dtype=torch.float64, requires_grad=True)
    other = torch.zeros(sizes[from_first], 5, dtype=torch.float64)
    whole = matrix.propagate_mean(torch.cat([part, other] if from_first else [other, part]), n_layers)
    before = part.detach().clone()
    halves = matrix.propagate_mean_from(part, n_layers, from_first)
    torch.testing.assert_close(halves, tuple(whole.split(sizes)), rtol=0, atol=1e-12)
    weights = torch.randn(sum(sizes), 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((whole * weights).sum(), part)
    (found,) = torch.autograd.grad((torch.cat(halves) * weights).sum(), part)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(part.detach(), before, rtol=0, atol=0)


def test_halves_of_the_interaction_graph_are_its_blocks_and_each_other_s_backward():
    data = toy_dataset()
    matrix = normalized_interaction_graph(data)
    dense = matrix.product(torch.eye(N_USERS + N_ITEMS, dtype=torch.float64))
    items = torch.randn(N_ITEMS, 3, dtype=torch.float64, requires_grad=True)
    users = torch.randn(N_USERS, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(matrix.to_first(items), dense[:N_USERS, N_USERS:] @ items)
    torch.testing.assert_close(matrix.to_second(users), dense[N_USERS:, :N_USERS] @ users)
    assert torch.autograd.gradcheck(matrix.to_first, (items,))
    assert torch.autograd.gradcheck(matrix.to_second, (users,))


# Pruning


def test_a_pruned_graph_counts_degrees_among_the_kept_edges():
    data = toy_dataset()
    kept = torch.arange(0, len(data.train), 3)
    found = pruned_interaction_graph(data, kept).product(torch.eye(N_USERS + N_ITEMS, dtype=torch.float64)).numpy()
    users, items = data.train.users[::3], data.train.items[::3]
    expected = dense_normalized(dense_adjacency(users, items, N_USERS, N_ITEMS))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_graph_without_some_edges_is_that_of_the_others():
    data = toy_dataset()
    whole = normalized_interaction_graph(data)
    gone = [0, 3, 4, len(data.train) - 1, *range(10, 30)]
    users, items = torch.from_numpy(data.train.users), torch.from_numpy(data.train.items)
    others = torch.from_numpy(np.delete(np.arange(len(data.train)), gone))
    # A pair that stands twice, in any order, and one that is no edge.
    strange = int(np.setdiff1d(np.arange(N_ITEMS), data.train.items[data.train.users == 0])[0])
    given = (
        torch.cat([users[gone], users[gone], torch.tensor([0])]),
        torch.cat([items[gone], items[gone], torch.tensor([strange])]),
    )
    before = whole.weights.clone()
    part = EdgesLeftOut(whole)(whole, *given)
    identity = torch.eye(N_USERS + N_ITEMS, dtype=torch.float64)
    expected = pruned_interaction_graph(data, others).product(identity)
    torch.testing.assert_close(part.product(identity), expected, rtol=0, atol=1e-7)
    assert torch.equal(whole.weights, before)
    torch.testing.assert_close(EdgesLeftOut(whole)(whole, users, items).weights, torch.zeros_like(before))


def test_a_graph_without_some_edges_passes_gradients_by_its_own_weights():
    data = toy_dataset()
    whole = normalized_interaction_graph(data)
    part = EdgesLeftOut(whole)(whole, torch.from_numpy(data.train.users[:9]), torch.from_numpy(data.train.items[:9]))
    x = torch.randn(N_USERS + N_ITEMS, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda table: part.propagate_mean(table, 3), (x,))
    found = torch.autograd.grad(part.propagate_mean(x, 2).sum(), x)[0]
    assert not torch.allclose(found, torch.autograd.grad(whole.propagate_mean(x, 2).sum(), x)[0])


def test_a_graph_without_edges_can_leave_out_nothing_more():
    empty = SparseSymmetric(sp.csr_matrix((5, 5)), split=2)
    pair = torch.tensor([0]), torch.tensor([1])
    assert not len(EdgesLeftOut(empty)(empty, *pair).weights)


def test_edge_weights_fall_with_both_degrees():
    data = toy_dataset()
    users, items = data.train.users.tolist(), data.train.items.tolist()
    expected = [(users.count(u) * items.count(i)) ** -0.5 for u, i in zip(users, items, strict=True)]
    assert degree_sensitive_weights(data).tolist() == pytest.approx(expected, rel=1e-14)


def test_draws_without_replacement_have_the_probabilities_of_drawing_one_by_one():
    weights = torch.tensor([4.0, 2.0, 1.0, 1.0])
    torch.manual_seed(0)
    n = 20_000
    draws = torch.stack([draw_without_replacement(weights, 2) for _ in range(n)])
    assert (draws[:, 0] < draws[:, 1]).all(), "distinct and ascending"
    found = torch.bincount(draws.flatten(), minlength=4) / n
    p = (weights / weights.sum()).tolist()
    for place in range(4):
        second = sum(p[first] * p[place] / (1 - p[first]) for first in range(4) if first != place)
        expected = p[place] + second
        assert found[place].item() == pytest.approx(expected, abs=5 * (expected * (1 - expected) / n) ** 0.5)


def test_all_or_nothing_can_be_drawn():
    weights = torch.rand(5) + 0.1
    assert draw_without_replacement(weights, 5).tolist() == [0, 1, 2, 3, 4]
    assert draw_without_replacement(weights, 0).tolist() == []


# Matrices that are not symmetric


@pytest.fixture
def rectangle():
    """A matrix [6, 4] with an empty row and an empty column."""
    random = np.random.default_rng(0)
    a = (random.standard_normal((6, 4)) * (random.random((6, 4)) < 0.6)).astype(np.float32).astype(np.float64)
    a[2], a[:, 1] = 0, 0
    return a


def test_a_constant_matrix_multiplies_and_differentiates_like_the_dense_one(rectangle):
    matrix = SparseMatrix(sp.csr_matrix(rectangle))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(matrix(x), torch.from_numpy(rectangle) @ x)
    assert torch.autograd.gradcheck(matrix, (x,))
    assert matrix.state_dict() == {}


def pattern_of(dense):
    """The entries of a dense matrix in a shuffled order, and their values."""
    rows, columns = (torch.from_numpy(part) for part in np.nonzero(dense))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    pattern = EdgePattern(rows[order], columns[order], dense.shape)
    values = torch.from_numpy(dense)[rows[order], columns[order]]
    return pattern, values


def test_products_with_given_values_are_the_dense_ones_and_differentiable_in_both(rectangle):
    pattern, values = pattern_of(rectangle)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(pattern(values, x), torch.from_numpy(rectangle) @ x)
    assert torch.autograd.gradcheck(pattern, (values.clone().requires_grad_(), x))
    assert torch.autograd.gradcheck(lambda x: pattern(values, x), (x,))
    assert torch.autograd.gradcheck(lambda v: pattern(v, x.detach()), (values.clone().requires_grad_(),))


def test_an_entry_that_stands_twice_adds_up():
    pattern = EdgePattern(torch.tensor([0, 0]), torch.tensor([1, 1]), (1, 2))
    found = pattern(torch.tensor([2.0, 3.0]), torch.tensor([[7.0], [1.0]]))
    assert found.item() == 5


def test_sums_of_a_pattern_are_those_of_rows_and_columns(rectangle):
    pattern, values = pattern_of(rectangle)
    torch.testing.assert_close(pattern.row_sums(values), torch.from_numpy(rectangle.sum(axis=1)))


@pytest.mark.parametrize("block", [1, 5, 10**6])
def test_dots_of_a_pattern_are_those_of_its_pairs(rectangle, block, monkeypatch):
    monkeypatch.setattr(sparse, "EDGE_BLOCK", {"cpu": block})
    pattern, values = pattern_of(rectangle)
    left = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    right = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    expected = (left @ right.T)[pattern.rows, pattern.columns]
    torch.testing.assert_close(pattern.dots(left, right), expected)
    assert torch.autograd.gradcheck(pattern.dots, (left, right))
    assert len(values) == len(expected) > 5


def test_a_pattern_without_entries_gives_zeros():
    none = torch.zeros(0, dtype=torch.int64)
    pattern = EdgePattern(none, none, (3, 2))
    x, values = torch.randn(2, 4), torch.zeros(0)
    assert not pattern(values, x).any()
    assert pattern.dots(torch.randn(3, 4), x).shape == (0,)


def test_row_means_average_over_neighbours():
    matrix = sp.csr_matrix(np.array([[1.0, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=np.float32))
    found = row_means(matrix)
    np.testing.assert_array_equal(found.toarray(), [[0.5, 0.5, 0], [0, 0, 0], [0, 1, 0]])
    assert found.dtype == np.float64
