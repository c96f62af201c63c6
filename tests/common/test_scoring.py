"""Scores of all items: those of plain products, and the same to the last bit whatever the batch."""

import pytest
import torch

from common.scoring import SCORE_ROWS, score_all_items

ROWS = SCORE_ROWS["cpu"]


@pytest.mark.parametrize(("n_items", "width"), [(700, 64), (333, 13), (5, 3)])
def test_the_score_of_a_user_does_not_depend_on_the_batch_to_the_last_bit(n_items, width):
    torch.manual_seed(0)
    everyone, items = torch.randn(2 * ROWS + 76, width), torch.randn(n_items, width)
    scores = score_all_items(everyone, items)
    torch.testing.assert_close(scores.double(), everyone.double() @ items.double().T, rtol=0, atol=1e-4)
    for size in (1, 2, 17, ROWS - 1, ROWS, ROWS + 1, len(everyone)):
        order = torch.randperm(len(everyone))[:size]
        assert torch.equal(score_all_items(everyone[order], items), scores[order]), size


def test_no_users_have_no_scores():
    assert score_all_items(torch.randn(0, 4), torch.randn(9, 4)).shape == (0, 9)


def test_scores_are_without_a_gradient_for_few_users_and_for_many():
    items = torch.randn(5, 4, requires_grad=True)
    for size in (3, ROWS + 3):
        assert not score_all_items(torch.randn(size, 4, requires_grad=True), items).requires_grad
