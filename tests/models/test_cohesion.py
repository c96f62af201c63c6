"""COHESION's loss and scores from their formulas, channel by channel on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, rows_of, unit
from toys import BOTH, N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

ALL = ["visual", "acoustic", "textual"]


def single(matrix):
    """The matrix with the float32 entries that the source keeps."""
    return np.asarray(matrix).astype(np.float32).astype(np.float64)


def by_row_counts(kept):
    counts = kept.sum(axis=1)
    out = np.zeros(kept.shape)
    for i, j in zip(*kept.nonzero(), strict=True):
        out[i, j] = 1 / math.sqrt(counts[i] * counts[j])
    return out


def channel_by_formula(model, nodes, features, a, s, item_graph):
    """z of one channel, users first, as lists of rows."""
    ids = rows_of(model.item_embedding)
    preference = rows_of(nodes.preference)
    items = []
    for own, row in zip(ids, features, strict=True):
        hidden = [max(x, 0.01 * x) for x in affine(row, nodes.first)]
        content = affine(hidden, nodes.second)
        items.append([math.sqrt((e * e + t * t) / 2 + 1e-8) for e, t in zip(own, content, strict=True)])
    ego = [unit(row) for row in preference + items]
    layer, total = ego, ego
    for _ in range(model.options.n_ui_layers):
        received = (a @ np.asarray(layer)).tolist()
        layer = [[dot(unit(y), unit(x)) * value for value in y] for y, x in zip(received, ego, strict=True)]
        total = [naive.plus(*rows) for rows in zip(total, layer, strict=True)]
    users, items = np.asarray(total[:N_USERS]), np.asarray(total[N_USERS:])
    similar = items
    for _ in range(model.options.n_mm_layers):
        similar = item_graph @ similar
    return (users + s @ users).tolist(), (items + similar).tolist()


def channels_by_formula(model, data, edges=None):
    users, items = edges or (data.train.users, data.train.items)
    a = single(naive.dense_normalized(naive.dense_adjacency(users, items, N_USERS, N_ITEMS)))
    lists = naive.co_user_lists(data.train.users.tolist(), data.train.items.tolist(), N_USERS, 40)
    s = single(naive.co_user_weights(lists, 40, int(model.user_graph.seed)))
    others = [m for m in model.modalities if m != "visual"]
    shares = {m: 0.1 if m == "visual" else 0.9 / len(others) for m in model.modalities}
    if len(model.modalities) == 1:
        shares = dict.fromkeys(model.modalities, 1.0)
    graph = single(sum(shares[m] * by_row_counts(neighbours(data, m)) for m in model.modalities))
    features = {m: data.features[m].astype(np.float64).tolist() for m in model.modalities}
    found = [channel_by_formula(model, model.id_nodes, rows_of(model.item_embedding), a, s, graph)]
    return found + [channel_by_formula(model, model.nodes[m], features[m], a, s, graph) for m in model.modalities]


def neighbours(data, modality, k=3):
    return naive.weighted_item_graph(data.features[modality].astype(np.float64).tolist(), k) != 0


@pytest.mark.parametrize("id_channel", ["fixed", "trained"])
@pytest.mark.parametrize(
    ("modalities", "n_ui_layers", "n_mm_layers"), [(BOTH, 2, 1), (["acoustic"], 1, 2), (ALL, 3, 0)], ids=str
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers, id_channel):
    data = toy_dataset(modalities)
    depths = {"n_ui_layers": n_ui_layers, "n_mm_layers": n_mm_layers}
    model = on_double(build("COHESION", data, reg_weight=0.3, id_channel=id_channel, **depths))
    model.user_graph.draw()
    channels = channels_by_formula(model, data)
    batch = one_batch(data, 12)
    terms_of = []
    for u, i, j in batch.T.tolist():
        gaps = [dot(users[u], items[i]) - dot(users[u], items[j]) for users, items in channels]
        weights = [1 - share for share in naive.softmax(gaps)]
        assert sum(weights) == pytest.approx(len(modalities))
        terms_of.append(-math.log2(naive.sigmoid(dot(weights, gaps))))
    penalty = 0.0
    for m in modalities:
        preference = rows_of(model.nodes[m].preference)
        penalty += naive.sum_of_squares([preference[u] for u in batch[0].tolist()]) / (12 * 8)
    terms = model.calculate_loss(batch)
    expected = {"bpr": sum(terms_of) / 12, "reg": 0.3 * penalty}
    # The graphs are float32, whose rounding of products and sums differs in the last digit.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-7)
    scores = [[sum(dot(x[u], y[i]) for x, y in channels) for i in range(N_ITEMS)] for u in range(N_USERS)]
    torch.testing.assert_close(all_scores(model), torch.tensor(scores, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_graph_of_some_interactions_in_training_and_of_all_in_evaluation():
    data = toy_dataset()
    model = on_double(build("COHESION", data, edge_dropout=0.4))
    full = channels_by_formula(model, data)
    torch.manual_seed(3)
    model.pre_epoch_processing()
    torch.manual_seed(3)
    torch.randint(2**63 - 1, ())  # the seed of the user graph comes first
    train = data.train
    draws = torch.empty(len(train), dtype=torch.float64).exponential_().tolist()
    odds = [
        (np.sum(train.users == u) * np.sum(train.items == i)) ** -0.5
        for u, i in zip(train.users, train.items, strict=True)
    ]
    kept = sorted(range(len(train)), key=lambda e: draws[e] / odds[e])[: int(len(train) * 0.6)]
    for training, edges in ((True, (train.users[kept], train.items[kept])), (False, None)):
        expected = channels_by_formula(model, data, edges)
        with torch.no_grad():
            found = model.train(training).modality_embeddings()
        for pair, rows in zip(found.values(), expected, strict=True):
            for one, other in zip(pair, rows, strict=True):
                torch.testing.assert_close(one, torch.tensor(other, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert full != channels_by_formula(model, data), "the user graph is another one"


def test_the_id_channel_is_constant_as_published_and_learns_if_asked():
    data = toy_dataset()
    fixed, trained = (build("COHESION", data, id_channel=word) for word in ("fixed", "trained"))
    names = {name for name, _ in trained.named_parameters()} - {name for name, _ in fixed.named_parameters()}
    own = {"id_nodes." + part for part in ("preference", "first.weight", "first.bias", "second.weight", "second.bias")}
    assert names == own
    assert own <= set(fixed.state_dict())
    users, items = fixed.modality_embeddings()["id"]
    assert not users.requires_grad
    assert not items.requires_grad
    gradients = []
    for model in (fixed, trained):
        sum(model.calculate_loss(one_batch(data)).values()).backward()
        gradients.append(model.item_embedding.grad)
    assert not torch.allclose(*gradients), "ids have a gradient through their own channel too"


def test_the_weights_of_channels_carry_no_gradient():
    data = toy_dataset()
    model = on_double(build("COHESION", data, reg_weight=0.0))
    batch = one_batch(data, 20)
    rows = [part.detach().requires_grad_() for part in model()]
    model.forward = lambda: rows
    model.calculate_loss(batch)["bpr"].backward()
    users, items = (part.detach().unflatten(1, (3, 8)) for part in rows)
    u, i, j = batch
    gaps = (users[u] * (items[i] - items[j])).sum(2)
    weights = 1 - gaps.softmax(1)
    slope = -torch.sigmoid(-(weights * gaps).sum(1)) / math.log(2) / len(u)  # of the loss by the weighed difference
    by_user = torch.zeros_like(users).index_add(
        0, u, slope[:, None, None] * weights[:, :, None] * (items[i] - items[j])
    )
    torch.testing.assert_close(rows[0].grad, by_user.flatten(1))
