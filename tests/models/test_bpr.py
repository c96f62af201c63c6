"""BPR's loss and scores from their formulas."""

import naive
import pytest
import torch
from naive import dot, rows_of
from toys import all_scores, build, on_double, one_batch, toy_dataset


@pytest.mark.parametrize("size", [12, 1])
def test_loss_and_scores_are_those_of_the_specification(size):
    data = toy_dataset()
    model = on_double(build("BPR", data, reg_weight=0.3))
    p, q = rows_of(model.user_embedding), rows_of(model.item_embedding)
    batch = one_batch(data, size)
    users, pos, neg = ([table[i] for i in ids] for table, ids in zip((p, q, q), batch.tolist(), strict=True))
    terms = model.calculate_loss(batch)
    expected = {
        "bpr": naive.bpr([*map(dot, users, pos)], [*map(dot, users, neg)]),
        "reg": 0.3 * naive.frobenius_over_batch(users, pos, neg),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)
    scores = all_scores(model)
    torch.testing.assert_close(scores, torch.tensor([[dot(u, i) for i in q] for u in p], dtype=torch.float64))
