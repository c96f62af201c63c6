"""LATTICE's loss, scores and item graph from their formulas, on dense matrices."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, unit
from toys import (
    N_ITEMS,
    N_USERS,
    SMALL,
    all_scores,
    build,
    make_config,
    on_double,
    one_batch,
    total,
    toy_dataset,
    train_loader,
)

from common.trainer import make_optimizer
from utils.errors import UserError

K = SMALL["LATTICE"]["knn_k"]


def nearest(features):
    """S [I, I]: cosines to the K nearest rows, the row itself first; a row of zeros has itself alone."""
    rows = [unit([float(x) for x in row]) for row in features]
    s = np.zeros((len(rows), len(rows)))
    for i, own in enumerate(rows):
        s[i, i] = 1
        if any(own):
            others = [j for j, row in enumerate(rows) if j != i and any(row)]
            for j in sorted(others, key=lambda j: -dot(own, rows[j]))[: K - 1]:
                s[i, j] = dot(own, rows[j])
    return s


def raw_graph(model, data, name):
    """N(S) of the raw features as the source has it: made and kept in float32, so compared as such and then taken."""
    mine = model.raw_modality == model.modalities.index(name)
    found = np.zeros((N_ITEMS, N_ITEMS))
    found[tuple(model.raw_edges[:, mine].numpy())] = model.raw_values[mine].numpy()
    np.testing.assert_allclose(found, naive.dense_normalized(nearest(data.features[name])), rtol=1e-5)
    return found


def naive_item_graph(model, data, share):
    """H [I, I] from the raw features of the data set and the current features and projections."""
    weights = [1.0]
    if len(data.features) > 1:
        weights = np.exp(model.modality_weights.detach().numpy())
        weights = (weights / weights.sum()).tolist()
    learned, original = np.zeros((N_ITEMS, N_ITEMS)), np.zeros((N_ITEMS, N_ITEMS))
    for weight, name in zip(weights, data.features, strict=True):
        projected = [naive.affine(row, model.projections[name]) for row in rows_of(model.features(name))]
        learned += weight * nearest(projected)
        original += weight * raw_graph(model, data, name)
    return (1 - share) * naive.dense_normalized(learned) + share * original


def user_item_graph(data):
    """D^-1(A + I), D with the self loop; float32 in the source."""
    a = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS) + np.eye(N_USERS + N_ITEMS)
    return (a / a.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)


def leaky(x, slope=0.01):
    return x if x > 0 else slope * x


def ngcf_layer(model, number, near, own):
    first, second = model.sum_layers[number], model.product_layers[number]
    return [
        [
            leaky(a) + leaky(b)
            for a, b in zip(naive.affine(n, first), naive.affine(naive.times(n, o), second), strict=True)
        ]
        for n, o in zip(near, own, strict=True)
    ]


def naive_embeddings(model, data, backbone, h, n_layers=2, n_mm_layers=1):
    users, items = rows_of(model.user_embedding), rows_of(model.item_embedding)
    a = user_item_graph(data)
    nodes = users + items
    if backbone == "lightgcn":
        nodes = naive.mean_of_layers(a, nodes, n_layers)
    if backbone == "ngcf":
        layer, sums = nodes, np.asarray(nodes)
        for number in range(n_layers):
            layer = ngcf_layer(model, number, (a @ np.asarray(layer)).tolist(), layer)
            sums = sums + np.asarray([unit(row) for row in layer])
        nodes = (sums / (n_layers + 1)).tolist()
    smooth = np.asarray(items)
    for _ in range(n_mm_layers):
        smooth = h @ smooth
    own = [naive.plus(row, unit(s)) for row, s in zip(nodes[N_USERS:], smooth.tolist(), strict=True)]
    return nodes[:N_USERS], own


def naive_terms(users, items, batch, reg_weight, batch_size):
    u, i, j = ([table[x] for x in ids] for table, ids in zip((users, items, items), batch.tolist(), strict=True))
    squares = sum(naive.sum_of_squares(rows) for rows in (u, i, j))
    return {
        "bpr": naive.log_sigmoid_bpr([*map(dot, u, i)], [*map(dot, u, j)]),
        "reg": reg_weight * squares / 2 / batch_size,
    }


CASES = {
    "published": (["visual", "textual"], {}),
    "three modalities": (["visual", "textual", "acoustic"], {"lambda_coeff": 0.3}),
    "one modality": (["acoustic"], {"lambda_coeff": 0.5, "n_mm_layers": 2}),
    "mf": (["visual", "textual"], {"cf_model": "mf"}),
    "ngcf": (["visual", "textual"], {"cf_model": "ngcf", "weight_size": [8, 8], "mess_dropout": [0.0, 0.0]}),
    "one layer": (["visual", "textual"], {"weight_size": [8]}),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_scores_are_those_of_the_specification(case):
    modalities, settings = CASES[case]
    data = toy_dataset(modalities)
    model = build("LATTICE", data, reg_weight=0.3, **settings)
    with torch.no_grad():  # as after some training: the raw graph stays that of the features at the start
        for name in modalities:
            model.features(name).add_(torch.randn(model.features(name).shape), alpha=0.5)
        if len(modalities) > 1:
            model.modality_weights.add_(torch.randn(len(modalities)))
    model = on_double(model)
    h = naive_item_graph(model, data, settings.get("lambda_coeff", 0.9))
    users, items = naive_embeddings(
        model,
        data,
        settings.get("cf_model", "lightgcn"),
        h,
        len(settings.get("weight_size", [64, 64])),
        settings.get("n_mm_layers", 1),
    )
    pattern, values = model.item_graph()
    dense = pattern(values, torch.eye(N_ITEMS, dtype=torch.float64))
    torch.testing.assert_close(dense, torch.from_numpy(h), rtol=1e-9, atol=1e-12)
    batch = one_batch(data, 12)
    terms = model.calculate_loss(batch)
    # 64 is the toys' train_batch_size: a short batch is divided by it too.
    expected = naive_terms(users, items, batch, 0.3, 64)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-9, atol=1e-12)


def dense_loss(model, batch):
    """The loss by dense products, with the top-k choice as a constant mask, for its gradients."""
    weights = model.modality_weights.softmax(0)
    learned = original = 0
    for weight, name in zip(weights, model.modalities, strict=True):
        projected = model.projections[name](model.features(name))
        one = projected / projected.norm(dim=1, keepdim=True)
        cosines = one @ one.T
        mask = torch.from_numpy(nearest(projected.detach().numpy()) != 0)
        learned = learned + weight * cosines * mask
        original = original + weight * torch.from_numpy(raw_graph(model, toy_dataset(), name))
    scale = learned.sum(1) ** -0.5
    h = 0.1 * scale[:, None] * learned * scale + 0.9 * original
    smooth = h @ model.item_embedding
    ego = torch.cat([model.user_embedding, model.item_embedding])
    a = torch.from_numpy(user_item_graph(toy_dataset()))
    nodes = (ego + a @ ego + a @ a @ ego) / 3
    items = nodes[N_USERS:] + smooth / smooth.norm(dim=1, keepdim=True)
    u, i, j = nodes[batch[0]], items[batch[1]], items[batch[2]]
    squares = sum(x.square().sum() for x in (u, i, j))
    return -torch.nn.functional.logsigmoid((u * (i - j)).sum(1)).mean() + 0.3 * squares / 2 / 64


def test_gradients_are_those_of_dense_matrices():
    data = toy_dataset()
    model = on_double(build("LATTICE", data, reg_weight=0.3))
    with torch.no_grad():
        model.modality_weights.copy_(torch.tensor([0.9, -0.4]))
    batch = one_batch(data)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    expected = torch.autograd.grad(dense_loss(model, batch), [*model.parameters()])
    for (name, _), one, other in zip(model.named_parameters(), found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12, msg=name)


def content_parameters(model):
    return [p for name, p in model.named_parameters() if name not in ("user_embedding", "item_embedding")]


def test_the_item_graph_is_a_constant_after_the_first_batch_of_an_epoch():
    data = toy_dataset()
    model = build("LATTICE", data).train()
    first, second = one_batch(data), one_batch(data, seed=1)
    for _ in range(2):
        model.pre_epoch_processing()
        total(model.calculate_loss(first)).backward()
        assert all(p.grad.abs().max() > 0 for p in content_parameters(model))
        with torch.no_grad():
            for p in content_parameters(model):
                p.add_(torch.randn(p.shape))
        model.zero_grad(set_to_none=True)
        constant = model.calculate_loss(second)
        total(constant).backward()
        assert all(p.grad is None for p in content_parameters(model))
        model.pre_epoch_processing()
        rebuilt = model.calculate_loss(second)
        assert abs(total(constant).item() - total(rebuilt).item()) > 1e-6
    model.post_epoch_processing()
    assert model._epoch_graph is None
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_an_evaluation_uses_the_current_parameters_and_leaves_the_epoch_s_graph_alone():
    data = toy_dataset()
    model = build("LATTICE", data, lambda_coeff=0.0).train()
    batch = one_batch(data)
    before = total(model.calculate_loss(batch)).item()
    scores = all_scores(model)
    with torch.no_grad():
        for p in content_parameters(model):
            p.add_(torch.randn(p.shape))
    assert (all_scores(model) - scores).abs().max() > 1e-3
    assert total(model.calculate_loss(batch)).item() == before


def test_parameters_without_a_gradient_move_on_by_momentum():
    data = toy_dataset()
    model = build("LATTICE", data).train()
    assert model.keeps_zero_gradients
    optimizer = make_optimizer(make_config("LATTICE", learning_rate=0.01), model)
    weight = model.projections["visual"].weight
    start, places = weight.detach().clone(), []
    for batch in train_loader(data, 32).epoch():
        loss = total(model.calculate_loss(batch))
        optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
        loss.backward()
        optimizer.step()
        places.append(weight.detach().clone())
    first = places[0] - start
    # Adam's step s after one gradient g and zeros since: m = 0.1 * 0.9^(s-1) g, v = 0.001 * 0.999^(s-1) g^2.
    for step in (2, 3):
        moment = 0.1 * 0.9 ** (step - 1) / (1 - 0.9**step)
        second = 0.001 * 0.999 ** (step - 1) / (1 - 0.999**step)
        expected = first * moment / math.sqrt(second)
        clear = first.abs() > 0.0099  # where the gradient is far above Adam's epsilon
        assert clear.any()
        torch.testing.assert_close((places[step - 1] - places[step - 2])[clear], expected[clear], rtol=1e-2, atol=1e-6)


def test_a_short_batch_is_divided_by_the_configured_size():
    data = toy_dataset()
    regs = [build("LATTICE", data, train_batch_size=size).calculate_loss(one_batch(data, 8))["reg"] for size in (8, 32)]
    assert regs[0].item() == pytest.approx(4 * regs[1].item(), rel=1e-6)


def test_an_item_without_features_is_its_own_neighbour_alone():
    data = toy_dataset()
    model = build("LATTICE", data)
    raw_rows, raw_columns = model.raw_edges
    assert raw_columns[raw_rows == N_ITEMS - 1].tolist() == [N_ITEMS - 1] * 2
    assert (raw_rows[raw_columns == N_ITEMS - 1] == N_ITEMS - 1).all()
    with torch.no_grad():
        for layer in model.projections.values():
            layer.bias.zero_()  # so that the projected row is zero too
    pattern, values = model.item_graph()
    total(model.calculate_loss(one_batch(data))).backward()
    assert pattern.columns[pattern.rows == N_ITEMS - 1].tolist() == [N_ITEMS - 1]
    assert values[pattern.rows == N_ITEMS - 1].tolist() == pytest.approx([1.0])
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_ngcf_removes_messages_in_training_only():
    data = toy_dataset()
    model = build("LATTICE", data, cf_model="ngcf", weight_size=[8], mess_dropout=[0.4]).train()
    kept = torch.cat([(model._drop(torch.ones(1000, 10), 0.4) > 0).float() for _ in range(10)])
    assert kept.mean().item() == pytest.approx(0.6, abs=0.01)
    assert model._drop(torch.ones(1, 400), 0.4).unique().tolist() == pytest.approx([0, 1 / 0.6])
    loss = [total(model.calculate_loss(one_batch(data))).item() for _ in range(2)]
    assert loss[0] != loss[1]
    model.eval()
    assert torch.equal(model()[0], model()[0])


@pytest.mark.parametrize("settings", [{"weight_size": [8, 6]}, {"weight_size": [8], "mess_dropout": [0.1, 0.1]}])
def test_ngcf_refuses_layers_that_do_not_fit(settings):
    with pytest.raises(UserError, match="ngcf"):
        build("LATTICE", toy_dataset(), cf_model="ngcf", **settings)
