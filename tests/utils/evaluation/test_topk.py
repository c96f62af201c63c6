"""The k largest of each row against a full sort, ties included."""

import math

import numpy as np
import pytest
import torch

from utils.evaluation import topk
from utils.evaluation.topk import ranked_topk


@pytest.mark.parametrize("levels", [1, 2, 3, 50])
@pytest.mark.parametrize("k", [1, 2, 10, 29, 30])
def test_equal_scores_are_ranked_by_the_smaller_item(k, levels):
    scores = torch.from_numpy(np.random.default_rng(k).integers(0, levels, (200, 30)).astype(np.float32))
    scores[::5, :28] = -torch.inf
    values, columns = ranked_topk(scores, k)
    for row, best, items in zip(scores.tolist(), values.tolist(), columns.tolist(), strict=True):
        expected = [item for _, item in sorted((-score, item) for item, score in enumerate(row))][:k]
        finite = [item for item in expected if row[item] > -math.inf]
        assert items[: len(finite)] == finite, "what is not to be ranked has no order"
        assert best == [row[item] for item in expected]


def test_ranking_leaves_the_scores_as_they_are():
    scores = torch.tensor([[1.0, 1, 1], [0, 2, 1]])
    before = scores.clone()
    ranked_topk(scores, 2)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("wide", [1, topk.WIDE])
@pytest.mark.parametrize("n_values", [3, 50, 10**6])
def test_ranking_of_wide_rows_equals_a_stable_sort(n_values, wide, monkeypatch):
    monkeypatch.setattr(topk, "WIDE", wide)
    random = torch.Generator().manual_seed(n_values)
    scores = torch.randint(-n_values, n_values, (40, 1003), generator=random) * -0.5
    scores[:, ::2] += 0.0  # zeros of both signs
    scores[:, ::7] = -torch.inf
    best, columns = ranked_topk(scores, 20)
    values, order = scores.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(best, values[:, :20], rtol=0, atol=0)
    torch.testing.assert_close(columns, order[:, :20], rtol=0, atol=0)


@pytest.mark.parametrize("wide", [1, topk.WIDE])
def test_nan_is_ranked_first_wherever_it_stands(wide, monkeypatch):
    monkeypatch.setattr(topk, "WIDE", wide)
    for column in (0, 500, 1002):
        scores = torch.rand(3, 1003)
        scores[1, column] = torch.nan
        assert ranked_topk(scores, 20)[0][:, 0].isnan().tolist() == [False, True, False]
