"""Rows of some nodes equal those of the joined table."""

import pytest
import torch

from common.node_rows import node_rows


@pytest.mark.parametrize("nodes", [None, [0, 2, 3, 6], [1], [5], []], ids=str)
def test_rows_and_gradients_are_those_of_the_joined_table(nodes):
    users, items = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    places = None if nodes is None else torch.tensor(nodes, dtype=torch.int64)
    found = node_rows(users, items, places)
    expected = torch.cat([users, items])[slice(None) if places is None else places]
    assert torch.equal(found, expected)
    weights = torch.arange(1.0, 1 + expected.numel(), dtype=torch.float64).view_as(expected)
    gradients = [torch.autograd.grad((rows * weights).sum(), [users, items]) for rows in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        assert torch.equal(own, other)
