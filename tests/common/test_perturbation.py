"""Sign-preserving noise: its length, its signs, its gradient."""

import torch

from common.perturbation import perturbed


def test_noise_has_its_length_and_the_signs_of_the_row():
    torch.manual_seed(0)
    x = torch.randn(50, 8, dtype=torch.float64)
    x[3] = 0
    for length in (0.1, 0.5):
        noise = perturbed(x, length) - x
        others = torch.arange(50) != 3
        torch.testing.assert_close(noise.norm(dim=1)[others], torch.full((49,), length, dtype=torch.float64))
        assert (noise * x >= 0).all()
        assert not noise[3].any()


def test_each_row_has_noise_of_its_own_and_each_call_too():
    x = torch.ones(4, 6)
    torch.manual_seed(1)
    first = perturbed(x)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(perturbed(x), first)
    torch.manual_seed(1)
    assert torch.equal(perturbed(x), first)


def test_the_gradient_passes_unchanged():
    x = torch.randn(3, 4).requires_grad_()
    weights = torch.randn(3, 4)
    (gradient,) = torch.autograd.grad((perturbed(x) * weights).sum(), x)
    assert torch.equal(gradient, weights)
