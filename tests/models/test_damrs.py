"""DAMRS's loss, scores and graphs from their formulas, one pair at a time."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, plus, rows_of, sigmoid, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

from common.behaviour_graph import behaviour_item_graph
from models import damrs

GRADE = 4  # items of a grade here: of 23 items ten would be too many to tell apart


def dense(graph):
    return graph(torch.eye(N_ITEMS, dtype=torch.float64)).numpy()


def content_graphs_by_formula(features, k):
    """Pairs at least as similar as the mean pair in every modality, the k best of each row and modality."""
    cosines = [[[dot(unit(a), unit(b)) for b in rows] for a in rows] for rows in features]
    n = len(features[0])
    least = [sum(map(sum, matrix)) / n**2 for matrix in cosines]
    graphs = []
    for matrix in cosines:
        kept = np.zeros((n, n))
        for i in range(n):
            pairs = [j for j in range(n) if j == i or all(m[i][j] >= t for m, t in zip(cosines, least, strict=True))]
            for j in sorted(pairs, key=lambda j: (j != i, -matrix[i][j], j))[:k]:
                kept[i, j] = 1
        graphs.append(naive.dense_normalized(kept))
    return graphs


def relations_by_formula(views, items):
    """The mean over views and items, row by row."""
    units = [[unit(row) for row in view] for view in views]
    losses = []
    for item in items:
        cosines = [[dot(view[item], other) for other in view] for view in units]
        shares = [naive.softmax(row) for row in cosines]
        for m, row in enumerate(cosines):
            score = plus(*shares, shares[m])
            near = sorted(range(len(row)), key=lambda j: -score[j])[:GRADE]
            others = [j for j in sorted(range(len(row)), key=lambda j: -row[j]) if j not in near]
            strength = [math.exp(x / 0.2) for x in row]
            everything, first = sum(strength), sum(strength[j] for j in near)
            second = sum(strength[j] for j in others[:GRADE])
            losses.append(-math.log(first / everything + 1e-9) - math.log(second / (everything - first) + 1e-9))
    return sum(losses) / len(losses)


def views_by_formula(data, model):
    options = model.options
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    ids = rows_of(model.item_embedding)
    ego = rows_of(model.user_embedding) + ids
    nodes = naive.mean_of_layers(a.astype("float32").astype("float64"), ego, options.n_ui_layers)
    views = []
    for graph in model.item_graphs.values():
        items = np.array(ids)
        for _ in range(options.n_mm_layers):
            items = dense(graph) @ items
        views.append(items.tolist())
    content = [[x / len(views) for x in plus(*rows)] for rows in zip(*views, strict=True)]
    return nodes[:N_USERS], nodes[N_USERS:], views, content


def weights_by_formula(liked, noise):
    mean = sum(liked) / len(liked)
    variance = sum((x - mean) ** 2 for x in liked) / (len(liked) - 1)
    positive = min(max(mean * math.exp(-variance) ** 2, 0), 1)
    return positive, min(max(max(liked) - noise, 0), 1) if mean < noise else 0


@pytest.mark.parametrize(
    ("modalities", "n_mm_layers"),
    [(["visual", "textual"], 1), (["acoustic"], 1), (["visual", "acoustic", "textual"], 2)],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_mm_layers, monkeypatch):
    monkeypatch.setattr(damrs, "RELATED", GRADE)
    monkeypatch.setattr(damrs, "ENTRIES", 5 * N_ITEMS)  # several blocks
    data = toy_dataset(modalities)
    words = {"n_mm_layers": n_mm_layers, "knn_k": 4, "kl_weight": 0.7, "neighbor_weight": 0.3}
    model = on_double(build("DAMRS", data, **words))
    with torch.no_grad():  # larger rows, so that agreement varies and feedback is doubted
        model.user_embedding *= 6
        model.item_embedding *= 6
    users, ids, views, content = views_by_formula(data, model)
    items = [plus(*pair) for pair in zip(ids, content, strict=True)]
    of_users, of_pos, of_neg = (batch := one_batch(data, 40)).tolist()
    agreed = [
        [[sigmoid(dot(users[u], unit(view[i]))) for view in views] for u, i in zip(of_users, kind, strict=True)]
        for kind in (of_pos, of_neg)
    ]
    noise = sum(map(sum, agreed[1])) / (len(views) * len(of_users))
    weights = [weights_by_formula(row, noise) for row in agreed[0]]
    assert any(negative for _, negative in weights), "some feedback is doubted"
    gaps = [dot(users[u], items[i]) - dot(users[u], items[j]) for u, i, j in batch.T.tolist()]
    bpr = [-p * math.log(sigmoid(x)) - q * math.log(sigmoid(-x)) for (p, q), x in zip(weights, gaps, strict=True)]
    some_items, some_users = sorted({*of_pos, *of_neg}), sorted(set(of_users))
    divergences = []
    for u in some_users:
        for i in some_items:
            p, q = (sigmoid(dot(users[u], unit(table[i]))) for table in (ids, content))
            forth = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
            divergences.append(forth + q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))
    expected = {
        "bpr": sum(bpr) / len(bpr),
        "relations": 0.3 * relations_by_formula(views, some_items),
        "preferences": 0.7 * sum(divergences) / len(divergences),
    }
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


@pytest.mark.parametrize("k", [3, 6, N_ITEMS + 5])
@pytest.mark.parametrize("modalities", [["acoustic"], ["visual", "textual"]], ids=str)
def test_item_graphs_hold_pairs_that_are_similar_in_every_modality(modalities, k, monkeypatch):
    monkeypatch.setattr(damrs, "BLOCK_ENTRIES", 4 * N_ITEMS)  # several blocks
    data = toy_dataset(modalities)
    model = build("DAMRS", data, knn_k=k).double()
    expected = content_graphs_by_formula([data.features[m].tolist() for m in modalities], k)
    for name, graph in zip(modalities, expected, strict=True):
        assert dense(model.item_graphs[name]) == pytest.approx(graph, rel=1e-6, abs=1e-9)
        assert dense(model.item_graphs[name])[-1, -1] == 1, "an item without features has itself"
    if len(modalities) > 1:
        same = np.array_equal(*(graph > 0 for graph in expected))
        assert same == (k > N_ITEMS), "each modality ranks the pairs by itself; there is no other difference"
    behaviour = behaviour_item_graph(data, 2).toarray()
    assert dense(model.item_graphs["behaviour"]) == pytest.approx(behaviour, rel=1e-6)


def relations_by_autograd(views, items):
    """The formula on whole matrices, for its gradient."""
    units = [torch.nn.functional.normalize(view, dim=1) for view in views]
    cosines = [unit[items] @ unit.T for unit in units]
    shares = [cosine.softmax(dim=1) for cosine in cosines]
    losses = []
    for cosine, share in zip(cosines, shares, strict=True):
        strength = (5 * cosine).exp()
        near = torch.zeros_like(cosine).scatter(1, (sum(shares) + share).topk(damrs.RELATED, dim=1).indices, 1.0)
        others = torch.zeros_like(cosine).scatter(1, (cosine - 9 * near).topk(damrs.RELATED, dim=1).indices, 1.0)
        everything, first, second = strength.sum(1), (strength * near).sum(1), (strength * others).sum(1)
        losses.append(-(first / everything + 1e-9).log() - (second / (everything - first) + 1e-9).log())
    return torch.stack(losses).mean()


def test_the_gradient_of_the_relations_is_that_of_the_formula(monkeypatch):
    n = 700  # enough for groups to be searched
    monkeypatch.setattr(damrs, "ENTRIES", 3 * n)  # several blocks
    torch.manual_seed(4)
    views = [torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    items = torch.randperm(n)[:8]
    found, expected = damrs.graded_relations(views, items), relations_by_autograd(views, items)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(2 * loss, views) for loss in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n", [5, 639, 640, 671, 2000])
def test_the_largest_columns_are_found_in_groups(n):
    values = torch.rand(9, n, generator=torch.Generator().manual_seed(n))
    count = min(10, n // 2)
    assert torch.equal(damrs.largest(values, count), values.topk(count, dim=1).indices)


def test_the_relations_loss_reaches_all_items_and_no_gradient_flows_through_weights():
    data = toy_dataset()
    model = on_double(build("DAMRS", data))
    views = [torch.randn(N_ITEMS, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    loss = damrs.graded_relations(views, torch.tensor([3, 5]))
    assert all(gradient[0].abs().max() > 0 for gradient in torch.autograd.grad(loss, views))
    liked = torch.rand(3, 7, requires_grad=True)
    assert damrs.feedback_weights(liked, liked)[0].requires_grad, "they could"
    terms = model.calculate_loss(one_batch(data))
    assert terms["bpr"].requires_grad


@pytest.mark.parametrize(("key", "term"), [("kl_weight", "preferences"), ("neighbor_weight", "relations")])
def test_a_weight_of_zero_leaves_its_term_out(key, term):
    data = toy_dataset()
    terms = build("DAMRS", data, **{key: 0.0}).calculate_loss(one_batch(data))
    assert term not in terms
    assert len(terms) == 2


def test_large_products_do_not_overflow():
    data = toy_dataset()
    model = build("DAMRS", data)
    with torch.no_grad():
        model.user_embedding *= 1e4
    assert all(torch.isfinite(term) for term in model.calculate_loss(one_batch(data)).values())
