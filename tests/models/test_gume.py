"""GUME's graphs, loss and scores from their formulas, node by node."""

import itertools
import math

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, gate, plus, rows_of, times
from toys import BOTH, N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

BATCH_SIZE = 64  # as the toys have it; the batches here are shorter
ALL = ["visual", "acoustic", "textual"]
WEIGHTS = {
    "reg_weight": 0.3,
    "extended_reg_weight": 0.2,
    "behaviour_weight": 0.7,
    "behaviour_temperature": 0.25,
    "user_weight": 0.6,
    "user_temperature": 0.35,
    "moment_weight": 0.5,
}


def single(matrix):
    """The matrix with the float32 entries that the source keeps."""
    return np.asarray(matrix).astype(np.float32).astype(np.float64)


def lists_of(data, modality, k):
    kept = naive.weighted_item_graph(data.features[modality].astype(np.float64).tolist(), k) != 0
    return [set(row.nonzero()[0].tolist()) for row in kept]


def enhanced_by_formula(data, modalities, k):
    a = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)
    lists = [lists_of(data, m, k) for m in modalities]
    for i in range(N_ITEMS):
        for j in set.intersection(*(found[i] for found in lists)) - {i}:
            a[N_USERS + i, N_USERS + j] = 1
    out = np.zeros_like(a)
    sums = a.sum(axis=1)
    for i, j in zip(*a.nonzero(), strict=True):
        out[i, j] = a[i, j] / math.sqrt(sums[i] * sums[j])
    return out


def views_by_formula(data, model, k):
    """C, H and Y of all nodes as lists of rows, users first, and X_m by modality."""
    options = model.options
    a = single(enhanced_by_formula(data, model.modalities, k))
    ids = rows_of(model.item_embedding)
    behaviour = naive.mean_of_layers(a, rows_of(model.user_embedding) + ids, options.n_ui_layers)
    content, interests = {}, []
    for name in model.modalities:
        graph = single(naive.weighted_item_graph(data.features[name].astype(np.float64).tolist(), k))
        projected = [affine(row, model.projections[name]) for row in rows_of(model.features(name))]
        items = np.array([times(own, gate(row, model.gates[name])) for own, row in zip(ids, projected, strict=True)])
        for _ in range(options.n_mm_layers):
            items = graph @ items
        content[name] = (a[:N_USERS, N_USERS:] @ items).tolist() + items.tolist()
        extended = rows_of(model.extended[name]) + items.tolist()
        interests.append(naive.mean_of_layers(a, extended, options.n_ui_layers))  # one propagation a modality
    interest = np.mean(interests, axis=0).tolist()
    side = []
    for node, own in enumerate(behaviour):
        views = [rows[node] for rows in content.values()]
        if len(views) == 1:
            side.append([value / 2 for value in views[0]])
            continue
        first, _, last = model.query
        shares = naive.softmax([affine([math.tanh(x) for x in affine(view, first)], last)[0] for view in views])
        coarse = plus(*([share * x for x in view] for share, view in zip(shares, views, strict=True)))
        fine = [
            times(gate(own, model.preferences[name]), [x - y for x, y in zip(view, coarse, strict=True)])
            for name, view in zip(content, views, strict=True)
        ]
        side.append([x / (len(views) + 1) for x in plus(coarse, *fine)])
    return behaviour, side, interest, content


def noisy(rows, noise):
    """x + 0.1 sign(x) noise / |noise|, row by row."""
    out = []
    for row, drawn in zip(rows, noise, strict=True):
        length = math.sqrt(dot(drawn, drawn))
        out.append([x + 0.1 * np.sign(x) * value / length for x, value in zip(row, drawn, strict=True)])
    return out


@pytest.mark.parametrize(
    ("modalities", "n_ui_layers", "n_mm_layers"), [(list(BOTH), 3, 1), (["acoustic"], 2, 2), (ALL, 1, 0)], ids=str
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers):
    data, k = toy_dataset(modalities), 9
    settings = WEIGHTS | {"n_ui_layers": n_ui_layers, "n_mm_layers": n_mm_layers, "knn_k": k}
    model = on_double(build("GUME", data, **settings))
    behaviour, side, interest, content = views_by_formula(data, model, k)
    final = [plus(*pair) for pair in zip(behaviour, side, strict=True)]
    users, items = final[:N_USERS], final[N_USERS:]
    batch = one_batch(data, 40)
    of_users, of_pos, of_neg = batch.tolist()
    assert len(set(of_users)) < 40, "a user is there twice, with one noise, and counts twice"
    rows = [users[u] for u in of_users], [items[i] for i in of_pos], [items[j] for j in of_neg]
    nodes = [of_users, [N_USERS + i for i in of_pos]]
    distinct = sorted(set(of_users))
    torch.manual_seed(4)
    noises = [torch.rand(len(distinct), 8).double().tolist() for _ in range(4)]
    contrasts = [([interest[u] for u in of_users], [side[u] for u in of_users])]
    for view, pair in ((side, noises[:2]), (interest, noises[2:])):
        copies = [dict(zip(distinct, noisy([view[u] for u in distinct], noise), strict=True)) for noise in pair]
        contrasts.append(tuple([copy[u] for u in of_users] for copy in copies))
    expected = {
        "bpr": naive.log_sigmoid_bpr([*map(dot, rows[0], rows[1])], [*map(dot, rows[0], rows[2])]),
        "reg": 0.3 * sum(map(naive.sum_of_squares, rows)) / 2 / BATCH_SIZE,
        "extended_reg": 0.2 * naive.sum_of_squares([interest[n] for n in nodes[1]]) / 2 / BATCH_SIZE,
        "behaviour": 0.7
        * sum(naive.one_way_info_nce([side[n] for n in kind], [behaviour[n] for n in kind], 0.25) for kind in nodes),
        "user": 0.6 * sum(naive.one_way_info_nce(one, other, 0.35) for one, other in contrasts),
    }
    if len(modalities) > 1:
        moments = [(np.var(rows, ddof=1), np.mean(rows)) for rows in content.values()]
        gaps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.combinations(moments, 2)]
        expected["moments"] = 0.5 * sum(gaps) / len(gaps)
    torch.manual_seed(4)
    terms = model.calculate_loss(batch)
    # The graphs are float32, and equal cosines of single and double precision differ in the last digit.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-5, atol=1e-6)


def test_the_enhanced_graph_joins_common_neighbours_and_is_not_symmetric():
    data = toy_dataset()
    model = build("GUME", data, knn_k=9)
    found = model.graph(torch.eye(N_USERS + N_ITEMS)).numpy()
    np.testing.assert_allclose(found, enhanced_by_formula(data, BOTH, 9), rtol=1e-5)
    between_items = found[N_USERS:, N_USERS:]
    assert 0 < (between_items > 0).sum() < 8 * N_ITEMS
    assert not np.array_equal(between_items, between_items.T)
    assert not between_items.diagonal().any()
    np.testing.assert_allclose(model.interactions(torch.eye(N_ITEMS)).numpy(), found[:N_USERS, N_USERS:])


def test_an_item_that_lacks_a_modality_is_nobody_s_neighbour_whatever_its_row_holds():
    data = toy_dataset()
    data.present["visual"] = np.arange(N_ITEMS) != 4
    model = build("GUME", data, knn_k=9)
    semantic = model.graph(torch.eye(N_USERS + N_ITEMS))[N_USERS:, N_USERS:]
    assert semantic.any()
    assert not semantic[4].any()
    assert not semantic[:, 4].any()
    assert not model.features("visual")[4].any()


def test_the_extended_interest_is_in_no_score():
    data = toy_dataset()
    model = build("GUME", data)
    before = all_scores(model)
    with torch.no_grad():
        for table in model.extended.values():
            table.add_(1)
    assert torch.equal(all_scores(model), before)


def test_modality_embeddings_are_the_views():
    model = build("GUME", toy_dataset()).eval()
    given = model.modality_embeddings()
    assert list(given) == ["id", "visual", "textual"]
    behaviour, *content = (torch.cat(pair) for pair in given.values())
    torch.testing.assert_close(behaviour + model.fuse(behaviour, content), torch.cat(model()))
