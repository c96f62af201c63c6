"""Loss modules under MMRec's names."""

from __future__ import annotations

import naive
import pytest
import torch
from naive import rows_of

from mmrec.stand_ins.loss import BPRLoss, EmbLoss, L2Loss


def tables():
    torch.manual_seed(0)
    return [torch.randn(5, 3, dtype=torch.float64) for _ in range(3)]


def test_bpr_is_the_mean_over_pairs():
    pos, neg = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    assert BPRLoss()(pos, neg).item() == pytest.approx(naive.bpr(pos.tolist(), neg.tolist()), rel=1e-12)
    large = BPRLoss(gamma=1.0)(pos, pos + 100).item()
    assert large == pytest.approx(0, abs=1e-12), "gamma is added inside the logarithm"


@pytest.mark.parametrize("norm", [1, 2])
def test_embedding_loss_is_the_sum_of_norms_over_the_rows_of_the_last(norm):
    first, second, third = tables()
    last = third[:2]
    total = sum(
        sum(abs(value) ** norm for row in rows_of(table) for value in row) ** (1 / norm)
        for table in (first, second, last)
    )
    assert EmbLoss(norm)(first, second, last).item() == pytest.approx(total / 2, rel=1e-12)
    assert EmbLoss()(first).item() == pytest.approx(first.square().sum().sqrt().item() / 5, rel=1e-12)


def test_l2_loss_is_half_the_sum_of_squares():
    expected = sum(value**2 for table in tables() for row in rows_of(table) for value in row) / 2
    assert L2Loss()(*tables()).item() == pytest.approx(expected, rel=1e-12)
