"""LayerGCN's loss, scores and pruning from their formulas, on a dense graph."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

SHARE = 0.3


def kept_edges(data, odds, share=SHARE):
    """The interactions that are next kept: the smallest of exponential variables over odds."""
    draws = torch.empty(len(odds), dtype=torch.float64).exponential_().tolist()
    order = sorted(range(len(odds)), key=lambda e: draws[e] / odds[e])[: int(len(odds) * (1 - share))]
    return [data.train.users[e] for e in order], [data.train.items[e] for e in order]


def odds_of(data, pruning):
    users, items = data.train.users.tolist(), data.train.items.tolist()
    if pruning == "uniform":
        return [1.0] * len(users)
    return [1 / math.sqrt(users.count(u) * items.count(i)) for u, i in zip(users, items, strict=True)]


def refined(edges, ego, n_layers):
    """sum_{l=1..L} X^l with X^l_v = cos((G X^(l-1))_v, X^0_v) (G X^(l-1))_v; the graph in float32, as the source has it."""
    a = naive.dense_normalized(naive.dense_adjacency(*edges, N_USERS, N_ITEMS)).astype(np.float32).astype(np.float64)
    layer, total = ego, [[0.0] * len(ego[0]) for _ in ego]
    for _ in range(n_layers):
        received = (a @ np.asarray(layer)).tolist()
        layer = [[dot(unit(z), unit(x)) * value for value in z] for z, x in zip(received, ego, strict=True)]
        total = [[s + x for s, x in zip(*rows, strict=True)] for rows in zip(total, layer, strict=True)]
    return total


@pytest.mark.parametrize("n_layers", [1, 4])
@pytest.mark.parametrize("pruning", ["degree", "uniform"])
def test_loss_and_scores_are_those_of_the_specification(pruning, n_layers):
    data = toy_dataset([])
    options = {"n_ui_layers": n_layers, "edge_dropout": SHARE, "pruning": pruning, "reg_weight": 0.3}
    model = on_double(build("LayerGCN", data, **options))
    torch.manual_seed(3)
    model.pre_epoch_processing()
    torch.manual_seed(3)
    edges = kept_edges(data, odds_of(data, pruning))
    ego = rows_of(model.user_embedding) + rows_of(model.item_embedding)
    nodes = refined(edges, ego, n_layers)
    batch = one_batch(data, 12)
    expected = {"bpr": 0.0, "reg": 0.0}
    for u, i, j in batch.T.tolist():
        user, pos, neg = nodes[u], nodes[N_USERS + i], nodes[N_USERS + j]
        expected["bpr"] -= math.log(sigmoid(dot(user, pos) - dot(user, neg)))
        expected["reg"] += 0.3 * naive.sum_of_squares([ego[u], ego[N_USERS + i], ego[N_USERS + j]]) / 2
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-12)
    full = refined((data.train.users, data.train.items), ego, n_layers)
    scores = torch.tensor([[dot(u, i) for i in full[N_USERS:]] for u in full[:N_USERS]], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_gradients_flow_through_the_similarities():
    data = toy_dataset([])
    model = on_double(build("LayerGCN", data, n_ui_layers=2))
    ego = torch.cat([model.user_embedding, model.item_embedding]).detach().requires_grad_()
    users, items = data.train.users, data.train.items
    a = naive.dense_normalized(naive.dense_adjacency(users, items, N_USERS, N_ITEMS)).astype(np.float32)
    layer, total = ego, 0
    for _ in range(2):
        received = torch.from_numpy(a).double() @ layer
        lengths = (received.norm(dim=1) * ego.norm(dim=1)).clamp(min=1e-8)
        layer = ((received * ego).sum(1) / lengths)[:, None] * received
        total = total + layer
    weights = torch.randn(total.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # The last user and item have no interaction, where a length of zero has no derivative.
    weights[[N_USERS - 1, -1, -2]] = 0
    linked = torch.from_numpy(a.any(axis=1))
    expected = torch.autograd.grad((total * weights)[linked].sum(), ego)[0]
    found = torch.autograd.grad((torch.cat(model()) * weights)[linked].sum(), [*model.parameters()])
    torch.testing.assert_close(torch.cat(found)[linked], expected[linked])


def test_alternate_takes_turns_and_goes_on_after_a_checkpoint():
    data = toy_dataset([])
    model = build("LayerGCN", data, pruning="alternate", edge_dropout=SHARE)

    def check_next(turn, subject):
        torch.manual_seed(5)
        subject.pre_epoch_processing()
        torch.manual_seed(5)
        edges = kept_edges(data, odds_of(data, turn))
        a = naive.dense_adjacency(*edges, N_USERS, N_ITEMS)
        graph = subject.training_graph
        counts = np.diff(graph.offsets.numpy())
        assert np.array_equal(np.repeat(np.arange(len(a)), counts), a.nonzero()[0])
        assert np.array_equal(graph.columns.numpy(), a.nonzero()[1])

    check_next("degree", model)
    check_next("uniform", model)
    check_next("degree", model)
    other = build("LayerGCN", data, pruning="alternate", edge_dropout=SHARE)
    other.load_state_dict(model.state_dict())
    check_next("uniform", other)
    check_next("degree", other)
