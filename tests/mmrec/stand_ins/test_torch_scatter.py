"""scatter_add and its kin against loops."""

from __future__ import annotations

import pytest
import torch

from mmrec.stand_ins.torch_scatter import (
    scatter,
    scatter_add,
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_softmax,
    scatter_sum,
)  # fmt: skip

INDEX = [2, 0, 2, 2, 0]


def summed(rows, index, n):
    """Lists of rows added by index."""
    result = [[0.0] * len(rows[0]) for _ in range(n)]
    for row, place in zip(rows, index, strict=True):
        result[place] = [a + b for a, b in zip(result[place], row, strict=True)]
    return result


@pytest.mark.parametrize("dim", [0, 1, -1, -2])
def test_rows_or_columns_are_added_where_a_vector_says(dim):
    rows = torch.randn(5, 3, dtype=torch.float64)
    src = rows if dim in (0, -2) else rows.T
    expected = torch.tensor(summed(rows.tolist(), INDEX, 4), dtype=torch.float64)
    expected = expected if dim in (0, -2) else expected.T
    torch.testing.assert_close(scatter_add(src, torch.tensor(INDEX), dim=dim, dim_size=4), expected)


def test_index_of_the_full_shape_and_the_default_dimension():
    found = scatter_sum(torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[0, 0, 1], [1, 1, 1]]))
    assert found.tolist() == [[3, 3], [0, 15]]


def test_index_with_fewer_dimensions_broadcasts():
    found = scatter_add(torch.ones(2, 3, 2), torch.tensor([[0, 0, 1], [1, 1, 1]]), dim=1)
    assert found.tolist() == [[[2, 2], [1, 1]], [[0, 0], [3, 3]]]


def test_size_is_one_more_than_the_largest_index_or_as_given():
    src = torch.ones(5)
    assert scatter_add(src, torch.tensor(INDEX)).tolist() == [2, 0, 3]
    assert scatter_add(src, torch.tensor(INDEX), dim_size=5).tolist() == [2, 0, 3, 0, 0]
    assert scatter_add(torch.ones(0), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_out_is_added_to_in_place():
    out = torch.tensor([10.0, 20, 30])
    assert scatter_add(torch.ones(5), torch.tensor(INDEX), out=out) is out
    assert out.tolist() == [12, 20, 33]


def test_mean_divides_by_the_number_of_slices_and_leaves_empty_places():
    src = torch.tensor([1.0, 2, 3, 8, 6])
    assert scatter_mean(src, torch.tensor(INDEX), dim_size=4).tolist() == [4, 0, 4, 0]
    assert scatter_mean(src.long(), torch.tensor(INDEX)).tolist() == [4, 0, 4]


def test_word_picks_the_function():
    src, index = torch.rand(5, 2), torch.tensor(INDEX)
    assert torch.equal(scatter(src, index, dim=0), scatter_add(src, index, dim=0))
    assert torch.equal(scatter(src, index, dim=0, reduce="mean"), scatter_mean(src, index, dim=0))
    assert torch.equal(scatter(src, index, dim=0, reduce="max"), scatter_max(src, index, dim=0)[0])
    with pytest.raises(ValueError, match="sum, add, mean, max and min, got 'median'"):
        scatter(src, index, reduce="median")


@pytest.mark.parametrize(("function", "best"), [(scatter_max, max), (scatter_min, min)])
def test_largest_and_smallest_with_where_they_came_from(function, best):
    src = torch.tensor([-1.0, -2, -3, -8, -6])
    values, places = function(src, torch.tensor(INDEX), dim_size=4)
    for place in range(4):
        own = [(float(src[n]), n) for n, to in enumerate(INDEX) if to == place]
        assert (values[place].item(), places[place].item()) == (best(own) if own else (0.0, 5))


def test_softmax_sums_to_one_in_each_place():
    src = torch.randn(5, 2) * 50
    found = scatter_softmax(src, torch.tensor(INDEX), dim=0)
    for place in set(INDEX):
        own = torch.tensor(INDEX) == place
        torch.testing.assert_close(found[own], torch.softmax(src[own], 0))


def test_gradient_goes_through():
    src = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    for function in (scatter_add, scatter_mean):
        assert torch.autograd.gradcheck(lambda x, f=function: f(x, torch.tensor(INDEX), dim=0), (src,))
