"""MMGCN's loss and scores from their formulas, on a dense graph."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid, unit
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

N = N_USERS + N_ITEMS
CASES = [["visual"], ["textual"], ["visual", "textual"], list(WIDTHS)]


def lrelu(x):
    return x if x > 0 else 0.01 * x


def affine(layer, row):
    bias = [0.0] * len(layer.weight) if layer.bias is None else layer.bias.tolist()
    return [dot(w, row) + b for w, b in zip(rows_of(layer.weight), bias, strict=True)]


def mean_over_neighbours(data):
    """D^-1 A [N, N] as the source keeps it: float32; isolated nodes have rows of zeros."""
    a = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)
    for row in a:
        if row.sum():
            row /= row.sum()
    return a.astype(np.float32).astype(np.float64)


def branch_output(model, data, modality, a):
    """X^3 [N, D], node by node."""
    ids = rows_of(model.ids)
    items = data.features[modality].astype(np.float64).tolist()
    if modality == "visual":
        items = [affine(model.projection, row) for row in items]
    x = [unit(row) for row in rows_of(getattr(model, f"preference_{modality}")) + items]
    branch = model.branches[modality]
    for gather, own, combine in zip(branch.gather, branch.own, branch.combine, strict=True):
        sent = [affine(gather, row) for row in x]
        following = []
        for node in range(N):
            received = [sum(a[node, other] * sent[other][k] for other in range(N)) for k in range(len(sent[0]))]
            h = [lrelu(value) for value in received]
            o = [lrelu(value) + z for value, z in zip(affine(own, x[node]), ids[node], strict=True)]
            following.append([lrelu(value) for value in affine(combine, h + o)])
        x = following
    return x


@pytest.mark.parametrize("train_ids", [False, True])
@pytest.mark.parametrize("modalities", CASES, ids="+".join)
def test_loss_and_scores_are_those_of_the_specification(modalities, train_ids):
    data = toy_dataset(modalities)
    model = on_double(build("MMGCN", data, reg_weight=0.3, train_ids=train_ids))
    model.load_state_dict(model.state_dict())  # constants in float64
    a = mean_over_neighbours(data)
    outputs = [branch_output(model, data, modality, a) for modality in modalities]
    nodes = [[sum(x) / len(outputs) for x in zip(*rows, strict=True)] for rows in zip(*outputs, strict=True)]
    ids, batch = rows_of(model.ids), one_batch(data, 12)
    bpr, squares = [], []
    for user, pos, neg in batch.T.tolist():
        u, i, j = nodes[user], nodes[N_USERS + pos], nodes[N_USERS + neg]
        bpr.append(-math.log(sigmoid(dot(u, i) - dot(u, j))))
        for zu, zi, zj in zip(ids[user], ids[N_USERS + pos], ids[N_USERS + neg], strict=True):
            squares.append(zu**2 + zi**2 / 2 + zj**2 / 2)
    reg = sum(squares) / len(squares)
    if "visual" in modalities:  # the other preferences are not penalised
        table = rows_of(model.preference_visual)
        reg += naive.sum_of_squares(table) / (N_USERS * len(table[0]))
    terms = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    assert terms == pytest.approx({"bpr": sum(bpr) / len(bpr), "reg": 0.3 * reg}, rel=1e-9)
    scores = torch.tensor([[dot(u, i) for i in nodes[N_USERS:]] for u in nodes[:N_USERS]], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


@pytest.mark.parametrize("train_ids", [False, True])
def test_constants_computed_once_give_the_gradients_of_computing_all(train_ids):
    data = toy_dataset(list(WIDTHS))
    model = on_double(build("MMGCN", data, train_ids=train_ids))
    model.load_state_dict(model.state_dict())
    assert len(model.constant) == (2 if train_ids else 5), "all but the visual items, which are projected"
    batch = one_batch(data)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    model.constant = set()
    again = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_trained_features_get_a_gradient_and_a_row_of_zeros_none():
    data = toy_dataset()
    model = build("MMGCN", data, train_features=True)
    total(model.calculate_loss(one_batch(data, 200))).backward()
    assert model.features("textual").grad[:-1].any()
    assert not model.features("textual").grad[-1].any(), "the last item has features of zeros"
    assert model.features("visual").grad.isfinite().all()
    assert build("MMGCN", data).features("textual").requires_grad is False


def test_the_penalty_moves_ids_and_visual_preferences_where_they_are_trained():
    data = toy_dataset()
    model = build("MMGCN", data, train_ids=True, reg_weight=0.3)
    reg = model.calculate_loss(one_batch(data))["reg"]
    wanted = [model.ids, model.preference_visual, model.preference_textual]
    ids, visual, textual = torch.autograd.grad(reg, wanted, allow_unused=True)
    assert ids.any()
    torch.testing.assert_close(visual, 0.3 * 2 * model.preference_visual / model.preference_visual.numel())
    assert textual is None
    assert not build("MMGCN", data, reg_weight=0.3).calculate_loss(one_batch(data))["reg"].requires_grad
