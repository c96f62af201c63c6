"""Sums over blocks of rows against the same function of all rows at once."""

import pytest
import torch

from common.blocks import sum_over_blocks


def coupled(rows, others):
    """Something that is a sum over rows, of two kinds of rows and two tables."""
    first, second = rows
    table, weights = others
    return ((first @ table.T).softmax(dim=1) * weights).square().sum() + (second.sin() @ table.T).exp().sum()


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 3), (7, 3), (5, 3), (5,))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_value_and_gradients_are_those_of_one_block(size):
    tensors = inputs()
    whole = coupled(tensors[:2], tensors[2:])
    expected = torch.autograd.grad(3 * whole, tensors)
    found = sum_over_blocks(coupled, size, tensors[:2], tensors[2:])
    assert found.item() == pytest.approx(whole.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(3 * found, tensors), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_no_matrix_of_rows_and_columns_is_kept():
    tensors = inputs()
    found = sum_over_blocks(coupled, 2, tensors[:2], tensors[2:])
    assert sum(tensor.numel() for tensor in found.grad_fn.saved_tensors) == sum(tensor.numel() for tensor in tensors)


def test_there_is_no_second_derivative():
    tensors = inputs()
    found = sum_over_blocks(coupled, 2, tensors[:2], tensors[2:])
    with pytest.raises(RuntimeError, match="sum_over_blocks has no second derivative"):
        torch.autograd.grad(found, tensors, create_graph=True)


def test_half_precision_is_widened():
    tensors = inputs(torch.float32)
    plain = sum_over_blocks(coupled, 3, tensors[:2], tensors[2:])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sum_over_blocks(coupled, 3, tensors[:2], tensors[2:]), plain)
