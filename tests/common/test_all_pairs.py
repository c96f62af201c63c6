"""InfoNCE over all pairs, in tiles: the value of a double loop, and the gradient of the form without tiles."""

import naive
import pytest
import torch

from common import all_pairs
from common.all_pairs import all_pairs_info_nce
from common.losses import in_batch_info_nce


def tables(n, dtype=torch.float64):
    return [torch.randn(n, 5, dtype=dtype, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("n", [1, 6, 7, 13])
@pytest.mark.parametrize("temperature", [0.2, 0.026, 0.001])
def test_value_and_gradient_are_those_of_the_formula(n, temperature, monkeypatch):
    monkeypatch.setattr(all_pairs, "TILE", {"cpu": (3, 4)})
    torch.manual_seed(n)
    first, second = tables(n)
    loss = all_pairs_info_nce(first, second, temperature)
    expected = naive.one_way_info_nce(first.tolist(), second.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    other = in_batch_info_nce(first, second, temperature)
    found = torch.autograd.grad(3 * loss, [first, second])
    for one, two in zip(found, torch.autograd.grad(3 * other, [first, second]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_rows_that_are_alike_and_opposite_do_not_overflow_in_single_precision():
    first = torch.ones(300, 8).requires_grad_()
    loss = all_pairs_info_nce(first, -first.detach(), 1 / 40)
    loss.backward()
    assert loss.item() == pytest.approx(torch.log(torch.tensor(300.0)).item(), rel=1e-4)
    assert torch.isfinite(first.grad).all()


def test_there_is_no_second_derivative():
    first, second = tables(4)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(all_pairs_info_nce(first, second, 0.5), first, create_graph=True)
