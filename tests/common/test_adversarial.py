"""The critic's loss against one that sees every row and mixture by itself."""

import torch
from torch import nn

from common.adversarial import EPSILON, RowCritic

WIDTH, B, K = 24, 7, 2
DROPOUT, SCALE = (0.3, 0.5), 100.0


def make():
    torch.manual_seed(0)
    critic = RowCritic(WIDTH, DROPOUT, SCALE).double()
    with torch.no_grad():
        for part in (*critic.gains, *critic.shifts, critic.last.bias):
            part.add_(torch.randn_like(part) * 0.2)
    return critic


def normalized(x, gain, shift):
    """By PyTorch's own batch normalisation."""
    return nn.functional.batch_norm(x, None, None, gain, shift, training=True, eps=EPSILON)


def score(critic, rows, masks):
    """D of rows with given dropout masks, layer by layer."""
    hidden = normalized(rows @ critic.first.weight.T, critic.gains[0], critic.shifts[0]) * masks[0]
    hidden = normalized(hidden @ critic.second.weight.T, critic.gains[1], critic.shifts[1]) * masks[1]
    return SCALE * torch.sigmoid(hidden @ critic.last.weight.T + critic.last.bias).squeeze(1)


def draw_masks(n):
    sizes = [WIDTH // 4, WIDTH // 8]
    return [(torch.rand(n, size) >= share).double() / (1 - share) for size, share in zip(sizes, DROPOUT, strict=True)]


def loss_by_formula(critic, real, fake, penalty):
    """Real rows repeated, mixtures in full width, the gradient with respect to these."""
    real = real.repeat(K, 1)
    loss = score(critic, fake, draw_masks(len(fake))).mean() - score(critic, real, draw_masks(len(real))).mean()
    share = torch.rand(len(fake), 1).double()
    x = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(score(critic, x, draw_masks(len(x))).sum(), x, create_graph=True)
    return loss + penalty * (gradient.norm(dim=1) - 1).square().mean()


def test_the_loss_and_its_gradients_are_those_of_the_definition():
    critic = make()
    real, fake = torch.rand(B, WIDTH).double(), torch.randn(K * B, WIDTH).double()
    results = []
    for function in (critic.loss, lambda *given: loss_by_formula(critic, *given)):
        torch.manual_seed(3)
        loss = function(real, fake, 0.3)
        results.append([loss.detach(), *torch.autograd.grad(loss, list(critic.parameters()))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_scores_lie_between_0_and_the_scale():
    scores = make()(torch.randn(50, WIDTH).double())
    assert scores.shape == (50,)
    assert 0 < scores.min() < scores.max() < SCALE


def test_one_row_alone_is_judged():
    assert torch.isfinite(make()(torch.randn(1, WIDTH).double())).all()
