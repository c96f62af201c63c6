"""MMGCF's loss and scores from their formulas, node by node."""

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, plus, rows_of, sigmoid, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

from utils.errors import UserError

MODES, WEIGHTINGS = ("mean", "sum", "concat"), ("equal", "alpha", "normalized")


def joined(mode, parts, fusion):
    if mode == "concat":
        return affine([x for part in parts for x in part], fusion.layer)
    total = plus(*parts)
    return [x / len(parts) for x in total] if mode == "mean" else total


def scaled(factor, row):
    return [factor * x for x in row]


def embeddings_by_formula(data, model):
    """Users and items, as lists of rows."""
    options = model.options
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    ego = rows_of(model.user_embedding) + rows_of(model.item_embedding)
    nodes = naive.mean_of_layers(a.astype("float32").astype("float64"), ego, options.n_ui_layers)
    items = []
    for place, ids in enumerate(nodes[N_USERS:]):
        content = [affine(rows_of(model.features(m))[place], model.projections[m]) for m in model.modalities]
        if options.weighting == "equal":
            both = joined(options.fusion_mode, content, model.fuse_content) if len(content) > 1 else content[0]
            parts = [ids, both]
        elif options.weighting == "alpha":
            share = sigmoid(model.alpha.item())
            parts = [scaled(share, ids), *(scaled(1 - share, row) for row in content)]
        else:
            parts = [scaled(len(content), unit(ids)), *map(unit, content)]
        items.append(joined(options.fusion_mode, parts, model.fuse))
    return nodes[:N_USERS], items


@pytest.mark.parametrize(
    "modalities", [["acoustic"], ["visual", "textual"], ["visual", "acoustic", "textual"]], ids=str
)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_scores_are_those_of_the_specification(mode, weighting, modalities):
    data = toy_dataset(modalities)
    words = {"fusion_mode": mode, "weighting": weighting, "n_ui_layers": 2, "edge_dropout": 0.0, "reg_weight": 0.3}
    model = on_double(build("MMGCF", data, feat_embed_dim=9 if mode == "concat" else None, **words))
    if weighting == "alpha":
        torch.nn.init.constant_(model.alpha, 0.7)
    users, items = embeddings_by_formula(data, model)
    batch = one_batch(data, 40)
    assert len(batch[1].unique()) < 40, "an item is there twice, and counts twice"
    of_users, of_pos, of_neg = batch.tolist()
    pos, neg = ([dot(users[u], items[i]) for u, i in zip(of_users, ids, strict=True)] for ids in (of_pos, of_neg))
    ego = [
        [rows_of(table)[i] for i in ids]
        for table, ids in (
            (model.user_embedding, of_users),
            (model.item_embedding, of_pos),
            (model.item_embedding, of_neg),
        )
    ]
    expected = {"bpr": naive.log_sigmoid_bpr(pos, neg), "reg": 0.3 * naive.half_squared_l2_over_batch(*ego)}
    terms = model.train().calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_fuse_trains_all_its_layers(mode, weighting):
    data = toy_dataset()
    model = build("MMGCF", data, fusion_mode=mode, weighting=weighting).train()
    model.pre_epoch_processing()
    sum(model.calculate_loss(one_batch(data)).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    layers = {"fuse"} | ({"fuse_content"} if weighting == "equal" else set()) if mode == "concat" else set()
    assert names - {"user_embedding", "item_embedding", "projections", "alpha"} == layers


def test_an_epoch_keeps_the_share_of_edges_and_evaluation_has_them_all():
    data = toy_dataset()
    model = build("MMGCF", data, edge_dropout=0.8).train()
    whole = len(model.graph.columns)
    model.pre_epoch_processing()
    first = model.training_graph
    assert len(first.columns) == 2 * int(len(data.train) * (1 - 0.8))
    model.pre_epoch_processing()
    assert not torch.equal(first.columns, model.training_graph.columns), "another draw"
    assert len(model.graph.columns) == whole == 2 * len(data.train)
    trained = [table.clone() for table in model.propagate()]
    assert not torch.equal(torch.cat(trained), torch.cat(model.eval().propagate()))


def test_users_never_see_content_but_through_the_loss():
    first, second = toy_dataset(), toy_dataset()
    second.features = {name: np.flip(matrix, 0).copy() for name, matrix in first.features.items()}
    models = [build("MMGCF", data).eval() for data in (first, second)]
    (users, items), (same, others) = (model() for model in models)
    assert torch.equal(users, same)
    assert not torch.equal(items, others)


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_widths_that_cannot_be_added_are_refused(mode):
    with pytest.raises(UserError, match=r"feat_embed_dim: fusion_mode .* expected null or embedding_size 8, got 9"):
        build("MMGCF", toy_dataset(), fusion_mode=mode, feat_embed_dim=9)
