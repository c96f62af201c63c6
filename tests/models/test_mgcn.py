"""MGCN's loss and scores from their formulas, node by node."""

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, gate, plus, rows_of, times
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, total, toy_dataset

BATCH_SIZE = 64  # as the toys have it; the batches here are shorter


def dense(graph, size):
    """A sparse product's matrix, with the float32 entries that the source keeps."""
    return graph(torch.eye(size, dtype=torch.float64)).numpy()


def views_by_formula(data, model):
    """Behaviour view C and side view Z of all nodes, as lists of rows, users first."""
    options = model.options
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype("float32").astype("float64")
    ids = rows_of(model.item_embedding)
    behaviour = naive.mean_of_layers(a, rows_of(model.user_embedding) + ids, options.n_ui_layers)
    content = {}
    for name in model.modalities:
        projected = [affine(row, model.projections[name]) for row in rows_of(model.features(name))]
        items = np.array([
            times(own, gate(row, model.gates[name])) for own, row in zip(ids, projected, strict=True)
        ])  # fmt: skip
        for _ in range(options.n_mm_layers):
            items = dense(model.item_graphs[name], N_ITEMS) @ items
        content[name] = (a[:N_USERS, N_USERS:] @ items).tolist() + items.tolist()
    side = []
    for node, own in enumerate(behaviour):
        views = {name: rows[node] for name, rows in content.items()}
        if len(views) == 1:
            side.append([value / 2 for value in views[model.modalities[0]]])
            continue
        first, _, last = model.query
        logits = [affine([np.tanh(x) for x in affine(view, first)], last)[0] for view in views.values()]
        shares = naive.softmax(logits)
        common = plus(*([share * x for x in view] for share, view in zip(shares, views.values(), strict=True)))
        parts = [
            times(gate(own, model.preferences[name]), [x - y for x, y in zip(view, common, strict=True)])
            for name, view in views.items()
        ]
        side.append([x / (len(views) + 1) for x in plus(common, *parts)])
    return behaviour, side


@pytest.mark.parametrize(
    ("modalities", "n_ui_layers", "n_mm_layers"),
    [(["visual", "textual"], 2, 1), (["visual", "textual"], 1, 2), (["acoustic"], 2, 1),
     (["visual", "acoustic", "textual"], 2, 0)],
    ids=str,
)  # fmt: skip
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers):
    data = toy_dataset(modalities)
    depths = {"n_ui_layers": n_ui_layers, "n_mm_layers": n_mm_layers}
    model = on_double(build("MGCN", data, reg_weight=0.3, cl_weight=0.7, temperature=0.25, **depths))
    behaviour, side = views_by_formula(data, model)
    final = [plus(*pair) for pair in zip(behaviour, side, strict=True)]
    users, items = final[:N_USERS], final[N_USERS:]
    batch = one_batch(data, 40)
    assert len(batch[1].unique()) < 40, "an item is there twice, and counts twice"
    of_users, of_pos, of_neg = batch.tolist()
    rows = [users[u] for u in of_users], [items[i] for i in of_pos], [items[j] for j in of_neg]
    nodes = [of_users, [N_USERS + i for i in of_pos]]
    expected = {
        "bpr": naive.log_sigmoid_bpr([*map(dot, rows[0], rows[1])], [*map(dot, rows[0], rows[2])]),
        "reg": 0.3 * sum(map(naive.sum_of_squares, rows)) / 2 / BATCH_SIZE,
        "contrastive": 0.7
        * sum(naive.one_way_info_nce([side[n] for n in kind], [behaviour[n] for n in kind], 0.25) for kind in nodes),
    }
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_item_graphs_are_weighted_by_cosines_and_not_symmetric():
    data = toy_dataset()
    model = on_double(build("MGCN", data, knn_k=4))
    for name in model.modalities:
        found = dense(model.item_graphs[name], N_ITEMS)
        assert found == pytest.approx(naive.weighted_item_graph(data.features[name].tolist(), 4), rel=1e-5, abs=1e-7)
        assert not np.array_equal(found != 0, (found != 0).T)


def test_frozen_features_give_the_same_loss_and_gradients_of_the_rest():
    data = toy_dataset()
    gradients = []
    for trained in (True, False):
        model = build("MGCN", data, train_features=trained)
        total(model.calculate_loss(one_batch(data))).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if not name.startswith("features_")})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_modality_embeddings_are_the_views():
    data = toy_dataset()
    model = build("MGCN", data).eval()
    given = model.modality_embeddings()
    assert list(given) == ["id", "visual", "textual"]
    behaviour, *content = (torch.cat(pair) for pair in given.values())
    users, items = model()
    torch.testing.assert_close(behaviour + model.fuse(behaviour, content), torch.cat([users, items]))
