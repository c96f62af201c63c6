"""SLMRec's loss and scores from their formulas."""

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, unit
from toys import (
    BOTH,
    N_ITEMS,
    N_USERS,
    all_scores,
    build,
    on_double,
    one_batch,
    total,
    toy_dataset,
)

from utils.errors import UserError

WIDTH = 8
# Visual stands first in the hierarchy and textual last, whatever the data set's order.
ORDERS = {
    ("visual",): ["visual"],
    ("acoustic",): ["acoustic"],
    ("textual", "visual"): ["visual", "textual"],
    ("visual", "acoustic"): ["visual", "acoustic"],
    ("visual", "textual", "acoustic"): ["visual", "acoustic", "textual"],
}


def affine(layer, row):
    return [dot(w, row) + b for w, b in zip(rows_of(layer.weight), layer.bias.tolist(), strict=True)]


def propagated(model, data, n_layers):
    """H of id and each modality, by name: users and items, each modality propagated on its own."""
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype("float32").astype("float64")
    inputs = {"id": rows_of(model.item_embedding)}
    for m in data.features:
        # The source brings rows to unit length in float32, and so must what it is compared with.
        x = [unit(row) for row in np.asarray(data.features[m], dtype=float).tolist()]
        np.testing.assert_allclose(model.features(m).numpy(), x, atol=1e-7)
        inputs[m] = [affine(model.projections[m], row) for row in model.features(m).tolist()]
    users = rows_of(model.user_embedding)
    nodes = {name: naive.mean_of_layers(a, users + items, n_layers) for name, items in inputs.items()}
    return {name: (rows[:N_USERS], rows[N_USERS:]) for name, rows in nodes.items()}


def cross_entropy(anchors, candidates, temperature):
    """Mean over rows, the diagonal as target."""
    rows = [
        naive.cross_entropy([dot(a, c) / temperature for c in candidates], place) for place, a in enumerate(anchors)
    ]
    return sum(rows) / len(rows)


@pytest.mark.parametrize("n_layers", [0, 1, 3])
@pytest.mark.parametrize(("modalities", "order"), ORDERS.items(), ids=str)
def test_loss_and_scores_are_those_of_the_specification(modalities, order, n_layers):
    data = toy_dataset(modalities)
    settings = {"layer_num": n_layers, "temp": 0.3, "ssl_temp": 0.4, "ssl_alpha": 0.7}
    model = on_double(build("SLMRec", data, **settings)).train()
    h = propagated(model, data, n_layers)
    names = ["id", *order]
    z_users, z_items = (
        [affine(layer, [x for name in names for x in h[name][side][node]]) for node in range(count)]
        for side, layer, count in ((0, model.fuse_users, N_USERS), (1, model.fuse_items, N_ITEMS))
    )
    batch = one_batch(data, 40)[:2]
    user_ids, item_ids = batch.tolist()
    assert len(set(item_ids)) < len(item_ids), "repeated items stay negatives of each other"
    main = cross_entropy([unit(z_users[u]) for u in user_ids], [unit(z_items[i]) for i in item_ids], 0.3)

    def gathered(name):
        return [h[name][1][i] for i in item_ids]

    anchors = [affine(model.steps[order[0]], row) for row in gathered("id")]
    heads = {m: [affine(model.heads[m], row) for row in gathered(m)] for m in order}
    contrast = cross_entropy(anchors, heads[order[0]], 0.4)
    if len(order) == 2:  # the middle projection without a loss, then the last level
        middle, last = model.steps[order[1]]
        anchors = [affine(last, affine(middle, row)) for row in anchors]
        contrast += cross_entropy(anchors, heads[order[1]], 0.4)
    if len(order) == 3:
        for m in order[1:]:
            anchors = [affine(model.steps[m], row) for row in anchors]
            contrast += cross_entropy(anchors, heads[m], 0.4)

    terms = model.calculate_loss(batch)
    expected = {"main": main, "contrastive": 0.7 * contrast}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-11)
    scores = torch.tensor([[dot(u, i) for i in z_items] for u in z_users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)
    for name, pair in model.modality_embeddings().items():
        for found, rows in zip(pair, h[name], strict=True):
            torch.testing.assert_close(found, torch.tensor(rows, dtype=torch.float64))


def test_gradients_are_those_of_propagating_each_modality_on_its_own():
    data = toy_dataset()
    model = on_double(build("SLMRec", data))
    batch = one_batch(data, 40)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    h = {"id": model.item_embedding} | {m: model.projections[m](model.features(m)) for m in BOTH}
    h = {m: model.graph.propagate_mean(torch.cat([model.user_embedding, x]), 3) for m, x in h.items()}
    joined = torch.cat([*h.values()], dim=1)
    z_u, z_i = model.fuse_users(joined[batch[0]]), model.fuse_items(joined[N_USERS + batch[1]])
    target = torch.arange(40)
    cross = torch.nn.functional.cross_entropy
    loss = cross(torch.cosine_similarity(z_u[:, None], z_i[None], dim=2) / 0.2, target)
    v, t = (model.heads[m](h[m][N_USERS + batch[1]]) for m in BOTH)
    a = model.steps["visual"](h["id"][N_USERS + batch[1]])
    e = model.steps["textual"](a)
    loss = loss + 0.1 * (cross(a @ v.T / 0.2, target) + cross(e @ t.T / 0.2, target))
    for one, other in zip(found, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        torch.testing.assert_close(one, other)


def test_the_second_level_trains_the_first_projection_too():
    """Nothing is detached on the way up."""
    data = toy_dataset()
    model = build("SLMRec", data)
    weight = model.steps["visual"].weight
    with torch.no_grad():
        model.heads["visual"].weight.zero_()  # all candidates alike: the first level's loss is constant
    (gradient,) = torch.autograd.grad(model.calculate_loss(one_batch(data))["contrastive"], weight)
    assert gradient.abs().max() > 1e-5


def test_other_tasks_are_refused():
    with pytest.raises(UserError, match="ssl_task"):
        build("SLMRec", toy_dataset(), ssl_task="FD")
