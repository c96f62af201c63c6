"""Dropout drawn on the CPU."""

import pytest
import torch

from common.dropout import dropped


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_the_entries_is_zero_and_the_mean_stays(share):
    torch.manual_seed(0)
    x = torch.ones(400, 100, dtype=torch.float64)
    out = dropped(x, share)
    assert (out == 0).double().mean().item() == pytest.approx(share, abs=0.01)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - share)])


def test_nothing_is_drawn_without_dropout_and_nothing_left_of_all():
    state = torch.get_rng_state()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dropped(x, 0.0), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not dropped(x, 1.0).any()


def test_gradients_pass_where_entries_are_kept():
    x = torch.ones(50, requires_grad=True)
    out = dropped(x, 0.4)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
