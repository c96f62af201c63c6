"""VBPR's loss and scores from their formulas."""

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of
from toys import all_scores, build, on_double, one_batch, total, toy_dataset, train_loader

# Text comes first, then the others in the data set's order.
ORDERS = {
    ("visual",): ["visual"],
    ("visual", "textual"): ["textual", "visual"],
    ("visual", "acoustic", "textual"): ["textual", "visual", "acoustic"],
}


@pytest.mark.parametrize(("modalities", "order"), ORDERS.items(), ids=str)
def test_loss_and_scores_are_those_of_the_specification(modalities, order):
    data = toy_dataset(modalities)
    model = on_double(build("VBPR", data, reg_weight=0.3))
    with torch.no_grad():
        model.projection.bias.normal_(generator=torch.Generator().manual_seed(0))
    p, q = rows_of(model.user_embedding), rows_of(model.item_embedding)
    weight, bias = rows_of(model.projection.weight), model.projection.bias.tolist()
    raw = np.concatenate([data.features[name] for name in order], axis=1).astype(np.float64).tolist()
    content = [[dot(w, x) + b for w, b in zip(weight, bias, strict=True)] for x in raw]
    items = [own + projected for own, projected in zip(q, content, strict=True)]
    batch = one_batch(data, 12)
    users, pos, neg = ([table[i] for i in ids] for table, ids in zip((p, items, items), batch.tolist(), strict=True))
    expected = {
        "bpr": naive.bpr([*map(dot, users, pos)], [*map(dot, users, neg)]),
        "reg": 0.3 * naive.frobenius_over_batch(users, pos, neg),
    }
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)
    scores = torch.tensor([[dot(u, i) for i in items] for u in p], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_projecting_the_batch_s_items_alone_gives_the_gradients_of_projecting_all():
    data = toy_dataset()
    model = on_double(build("VBPR", data, reg_weight=0.3))
    users, pos, neg = batch = one_batch(data)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    items = model.item_vectors()
    u, i, j = model.user_embedding[users], items[pos], items[neg]
    loss = -torch.log(1e-10 + torch.sigmoid((u * (i - j)).sum(1))).mean()
    loss = loss + 0.3 * (u.norm() + i.norm() + j.norm()) / len(users)
    for one, other in zip(found, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        torch.testing.assert_close(one, other)


def test_the_bias_does_not_change_a_ranking():
    data = toy_dataset()
    model = on_double(build("VBPR", data))
    before = all_scores(model)
    with torch.no_grad():
        model.projection.bias.add_(1)
    shift = all_scores(model) - before
    assert shift.abs().min() > 1e-3
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))


def test_the_bias_is_trained_by_the_penalty_alone():
    data = toy_dataset()
    for reg_weight in (0.0, 0.3):
        model = on_double(build("VBPR", data, reg_weight=reg_weight))
        gradient = torch.zeros(8, dtype=torch.float64)
        for batch in train_loader(data).epoch():
            gradient += torch.autograd.grad(total(model.calculate_loss(batch)), model.projection.bias)[0]
        assert (gradient.abs().max() > 1e-4) == (reg_weight > 0)
        assert (gradient.abs().max() < 1e-12) == (reg_weight == 0)
