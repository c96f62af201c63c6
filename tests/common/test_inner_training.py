"""A network with its own Adam: the same as PyTorch's, its state in the state dict, a constant to the model's loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.inner_training import InnerTraining


def make(seed=0, **options):
    torch.manual_seed(seed)
    return InnerTraining(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), 0.05, **options)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)


def fit(inner, steps, first=0):
    values = []
    for number in range(first, first + steps):
        x, y = batch(number)
        values.append(inner.step(lambda x=x, y=y: F.mse_loss(inner(x), y)).item())
    return values


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_steps_are_those_of_pytorchs_adam(betas):
    inner = make(betas=betas)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05, betas=betas)
    losses = []
    for number in range(7):
        x, y = batch(number)
        loss = F.mse_loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert fit(inner, 7) == pytest.approx(losses, rel=1e-5)
    for own, weights in zip(inner.weights(), network.parameters(), strict=True):
        torch.testing.assert_close(own, weights.detach())


def test_the_state_dict_is_enough_to_go_on_to_the_same_bits():
    inner = make()
    fit(inner, 3)
    other = make(seed=1)
    other.load_state_dict(copy.deepcopy(inner.state_dict()))
    assert fit(other, 3, first=3) == fit(inner, 3, first=3)
    for one, two in zip(inner.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_every_weight_moves_and_none_is_a_parameter():
    inner = make()
    before = [weights.clone() for weights in inner.weights()]
    assert len(before) == 4
    fit(inner, 1)
    assert not list(inner.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, inner.weights(), strict=True))


def test_it_passes_gradients_on_and_keeps_none():
    inner = make()
    x = batch(0)[0].requires_grad_()
    inner(x).sum().backward()
    assert x.grad.abs().max() > 0
    assert not any(weights.requires_grad for weights in inner.weights())


def test_a_loss_that_fails_leaves_constants_behind():
    inner = make()
    with pytest.raises(ZeroDivisionError):
        inner.step(lambda: 1 / 0)
    assert not any(weights.requires_grad for weights in inner.weights())


def test_a_moved_or_copied_module_steps_with_its_own_state():
    inner = make().double()
    twin = copy.deepcopy(inner)
    x, y = (part.double() for part in batch(0))
    values = [part.step(lambda part=part: F.mse_loss(part(x), y)).item() for part in (inner, inner, twin)]
    assert values[0] == values[2] > values[1]
