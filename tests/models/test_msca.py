"""MSCA's loss and scores from their formulas, node by node."""

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, gate, plus, rows_of, times
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

from common.behaviour_graph import behaviour_item_graph
from common.neighbours import binary_item_graph


def dense(graph):
    """An item graph's matrix, with the float32 entries that the source keeps."""
    return graph(torch.eye(N_ITEMS, dtype=torch.float64)).numpy()


def views_by_formula(data, model):
    """C, the views by name, and X of all nodes, as lists of rows, users first."""
    options = model.options
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype("float32").astype("float64")
    ids = rows_of(model.item_embedding)
    layer = np.array(rows_of(model.user_embedding) + ids)
    layers = [layer := a @ layer for _ in range(options.n_ui_layers)]
    collaborative = (sum(layers) / options.n_ui_layers).tolist()
    inputs = {"structure": ids}
    for name in model.modalities:
        projected = [affine(row, model.projections[name]) for row in rows_of(model.features(name))]
        inputs[name] = [times(own, gate(row, model.gates[name])) for own, row in zip(ids, projected, strict=True)]
    views = {}
    for name, rows in inputs.items():
        items = dense(model.item_graphs[name]) @ np.array(rows)
        views[name] = (a[:N_USERS, N_USERS:] @ items).tolist() + items.tolist()
    first, _, last = model.query
    enhancement = []
    for node in range(N_USERS + N_ITEMS):
        own = [rows[node] for rows in views.values()]
        shares = naive.softmax([affine([np.tanh(x) for x in affine(row, first)], last)[0] for row in own])
        redundant = plus(*([share * x for x in row] for share, row in zip(shares, own, strict=True)))
        enhancement.append([x - y for x, y in zip(plus(*own), redundant, strict=True)])
    return collaborative, views, enhancement


@pytest.mark.parametrize(
    ("modalities", "n_ui_layers"),
    [(["visual", "textual"], 2), (["acoustic"], 1), (["visual", "acoustic", "textual"], 3)],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers):
    data = toy_dataset(modalities)
    words = {"reg_weight": 0.03, "cl_weight": 0.7, "temperature": 0.25, "fusion_weight": 0.6}
    model = on_double(build("MSCA", data, n_ui_layers=n_ui_layers, **words))
    collaborative, views, enhancement = views_by_formula(data, model)
    final = [plus(own, [0.6 * x for x in more]) for own, more in zip(collaborative, enhancement, strict=True)]
    users, items = final[:N_USERS], final[N_USERS:]
    batch = one_batch(data, 40)
    assert len(batch[1].unique()) < 40, "an item is there twice, and counts twice"
    of_users, of_pos, of_neg = batch.tolist()
    pos, neg = ([dot(users[u], items[i]) for u, i in zip(of_users, ids, strict=True)] for ids in (of_pos, of_neg))
    nodes = [of_users, [N_USERS + i for i in of_pos]]
    contrasts = [
        naive.one_way_info_nce([collaborative[n] for n in kind], [view[n] for n in kind], 0.25)
        for kind in nodes
        for view in views.values()
    ]
    squares = sum(naive.sum_of_squares(rows_of(p.reshape(len(p), -1))) for p in model.parameters())
    expected = {
        "bpr": naive.log_sigmoid_bpr(pos, neg),
        "contrastive": 0.7 * sum(contrasts),
        "reg": 0.03 * squares,
    }
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_item_graphs_are_those_of_cosines_and_of_co_occurrence():
    data = toy_dataset()
    weighted, binary = (build("MSCA", data, knn_k=4, modality_graph=word).double() for word in ("weighted", "binary"))
    for name in data.features:
        expected = naive.weighted_item_graph(data.features[name].tolist(), 4)
        assert dense(weighted.item_graphs[name]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert dense(binary.item_graphs[name]) == pytest.approx(binary_item_graph(data, name, 4).toarray(), rel=1e-6)
    for model in (weighted, binary):
        expected = behaviour_item_graph(data, 4).toarray()
        assert dense(model.item_graphs["structure"]) == pytest.approx(expected, rel=1e-6)


def test_all_that_is_trained_is_penalised_features_too():
    data = toy_dataset()
    for trained in (True, False):
        model = build("MSCA", data, train_features=trained, cl_weight=0.0)
        reg = model.calculate_loss(one_batch(data))["reg"]
        found = torch.autograd.grad(reg, list(model.parameters()))
        weight = model.options.reg_weight
        for gradient, parameter in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(gradient, 2 * weight * parameter.detach())
        names = {name for name, _ in model.named_parameters() if name.startswith("features_")}
        assert names == ({"features_visual", "features_textual"} if trained else set())
