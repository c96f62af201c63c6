"""FREEDOM's losses, scores and graphs from their formulas, on dense matrices."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, unit
from toys import (
    N_ITEMS,
    N_USERS,
    all_scores,
    build,
    on_double,
    one_batch,
    total,
    toy_dataset,
    train_loader,
)

K, SHARE = 3, 0.4
# By the specification 0.1 is the image's weight and the rest the others'; one modality alone weighs 1.
WEIGHTS = {
    ("visual",): [1.0],
    ("textual",): [1.0],
    ("visual", "textual"): [0.1, 0.9],
    ("visual", "acoustic"): [0.1, 0.9],
    ("visual", "acoustic", "textual"): [0.1, 0.45, 0.45],
}


def item_matrix(data, weights):
    """M: 1/k at each item's k most similar items in each modality, itself first; as the source has it, in float32."""
    m = np.zeros((N_ITEMS, N_ITEMS))
    for features, weight in zip(data.features.values(), weights, strict=True):
        units = [unit(row) for row in features.astype(np.float64).tolist()]
        for i, own in enumerate(units):
            others = [j for j in range(N_ITEMS) if j != i and any(units[j]) and any(own)]
            near = [i, *sorted(others, key=lambda j, own=own: -dot(own, units[j]))[: K - 1]]
            for j in near:
                m[i, j] += weight / len(near)
    return m.astype(np.float32).astype(np.float64)


def kept_edges(data, share, seed):
    """The interactions of a first epoch after `seed`: the smallest of exponential variables over odds."""
    users, items = data.train.users.tolist(), data.train.items.tolist()
    torch.manual_seed(seed)
    draws = torch.empty(len(users), dtype=torch.float64).exponential_().tolist()
    odds = [1 / math.sqrt(users.count(u) * items.count(i)) for u, i in zip(users, items, strict=True)]
    order = sorted(range(len(users)), key=lambda e: draws[e] / odds[e])[: int(len(users) * (1 - share))]
    return [users[e] for e in order], [items[e] for e in order]


def embeddings(data, edges, m, ego_users, ego_items, n_layers, n_mm_layers):
    """Users and items as rows, on a user-item graph of the edges."""
    a = naive.dense_normalized(naive.dense_adjacency(*edges, N_USERS, N_ITEMS)).astype(np.float32).astype(np.float64)
    nodes = naive.mean_of_layers(a, ego_users + ego_items, n_layers)
    similar = ego_items
    for _ in range(n_mm_layers):
        similar = [[dot(row, column) for column in zip(*similar, strict=True)] for row in m.tolist()]
    items = [[x + y for x, y in zip(*pair, strict=True)] for pair in zip(nodes[N_USERS:], similar, strict=True)]
    return nodes[:N_USERS], items


@pytest.mark.parametrize(("n_layers", "n_mm_layers"), [(2, 1), (0, 2), (3, 0)])
@pytest.mark.parametrize(("modalities", "weights"), WEIGHTS.items(), ids=str)
def test_losses_and_scores_are_those_of_the_specification(modalities, weights, n_layers, n_mm_layers):
    data = toy_dataset(modalities)
    options = {"n_ui_layers": n_layers, "n_mm_layers": n_mm_layers, "edge_dropout": SHARE, "reg_weight": 0.3}
    model = on_double(build("FREEDOM", data, **options))
    torch.manual_seed(3)
    model.pre_epoch_processing()
    tables = rows_of(model.user_embedding), rows_of(model.item_embedding)
    m = item_matrix(data, weights)
    users, items = embeddings(data, kept_edges(data, SHARE, 3), m, *tables, n_layers, n_mm_layers)
    batch = one_batch(data, 12)

    def bpr_of(item_rows):
        pos, neg = ([dot(users[u], item_rows[i]) for u, i in zip(batch[0], side, strict=True)] for side in batch[1:])
        return naive.bpr(pos, neg)

    expected = {"bpr": bpr_of(items)}
    for name in modalities:
        layer = model.projections[name]
        weight, bias = rows_of(layer.weight), layer.bias.tolist()
        projected = [
            [dot(w, x) + b for w, b in zip(weight, bias, strict=True)]
            for x in data.features[name].astype(float).tolist()
        ]
        expected[f"bpr_{name}"] = 0.3 * bpr_of(projected)
    terms = model.calculate_loss(batch)
    # The naive BPR adds 1e-10 within the logarithm.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=2e-9)
    full = data.train.users.tolist(), data.train.items.tolist()
    users, items = embeddings(data, full, m, *tables, n_layers, n_mm_layers)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_an_item_without_features_has_itself_alone_for_a_neighbour():
    m = item_matrix(toy_dataset(), [0.1, 0.9])
    assert m[-1].nonzero()[0].tolist() == [N_ITEMS - 1]
    assert m[:, -1].nonzero()[0].tolist() == [N_ITEMS - 1]
    x = torch.randn(N_ITEMS, 4, generator=torch.Generator().manual_seed(0))
    found = build("FREEDOM", toy_dataset()).item_graph(x)
    torch.testing.assert_close(found.double(), torch.from_numpy(m) @ x.double(), rtol=1e-5, atol=1e-6)


def test_all_interactions_may_be_left_out():
    data = toy_dataset()
    model = build("FREEDOM", data, edge_dropout=1.0, n_ui_layers=2)
    model.pre_epoch_processing()
    assert len(model.training_graph.weights) == 0
    torch.testing.assert_close(model()[0], model.user_embedding / 3)


def test_projecting_the_batch_s_items_alone_gives_the_gradients_of_projecting_all():
    data = toy_dataset()
    model = on_double(build("FREEDOM", data, reg_weight=0.3))
    users, pos, neg = batch = one_batch(data)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    all_users, all_items = model()
    u = all_users[users]
    loss = torch.nn.functional.softplus(-(u * (all_items[pos] - all_items[neg])).sum(1)).mean()
    for name, projection in model.projections.items():
        content = projection(model.features(name))
        difference = (u * content[pos]).sum(1) - (u * content[neg]).sum(1)
        loss = loss + 0.3 * torch.nn.functional.softplus(-difference).mean()
    for one, other in zip(found, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        torch.testing.assert_close(one, other)


def test_without_the_losses_on_features_freezing_them_changes_nothing():
    data = toy_dataset()
    scores = []
    for train_features in (True, False):
        model = build("FREEDOM", data, train_features=train_features, reg_weight=0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        model.pre_epoch_processing()
        for batch in train_loader(data).epoch():
            optimizer.zero_grad()
            total(model.calculate_loss(batch)).backward()
            optimizer.step()
        scores.append(all_scores(model))
    assert torch.equal(*scores)
