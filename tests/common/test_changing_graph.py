"""A sparse matrix whose entries change, and blended rows."""

import numpy as np
import scipy.sparse as sp
import torch

from common.changing_graph import ChangingMatrix, blend_rows


def random_matrix(seed, density=0.4, shape=(5, 4)):
    return sp.random(*shape, density=density, random_state=np.random.default_rng(seed), format="csr")


def test_other_entries_serve_products_in_both_directions():
    matrix = ChangingMatrix(random_matrix(0)).double()
    other = random_matrix(1, 0.8)
    matrix.replace(other)
    x = torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    weights = torch.randn(5, 3, dtype=torch.float64)
    dense = torch.from_numpy(other.toarray().astype(np.float32)).double()
    product = matrix(x)
    torch.testing.assert_close(product, dense @ x)
    (gradient,) = torch.autograd.grad((product * weights).sum(), x)
    torch.testing.assert_close(gradient, dense.T @ weights)
    np.testing.assert_array_equal(matrix.entries().toarray(), dense.numpy())
    assert not list(matrix.parameters())


def test_entries_of_any_number_are_part_of_the_state():
    first, second = ChangingMatrix(random_matrix(0)), ChangingMatrix(random_matrix(1, 0.9))
    assert len(first.weights) != len(second.weights)
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    eye = torch.eye(4)
    assert torch.equal(second(eye), first(eye))


def test_rows_are_blended_and_the_others_stay():
    old, new = random_matrix(2), random_matrix(3)
    rows = np.array([True, False, True, False, False])
    expected = old.toarray()
    expected[rows] = 0.3 * new.toarray()[rows] + 0.7 * expected[rows]
    np.testing.assert_allclose(blend_rows(old, new, rows, 0.3).toarray(), expected)
    assert np.array_equal(blend_rows(old, new, rows, 0.0).toarray(), old.toarray())


def test_weights_too_small_to_show_are_dropped():
    old = sp.csr_matrix(np.array([[1.0, 1e-9], [1e-7, 0.0]]))
    blended = blend_rows(old, sp.csr_matrix((2, 2)), np.array([False, True]), 0.5)
    assert blended.nnz == 2
    np.testing.assert_array_equal(blended.toarray(), [[1.0, 0.0], [5e-8, 0.0]])
