"""Sums of log-sums of exponentials in tiles, and the contrasts made of them, against double loops in float64."""

import math

import naive
import pytest
import torch
from naive import rows_of
from toys import saved_by

from common import contrast
from common.contrast import pair_contrast, row_contrast, sum_of_log_sums


def randn(*shape, seed, **options):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("cosines", [True, False])
@pytest.mark.parametrize("entries", [1, 25, 10**6])
def test_sum_of_log_sums_and_its_gradients_equal_the_naive_ones_in_tiles_of_any_size(entries, cosines, monkeypatch):
    monkeypatch.setattr(contrast, "ENTRIES_NARROW", entries)
    anchors, candidates = randn(6, 4, seed=1, requires_grad=True), randn(9, 4, seed=2, requires_grad=True)
    weights, counts = torch.arange(1, 7), torch.arange(2, 11)
    expected = 0.0
    for weight, anchor in zip(weights.tolist(), rows_of(anchors), strict=True):
        terms = [
            n * math.exp(2.5 * naive.dot(anchor, row))
            for n, row in zip(counts.tolist(), rows_of(candidates), strict=True)
        ]
        expected += weight * math.log(sum(terms))
    found = sum_of_log_sums(anchors, candidates, 2.5, weights, counts, cosines)
    assert found.item() == pytest.approx(expected, rel=1e-13)
    assert torch.autograd.gradcheck(
        lambda a, c: sum_of_log_sums(a, c, 2.5, weights, counts, cosines), (anchors, candidates)
    )
    ones = sum_of_log_sums(anchors, candidates, 2.5, torch.ones(6), torch.ones(9), cosines)
    assert sum_of_log_sums(anchors, candidates, 2.5, cosines=cosines).item() == ones.item() != found.item()


def test_wide_rows_have_tiles_of_their_own_size(monkeypatch):
    anchors, candidates = randn(6, 40, seed=1), randn(9, 40, seed=2)
    whole = sum_of_log_sums(anchors, candidates, 0.1)
    monkeypatch.setattr(contrast, "ENTRIES", 20)
    assert sum_of_log_sums(anchors, candidates, 0.1).item() == pytest.approx(whole.item(), rel=1e-13)


def test_no_matrix_of_logits_is_kept():
    anchors, candidates = randn(50, 4, seed=1, requires_grad=True), randn(60, 4, seed=2, requires_grad=True)
    kept = saved_by(lambda: sum_of_log_sums(anchors, candidates, 1.0))
    assert 0 < max(tensor.numel() for tensor in kept) <= 60 * 4


def test_logits_of_any_size_and_temperatures_of_any_size_are_safe():
    assert sum_of_log_sums(1e4 * torch.eye(3), torch.eye(3), 1.0, cosines=False).item() == pytest.approx(3e4)
    for scale in (contrast.LARGEST, 1e5):
        for sign in (1, -1):
            found = sum_of_log_sums(torch.ones(1, 1), sign * torch.ones(1000, 1), scale)
            assert found.item() == pytest.approx(sign * scale + math.log(1000))


def test_a_second_derivative_is_refused_rather_than_wrong():
    anchors = randn(4, 3, seed=1, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(sum_of_log_sums(anchors, randn(4, 3, seed=2), 1.0), anchors, create_graph=True)


@pytest.mark.parametrize("normalize", [True, False])
def test_row_contrast_of_distinct_rows_with_counts_is_that_of_a_batch_with_repeated_rows(normalize):
    counts = torch.tensor([1, 3, 1, 2])
    first, second = randn(4, 3, seed=1), randn(4, 3, seed=2)
    repeated = torch.arange(4).repeat_interleave(counts)
    a, b = rows_of(first[repeated]), rows_of(second[repeated])
    if normalize:
        a, b = [naive.unit(row) for row in a], [naive.unit(row) for row in b]
    terms = [naive.cross_entropy([naive.dot(row, other) / 0.3 for other in b], i) for i, row in enumerate(a)]
    expected = pytest.approx(sum(terms) / 7, rel=1e-12)
    assert row_contrast(first, second, 0.3, counts, normalize).item() == expected
    assert row_contrast(first[repeated], second[repeated], 0.3, normalize=normalize).item() == expected
    assert row_contrast(first, second, 0.3, normalize=normalize).item() != expected


def test_pair_contrast_is_that_of_the_batch_of_pairs():
    first, second = randn(3, 4, seed=1), randn(4, 4, seed=2)
    pairs = torch.tensor([[0, 2, 0, 1, 2, 0], [3, 1, 3, 0, 2, 1]])
    a, b = first[pairs[0]], second[pairs[1]]
    expected = naive.one_way_info_nce(rows_of(a), rows_of(b), 0.3)
    assert pair_contrast(first, second, pairs, 0.3).item() == pytest.approx(expected, rel=1e-12)
    assert row_contrast(a, b, 0.3).item() == pytest.approx(expected, rel=1e-12)
