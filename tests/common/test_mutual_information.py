"""CLUB's bound and fit against plain Python and PyTorch's own Adam."""

import math

import pytest
import torch
from naive import affine, rows_of
from toys import on_double

from common.mutual_information import ClubEstimator


def estimator(seed=0, width=4, hidden=3, **options):
    torch.manual_seed(seed)
    return on_double(ClubEstimator(width, hidden, **options))


def pair(seed=1, n=6, width=4):
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(n, width, dtype=torch.float64, generator=random) for _ in range(2))


def moments(club, row):
    """mu and lv of one row."""
    hidden = [[max(value, 0) for value in affine(row, net[0])] for net in (club.mean, club.log_variance)]
    return affine(hidden[0], club.mean[2]), [math.tanh(x) for x in affine(hidden[1], club.log_variance[2])]


def test_the_bound_is_its_formula():
    club, (x, y) = estimator(), pair()
    order = [3, 0, 5, 1, 4, 2]
    ys, total = rows_of(y), 0.0
    for i, row in enumerate(rows_of(x)):
        for k, (mu, lv) in enumerate(zip(*moments(club, row), strict=True)):
            total += ((ys[order[i]][k] - mu) ** 2 - (ys[i][k] - mu) ** 2) / math.exp(lv) / 2
    assert club.bound(x, y, torch.tensor(order)).item() == pytest.approx(total / 6, rel=1e-12)
    likelihood = 0.0
    for row, own in zip(rows_of(x), ys, strict=True):
        for k, (mu, lv) in enumerate(zip(*moments(club, row), strict=True)):
            likelihood += (own[k] - mu) ** 2 / math.exp(lv) + lv
    assert club.negative_log_likelihood(x, y).item() == pytest.approx(likelihood / 6, rel=1e-12)


def test_the_fit_is_adam_s():
    club, (x, y) = estimator(learning_rate=0.01), pair()
    other = estimator(learning_rate=0.01)
    networks = [other.mean, other.log_variance]
    weights = [tensor.requires_grad_() for network in networks for tensor in network.buffers()]
    adam = torch.optim.Adam(weights, lr=0.01)
    for _ in range(5):
        club.fit_step(x, y)
        adam.zero_grad()
        other.negative_log_likelihood(x, y).backward()
        adam.step()
    for one, reference in zip([*club.mean.buffers(), *club.log_variance.buffers()], weights, strict=True):
        torch.testing.assert_close(one, reference.detach())


def test_the_estimator_is_a_constant_of_the_loss_that_passes_gradients_on():
    club, (x, y) = estimator(), pair()
    x.requires_grad_()
    y.requires_grad_()
    club.fit_step(x, y)
    assert x.grad is None
    assert not list(club.parameters())
    assert not any(tensor.requires_grad for tensor in club.buffers())
    by_x, by_y = torch.autograd.grad(club.bound(x, y, torch.tensor([1, 2, 3, 4, 5, 0])), [x, y])
    assert by_x.abs().max() > 0
    assert by_y.abs().max() > 0


def test_the_state_is_the_whole_estimator():
    club, (x, y) = estimator(learning_rate=0.01), pair()
    club.fit_step(x, y)
    other = estimator(seed=3, learning_rate=0.01)
    other.load_state_dict({key: value.clone() for key, value in club.state_dict().items()})
    club.fit_step(x, y)
    other.fit_step(x, y)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in club.state_dict().items())
