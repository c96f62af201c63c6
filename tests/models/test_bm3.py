"""BM3's loss and scores from their formulas."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of
from toys import BOTH, N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

WIDTH = 8


def affine(layer, row):
    return [dot(w, row) + b for w, b in zip(rows_of(layer.weight), layer.bias.tolist(), strict=True)]


def cosine(first, second):
    return dot(first, second) / max(math.sqrt(dot(first, first) * dot(second, second)), 1e-8)


def outputs(model, data, n_layers):
    """Users and items before the predictor, by loops; the residual comes after the mean."""
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    ego_users, ego_items = rows_of(model.user_embedding), rows_of(model.item_embedding)
    nodes = naive.mean_of_layers(a.astype("float32").astype("float64"), ego_users + ego_items, n_layers)
    items = [[x + e for x, e in zip(*pair, strict=True)] for pair in zip(nodes[N_USERS:], ego_items, strict=True)]
    return nodes[:N_USERS], items


def targets(ids, rate, *tables):
    """Each table's rows {id: row} with entries dropped out: one mask to a distinct id, drawn table by table."""
    found = []
    for table, distinct in zip(tables, ids, strict=True):
        kept = (torch.rand(len(distinct), WIDTH) >= rate).tolist()
        found.append(
            {i: [x * k for x, k in zip(table[i], row, strict=True)] for i, row in zip(distinct, kept, strict=True)}
        )
    return found


@pytest.mark.parametrize("train_features", [False, True])
@pytest.mark.parametrize("modalities", [BOTH, ["acoustic"], list(WIDTHS)], ids="+".join)
@pytest.mark.parametrize(("n_layers", "rate"), [(0, 0.5), (1, 0.5), (2, 0.3), (2, 0.0)])
def test_loss_and_scores_are_those_of_the_specification(modalities, n_layers, rate, train_features):
    data = toy_dataset(modalities)
    model = build(
        "BM3",
        data,
        n_layers=n_layers,
        dropout=rate,
        reg_weight=0.3,
        cl_weight=1.7,
        train_features=train_features,
    )
    model = on_double(model).train()
    users, items = outputs(model, data, n_layers)
    content = {
        m: [affine(model.projections[m], row) for row in np.asarray(data.features[m], dtype=float).tolist()]
        for m in data.features
    }
    batch = one_batch(data, 40)[:2]
    user_ids, item_ids = batch.tolist()
    distinct = [sorted(set(user_ids))] + [sorted(set(item_ids))] * (1 + len(content))
    assert len(distinct[1]) < len(item_ids), "some items stand twice in the batch"

    torch.manual_seed(3)
    u_target, i_target, *c_targets = targets(distinct, rate, users, items, *content.values())
    p_users, p_items = ([affine(model.predictor, row) for row in table] for table in (users, items))
    size = len(user_ids)
    ui = 1 - sum(cosine(p_users[u], i_target[i]) for u, i in zip(user_ids, item_ids, strict=True)) / size
    iu = 1 - sum(cosine(p_items[i], u_target[u]) for u, i in zip(user_ids, item_ids, strict=True)) / size
    inter = intra = 0.0
    for table, c_target in zip(content.values(), c_targets, strict=True):
        predicted = [affine(model.predictor, row) for row in table]
        inter += 1 - sum(cosine(predicted[i], i_target[i]) for i in item_ids) / size
        intra += 1 - sum(cosine(predicted[i], c_target[i]) for i in item_ids) / size
    norms = math.sqrt(naive.sum_of_squares(users)) + math.sqrt(naive.sum_of_squares(items))
    expected = {
        "interaction": ui + iu,
        "inter_modality": 1.7 * inter,
        "intra_modality": 1.7 * intra,
        "reg": 0.3 * norms / N_ITEMS,
    }

    torch.manual_seed(3)
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-11)
    scores = torch.tensor([[dot(u, i) for i in p_items] for u in p_users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_gradients_are_those_of_projecting_and_predicting_all_nodes():
    data = toy_dataset()
    model = on_double(build("BM3", data, dropout=0.4)).train()
    batch = one_batch(data, 40)[:2]
    torch.manual_seed(1)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])

    torch.manual_seed(1)

    def target(x, ids):
        kept = torch.zeros(x.shape, dtype=torch.bool)
        kept[ids.unique()] = torch.rand(len(ids.unique()), WIDTH) >= 0.4
        return (x * kept).detach()[ids]

    def away(x, y):
        return 1 - torch.cosine_similarity(x, y).mean()

    users, items = batch
    u, i = model.propagate()
    u_target, i_target = target(u, users), target(i, items)
    predict = model.predictor
    loss = away(predict(u)[users], i_target) + away(predict(i)[items], u_target)
    for m in BOTH:
        content = model.projections[m](model.features(m))
        loss = loss + 2 * (
            away(predict(content)[items], i_target) + away(predict(content)[items], target(content, items))
        )
    loss = loss + 0.1 * (u.norm() + i.norm()) / N_ITEMS
    for one, other in zip(found, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        torch.testing.assert_close(one, other)


def test_targets_lose_the_share_asked_for_and_pass_no_gradient():
    model = build("BM3", toy_dataset(), dropout=0.3)
    x = torch.ones(500, 400, requires_grad=True)
    torch.manual_seed(0)
    target = model.perturb(x)
    assert not target.requires_grad
    assert set(target.unique().tolist()) == {0, 1}, "no rescaling"
    assert target.mean().item() == pytest.approx(0.7, abs=5 * (0.3 * 0.7 / 200_000) ** 0.5)


def test_evaluation_has_no_dropout_and_predicts_both_sides():
    model = build("BM3", toy_dataset(), dropout=0.9)
    users, items = model.propagate()
    for found, x in zip(model.eval()(), (users, items), strict=True):
        torch.testing.assert_close(found, x @ model.predictor.weight.T + model.predictor.bias)
