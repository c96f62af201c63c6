"""The critic's loss against one that sees every row and mixture by itself."""

import pytest
import torch
from torch import nn

from common.adversarial import EPSILON, MaskedProduct, RowCritic, lengths_of_products
from common.sparse import EdgePattern

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
    hidden = normalized(rows @ critic.first, critic.gains[0], critic.shifts[0]) * masks[0]
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


def product_of(masked):
    """Left, right, and the product in which the pairs `masked` are 0."""
    left, right = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (B, WIDTH))
    rows, columns = torch.tensor(masked).T
    return left, right, MaskedProduct(left, right, EdgePattern(rows, columns, (B, WIDTH)))


def test_a_masked_product_times_a_matrix_is_that_of_its_rows():
    torch.manual_seed(1)
    left, right, product = product_of([(0, 3), (0, 9), (2, 1), *((4, i) for i in range(WIDTH - 1))])
    weight = torch.randn(WIDTH, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(B, WIDTH, dtype=torch.float64)
    mask[product.masked.rows, product.masked.columns] = 0
    rows = nn.functional.normalize((left @ right.T) * mask, dim=1)
    torch.testing.assert_close(product.rows(), rows)
    found, expected = product.times(weight), rows @ weight
    torch.testing.assert_close(found, expected)
    inputs = (left, right, weight)
    pairs = zip(*(torch.autograd.grad(x.sin().sum(), inputs) for x in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_a_row_of_zeros_stays_one():
    left, _, product = product_of([(0, 3)])
    with torch.no_grad():
        left[2] = 0
    times = product.times(torch.ones(WIDTH, 2, dtype=torch.float64))
    assert not times[2].any()
    assert not product.rows()[2].any()
    assert torch.isfinite(torch.autograd.grad(times.sum(), left)[0]).all()


@pytest.mark.parametrize("n", [3, 20])  # fewer and more rows than columns
def test_lengths_of_products_and_their_gradients(n):
    torch.manual_seed(2)
    x, weight = (torch.randn(m, 13, dtype=torch.float64, requires_grad=True) for m in (n, 31))
    with torch.no_grad():
        x[1] = 0
    found, expected = lengths_of_products(x, weight), (x @ weight.T).norm(dim=1)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(y.square().sum() + y.sum(), (x, weight)) for y in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
