"""LightGCN's loss and scores from their formulas, on a dense graph."""

import naive
import pytest
import torch
from naive import dot, rows_of
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_loss_and_scores_are_those_of_the_specification(n_layers):
    data = toy_dataset()
    model = on_double(build("LightGCN", data, reg_weight=0.3, n_ui_layers=n_layers))
    # The source keeps the normalised graph in float32, and so must what it is compared with.
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    ego_users, ego_items = rows_of(model.user_embedding), rows_of(model.item_embedding)
    nodes = naive.mean_of_layers(a.astype("float32").astype("float64"), ego_users + ego_items, n_layers)
    all_users, all_items = nodes[:N_USERS], nodes[N_USERS:]
    batch = one_batch(data, 12)
    users, pos, neg = batch.tolist()
    expected = {
        "bpr": naive.bpr(
            [dot(all_users[u], all_items[i]) for u, i in zip(users, pos, strict=True)],
            [dot(all_users[u], all_items[j]) for u, j in zip(users, neg, strict=True)],
        ),
        "reg": 0.3
        * naive.frobenius_over_batch(
            [ego_users[u] for u in users], [ego_items[i] for i in pos], [ego_items[j] for j in neg]
        ),
    }
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)
    scores = torch.tensor([[dot(u, i) for i in all_items] for u in all_users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)
