"""SelfCF's losses and scores from their formulas, on a dense graph, with the random numbers drawn again."""

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, total, toy_dataset

D = 8


def full_graph(data):
    """The normalised graph; the source keeps it in float32."""
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    return a.astype(np.float32).astype(np.float64)


def dropped_graph(a):
    """Each entry of A, row by row, kept with probability 1 - r and divided by it."""
    rate = torch.rand(()).numpy()
    entries = [*zip(*a.nonzero(), strict=True)]
    out = np.zeros_like(a)
    for (row, column), draw in zip(entries, torch.rand(len(entries)).numpy(), strict=True):
        if draw >= rate:
            out[row, column] = a[row, column] * float(np.float32(1) / (np.float32(1) - rate))
    return out


def predicted(model, row):
    layer = model.predictor
    return [dot(w, row) + b for w, b in zip(rows_of(layer.weight), layer.bias.tolist(), strict=True)]


@pytest.mark.parametrize("drop_edges", [True, False])
@pytest.mark.parametrize(("n_layers", "share"), [(0, 0.5), (1, 0.0), (2, 0.5)])
def test_losses_and_scores_are_those_of_the_specification(n_layers, share, drop_edges):
    data = toy_dataset([])
    options = {"n_ui_layers": n_layers, "embedding_dropout": share, "drop_edges": drop_edges, "reg_weight": 0.3}
    model = on_double(build("SelfCF", data, **options))
    ego = rows_of(model.user_embedding) + rows_of(model.item_embedding)
    batch = one_batch(data, 12)[:2]
    torch.manual_seed(3)
    a = dropped_graph(full_graph(data)) if drop_edges else full_graph(data)
    nodes = naive.mean_of_layers(a, ego, n_layers)
    users, items = [nodes[u] for u in batch[0]], [nodes[N_USERS + i] for i in batch[1]]
    targets = []
    for rows in (users, items):
        draws = torch.rand(len(rows), D).tolist() if share else [[1.0] * D] * len(rows)
        scale = 1 / (1 - share)
        targets.append(
            [[scale * x * (z >= share) for x, z in zip(*pair, strict=True)] for pair in zip(rows, draws, strict=True)]
        )

    def half_of_mean_cosine(rows, goals):
        cosines = [dot(unit(predicted(model, row)), unit(goal)) for row, goal in zip(rows, goals, strict=True)]
        return -sum(cosines) / len(cosines) / 2

    expected = {
        "user_to_item": half_of_mean_cosine(users, targets[1]),
        "item_to_user": half_of_mean_cosine(items, targets[0]),
        "reg": 0.3 * naive.sum_of_squares(users + items) / 2,
    }
    torch.manual_seed(3)
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    nodes = naive.mean_of_layers(full_graph(data), ego, n_layers)
    pred = [predicted(model, row) for row in nodes]
    scores = [
        [dot(pred[u], nodes[N_USERS + i]) + dot(nodes[u], pred[N_USERS + i]) for i in range(N_ITEMS)]
        for u in range(N_USERS)
    ]
    torch.testing.assert_close(all_scores(model), torch.tensor(scores, dtype=torch.float64))


def test_targets_get_no_gradient():
    data = toy_dataset([])
    model = on_double(build("SelfCF", data, drop_edges=False, embedding_dropout=0.0, n_ui_layers=0))
    users, _ = batch = one_batch(data)[:2]
    loss = model.calculate_loss(batch)["user_to_item"]
    by_user, by_item = torch.autograd.grad(loss, [model.user_embedding, model.item_embedding], allow_unused=True)
    assert by_user[users].any(dim=1).all()
    assert by_item is None or not by_item.any()


def test_gradients_go_back_over_the_same_dropped_graph():
    data = toy_dataset([])
    model = on_double(build("SelfCF", data, reg_weight=0.3, embedding_dropout=0.0))
    batch = one_batch(data, 12)[:2]
    torch.manual_seed(4)
    a = torch.from_numpy(dropped_graph(full_graph(data)))
    assert not torch.equal(a, a.T), "the directions of an edge are dropped apart"
    torch.manual_seed(4)
    found = torch.autograd.grad(total(model.calculate_loss(batch)), [*model.parameters()])
    ego = torch.cat([model.user_embedding, model.item_embedding])
    nodes = (ego + a @ ego + a @ (a @ ego)) / 3
    users, items = nodes[batch[0]], nodes[N_USERS + batch[1]]
    loss = 0.3 * ((users**2).sum() + (items**2).sum()) / 2
    for one, other in ((users, items), (items, users)):
        guess, goal = model.predictor(one), other.detach()
        loss = loss - ((guess * goal).sum(1) / (guess.norm(dim=1) * goal.norm(dim=1))).mean() / 2
    for one, other in zip(found, torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        torch.testing.assert_close(one, other)
