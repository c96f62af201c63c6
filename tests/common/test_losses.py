"""Every loss against naive float64 loops, and the properties that its users rely on."""

import math

import naive
import pytest
import torch
import torch.nn.functional as F
from naive import rows_of
from toys import saved_by

from common import losses
from common.losses import (
    bpr_loss,
    contrastive_cross_entropy,
    frobenius_over_batch,
    half_squared_l2,
    half_squared_l2_over_batch,
    info_nce,
    linear_mean_square,
    log_sigmoid_bpr_loss,
    mean_cosine,
    total_correlation,
)


def stream(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float64, **options):
    return torch.randn(*shape, dtype=dtype, generator=stream(seed), **options)


def scalar(value, **options):
    return torch.tensor(value, dtype=torch.float64, **options)


# Ranking loss and penalties


def test_bpr_loss_equals_the_naive_mean():
    pos, neg = 3 * randn(7, seed=1), 3 * randn(7, seed=2)
    assert bpr_loss(pos, neg).item() == pytest.approx(naive.bpr(pos.tolist(), neg.tolist()), rel=1e-14)


def test_bpr_loss_and_its_gradient_stay_finite_at_any_score():
    pos = torch.tensor([-1e30, -1e4, -30.0, 0.0, 30.0, 1e30], requires_grad=True)
    loss = bpr_loss(pos, torch.zeros(6))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, pos)[0]).all()
    assert bpr_loss(pos[:1], torch.zeros(1)).item() == pytest.approx(-math.log(1e-10))


def test_frobenius_over_batch_equals_the_naive_sum_of_unsquared_norms():
    matrices = [randn(5, 3, seed=1), randn(5, 6, seed=2), randn(5, 3, seed=3)]
    expected = naive.frobenius_over_batch(*map(rows_of, matrices))
    assert frobenius_over_batch(*matrices).item() == pytest.approx(expected, rel=1e-14)


def test_frobenius_gradient_is_finite_where_everything_is_zero():
    matrix = torch.zeros(4, 3, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(frobenius_over_batch(matrix), matrix)[0]).all()


def test_half_squared_l2_over_batch_equals_the_naive_sum_of_squares():
    matrices = [randn(5, 3, seed=1), randn(5, 6, seed=2)]
    expected = naive.half_squared_l2_over_batch(*map(rows_of, matrices))
    assert half_squared_l2_over_batch(*matrices).item() == pytest.approx(expected, rel=1e-14)


# Cross-entropy with given positives


def plain_cross_entropy(anchors, others, positives, scale):
    """The definition, entry by entry, differentiable."""
    total = scalar(0.0)
    for i in range(len(anchors)):
        row = [scale * (positives[i] if j == i else (anchors[i] * others[j]).sum()) for j in range(len(anchors))]
        total = total + torch.logsumexp(torch.stack(row), dim=0) - row[i]
    return total / len(anchors)


@pytest.mark.parametrize("block", [3, 5, 10, 1024], ids=lambda block: f"block {block}")
def test_contrastive_cross_entropy_and_its_gradients_equal_the_naive_ones(block, monkeypatch):
    monkeypatch.setattr(losses._ContrastiveCrossEntropy, "BLOCK", block)
    arguments = [randn(10, 4, seed=1), randn(10, 4, seed=2), randn(10, seed=3), scalar(2.5)]
    found, plain = ([argument.clone().requires_grad_() for argument in arguments] for _ in range(2))
    loss, expected = contrastive_cross_entropy(*found), plain_cross_entropy(*plain)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    gradients = torch.autograd.grad(3 * loss, found), torch.autograd.grad(3 * expected, plain)
    for one, other in zip(*gradients, strict=True):  # of anchors, others, positives, scale
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)
        assert other.abs().max() > 1e-3, "there is something to compare"


def test_contrastive_cross_entropy_refuses_a_second_derivative_rather_than_give_a_wrong_one():
    anchors = randn(4, 3, requires_grad=True)
    loss = contrastive_cross_entropy(anchors, randn(4, 3, seed=1), randn(4, seed=2), scalar(1.0))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, anchors, create_graph=True)


@pytest.mark.parametrize("loss", ["pair", "triple"])
def test_no_matrix_of_batch_by_batch_is_kept_for_the_backward_pass(loss):
    size, width = 300, 8
    views = [randn(size, width, seed=m, requires_grad=True) for m in range(2 if loss == "pair" else 3)]
    scale = scalar(5.0, requires_grad=True)
    kept = [tensor.numel() for tensor in saved_by(lambda: total_correlation(views, scale))]
    assert max(kept) == size * width
    assert sum(kept) < 40 * size * width < size * size * 2


# Symmetric InfoNCE


# In one matrix for both directions where the batch is a block, in blocks of rows for each direction where it is not.
both_ways = pytest.mark.parametrize("block", [3, 1024], ids=lambda block: f"block {block}")


@both_ways
def test_info_nce_equals_the_naive_double_loop(block, monkeypatch):
    monkeypatch.setattr(losses._ContrastiveCrossEntropy, "BLOCK", block)
    first, second = randn(7, 4, seed=1), 3 * randn(7, 4, seed=2)
    found = info_nce(first, second, scalar(4.0)).item()
    assert found == pytest.approx(naive.info_nce(rows_of(first), rows_of(second), 4.0), rel=1e-13)
    assert found == pytest.approx(info_nce(second, first, scalar(4.0)).item(), rel=1e-13), "it is symmetric"


@both_ways
def test_gradients_of_info_nce_are_those_of_the_definition(block, monkeypatch):
    monkeypatch.setattr(losses._ContrastiveCrossEntropy, "BLOCK", block)
    arguments = [randn(7, 4, seed=1), 3 * randn(7, 4, seed=2), scalar(40.0)]
    found, plain = ([argument.clone().requires_grad_() for argument in arguments] for _ in range(2))
    a, b = (F.normalize(view, dim=1) for view in plain[:2])
    logits, places = plain[2] * a @ b.T, torch.arange(7)
    expected = (F.cross_entropy(logits, places) + F.cross_entropy(logits.T, places)) / 2
    loss = info_nce(*found)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    gradients = torch.autograd.grad(3 * loss, found), torch.autograd.grad(3 * expected, plain)
    for one, other in zip(*gradients, strict=True):  # of both views and the scale
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)
        assert other.abs().max() > 1e-3, "there is something to compare"


@both_ways
def test_info_nce_refuses_a_second_derivative_rather_than_give_a_wrong_one(block, monkeypatch):
    monkeypatch.setattr(losses._ContrastiveCrossEntropy, "BLOCK", block)
    first = randn(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(info_nce(first, randn(4, 3, seed=1), scalar(1.0)), first, create_graph=True)


# Total correlation


@pytest.mark.parametrize("n_views", [3, 4, 5])
def test_total_correlation_equals_the_naive_triple_loop(n_views):
    views = [(m + 1) * randn(7, 5, seed=m) for m in range(n_views)]
    rows = [rows_of(view) for view in views]
    found = total_correlation(views, scalar(3.0), stream(9)).item()
    assert found == pytest.approx(naive.total_correlation(rows, 3.0, stream(9)), rel=1e-13)
    assert found != pytest.approx(naive.total_correlation(rows, 3.0, stream(8)), rel=1e-4), "permutations matter"


def test_total_correlation_of_two_views_is_symmetric_info_nce():
    views = [randn(7, 4, seed=1), randn(7, 4, seed=2)]
    found = total_correlation(views, scalar(4.0)).item()
    assert found == pytest.approx(naive.info_nce(rows_of(views[0]), rows_of(views[1]), 4.0), rel=1e-13)


def test_total_correlation_needs_two_views():
    with pytest.raises(ValueError, match="at least two views, got 1"):
        total_correlation([randn(3, 2)], scalar(1.0))


@pytest.mark.parametrize("n_views", [2, 3, 4])
def test_total_correlation_has_the_gradient_of_its_formula(n_views):
    views = [randn(6, 4, seed=m, requires_grad=True) for m in range(n_views)]
    scale = scalar(2.0, requires_grad=True)

    def loss(scale, *views):
        return total_correlation(list(views), scale, stream(0))

    assert torch.autograd.gradcheck(loss, (scale, *views))


@pytest.mark.parametrize("n_views", [2, 3])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0, 1e4])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_total_correlation_is_finite_at_extreme_scales(n_views, scale, size):
    views = [(size * randn(20, 8, seed=m, dtype=torch.float32)).requires_grad_() for m in range(n_views)]
    with torch.no_grad():
        views[0][3] = 0
    temperature = torch.tensor(scale, requires_grad=True)
    loss = total_correlation(views, temperature, stream(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss >= 0
    for tensor in (*views, temperature):
        assert torch.isfinite(tensor.grad).all()


def test_a_batch_of_one_node_has_nothing_to_tell_apart():
    views = [randn(1, 8, seed=m, requires_grad=True) for m in range(3)]
    loss = total_correlation(views, scalar(5.0))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-14)


# Losses of the baselines


def test_log_sigmoid_bpr_loss_equals_the_naive_mean_and_is_finite_at_any_score():
    pos, neg = 3 * randn(7, seed=1), 3 * randn(7, seed=2)
    differences = [p - n for p, n in zip(pos.tolist(), neg.tolist(), strict=True)]
    expected = sum(-math.log(naive.sigmoid(x)) for x in differences) / 7
    assert log_sigmoid_bpr_loss(pos, neg).item() == pytest.approx(expected, rel=1e-13)
    assert log_sigmoid_bpr_loss(torch.tensor([-1e4]), torch.zeros(1)).item() == 1e4


def test_half_squared_l2_equals_the_naive_sum():
    matrices = [randn(5, 3, seed=1), randn(2, 6, seed=2)]
    expected = sum(naive.sum_of_squares(rows_of(matrix)) for matrix in matrices) / 2
    assert half_squared_l2(*matrices).item() == pytest.approx(expected, rel=1e-14)


def test_mean_cosine_equals_the_naive_mean_and_is_zero_for_rows_of_zeros():
    first, second = randn(5, 3, seed=1), randn(5, 3, seed=2)
    first[3] = 0
    pairs = zip(rows_of(first), rows_of(second), strict=True)
    expected = sum(naive.dot(naive.unit(a), naive.unit(b)) for a, b in pairs) / 5
    assert mean_cosine(first, second).item() == pytest.approx(expected, rel=1e-13)


def test_linear_mean_square_is_the_mean_over_entries_and_so_are_its_gradients():
    parts = randn(5, 3, seed=1), randn(4, 3, seed=2), randn(4, seed=3), randn(5, 4, seed=4)
    inputs, weight, bias, targets = (
        [*map(list, rows_of(part))] if part.dim() == 2 else part.tolist() for part in parts
    )
    errors = [
        naive.dot(row, weight[k]) + bias[k] - targets[i][k] for i, row in enumerate(inputs) for k in range(len(weight))
    ]
    assert linear_mean_square(*parts).item() == pytest.approx(sum(x * x for x in errors) / 20, rel=1e-13)
    assert torch.autograd.gradcheck(linear_mean_square, [part.requires_grad_() for part in parts])
    assert torch.autograd.gradcheck(
        lambda w, b: linear_mean_square(parts[0].detach(), w, b, parts[3].detach()), parts[1:3]
    )
    exact = parts[0].detach() @ parts[1].detach().T + parts[2].detach()
    gradients = torch.autograd.grad(linear_mean_square(*parts[:3], exact.requires_grad_()), [*parts[:3], exact])
    assert not any(gradient.abs().max() > 1e-15 for gradient in gradients), "no error, no gradient"


def test_linear_mean_square_keeps_one_matrix_of_errors():
    inputs, weight = randn(50, 3, requires_grad=True), randn(40, 3, requires_grad=True)
    bias, targets = randn(40, requires_grad=True), randn(50, 40, requires_grad=True)
    kept = saved_by(lambda: linear_mean_square(inputs, weight, bias, targets))
    assert sum(tensor.numel() == 50 * 40 for tensor in kept) == 1
