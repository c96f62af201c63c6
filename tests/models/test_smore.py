"""SMORE's loss and scores from their formulas, node by node; spectra by the sums of their definition."""

import cmath
import math

import naive
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from naive import affine, dot, gate, plus, rows_of, times
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

from models.smore import largest_of_union

BATCH_SIZE = 64  # as the toys have it; the batches here are shorter


def dense(graph, size):
    """A sparse product's matrix, with the float32 entries that the source keeps."""
    return graph(torch.eye(size, dtype=torch.float64)).numpy()


def spectrum(row):
    """X_k = D^-1/2 sum_n x_n exp(-2 pi i k n / D) for k = 0 .. D/2."""
    size = len(row)
    return [
        sum(x * cmath.exp(-2j * cmath.pi * k * n / size) for n, x in enumerate(row)) / math.sqrt(size)
        for k in range(size // 2 + 1)
    ]


def signal(bins, size):
    """x_n = D^-1/2 sum over all D bins of X_k exp(2 pi i k n / D), X_{D-k} the conjugate of X_k; D even."""
    whole = [bins[0].real, *bins[1 : size // 2], bins[size // 2].real]
    whole += [value.conjugate() for value in reversed(bins[1 : size // 2])]
    sums = (sum(x * cmath.exp(2j * cmath.pi * k * n / size) for k, x in enumerate(whole)) for n in range(size))
    return [value.real / math.sqrt(size) for value in sums]


def views_by_formula(data, model, kept=None):
    """Behaviour view C and side view Z of all nodes, as lists of rows, users first.

    Args:
        kept: of view and node, the preference gates' factors; None: ones.
    """
    options, width = model.options, model.embedding_size
    names = [*model.modalities, "fused"]
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype("float32").astype("float64")
    ids = rows_of(model.item_embedding)
    behaviour = naive.mean_of_layers(a, rows_of(model.user_embedding) + ids, options.n_ui_layers)
    spectra = {
        name: [spectrum(affine(row, model.projections[name])) for row in rows_of(model.features(name))]
        for name in model.modalities
    }
    spectra["fused"] = [times(*of_item) for of_item in zip(*spectra.values(), strict=True)]
    content = {}
    for name in names:
        weights = [complex(real, imaginary) for real, imaginary in model.filters[name].tolist()[0]]
        filtered = [signal(times(bins, weights), width) for bins in spectra[name]]
        items = np.array([
            times(own, gate(row, model.gates[name])) for own, row in zip(ids, filtered, strict=True)
        ])  # fmt: skip
        for _ in range(options.n_mm_layers):
            items = dense(model.item_graphs[name], N_ITEMS) @ items
        content[name] = (a[:N_USERS, N_USERS:] @ items).tolist() + items.tolist()
    side = []
    for node, own in enumerate(behaviour):
        parts = []
        for name in names:
            view, preference = content[name][node], gate(own, model.preferences[name])
            if name != "fused":
                first, _, last = model.queries[name]
                hidden = [math.tanh(x) for x in affine(content["fused"][node], first)]
                view = times(naive.softmax(affine(hidden, last)), view)
            parts.append(times(preference, view, [1.0] * width if kept is None else kept[name, node]))
        side.append([x / len(names) for x in plus(*parts)])
    return behaviour, side


def loss_by_formula(model, batch, behaviour, side):
    options = model.options
    final = [plus(*pair) for pair in zip(behaviour, side, strict=True)]
    users, pos, neg = batch.tolist()
    rows = [final[u] for u in users], [final[N_USERS + i] for i in pos], [final[N_USERS + j] for j in neg]
    contrastive = sum(
        naive.one_way_info_nce([side[n] for n in kind], [behaviour[n] for n in kind], options.temperature)
        for kind in (users, [N_USERS + i for i in pos])
    )
    return {
        "bpr": naive.log_sigmoid_bpr([*map(dot, rows[0], rows[1])], [*map(dot, rows[0], rows[2])]),
        "reg": options.reg_weight * sum(map(naive.sum_of_squares, rows)) / 2 / BATCH_SIZE,
        "contrastive": options.cl_weight * contrastive,
    }


@pytest.mark.parametrize(
    ("modalities", "n_ui_layers", "n_mm_layers"),
    [(["visual", "textual"], 3, 1), (["visual", "acoustic"], 1, 2), (["acoustic"], 2, 1),
     (["visual", "acoustic", "textual"], 2, 0)],
    ids=str,
)  # fmt: skip
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers):
    data = toy_dataset(modalities)
    settings = {"reg_weight": 0.3, "cl_weight": 0.7, "temperature": 0.25, "gate_dropout": 0.0}
    model = on_double(build("SMORE", data, **settings, n_ui_layers=n_ui_layers, n_mm_layers=n_mm_layers))
    behaviour, side = views_by_formula(data, model)
    batch = one_batch(data, 40)
    assert len(batch[1].unique()) < 40, "an item is there twice, and counts twice"
    terms = model.train().calculate_loss(batch)
    expected = loss_by_formula(model, batch, behaviour, side)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    final = [plus(*pair) for pair in zip(behaviour, side, strict=True)]
    users, items = final[:N_USERS], final[N_USERS:]
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_dropout_falls_on_the_preference_gates_view_by_view():
    data = toy_dataset()
    model = on_double(build("SMORE", data, gate_dropout=0.4, reg_weight=0.3, cl_weight=0.7)).train()
    batch = one_batch(data, 40)
    torch.manual_seed(3)
    terms = model.calculate_loss(batch)
    nodes = torch.cat([batch[0], batch[1:].flatten() + N_USERS]).unique().tolist()
    torch.manual_seed(3)
    drawn = {name: torch.rand(len(nodes), 8) for name in ("visual", "textual", "fused")}
    kept = {(name, node): [0.0] * 8 for name in drawn for node in range(N_USERS + N_ITEMS)}
    for name, numbers in drawn.items():
        for node, row in zip(nodes, numbers.tolist(), strict=True):
            kept[name, node] = [(number >= 0.4) / 0.6 for number in row]
    expected = loss_by_formula(model, batch, *views_by_formula(data, model, kept))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


def test_the_depth_of_neighbours_is_set_for_images_and_for_the_rest():
    data = toy_dataset(["visual", "acoustic", "textual"])
    model = on_double(build("SMORE", data, image_knn_k=6, text_knn_k=2))
    for name, k in {"visual": 6, "acoustic": 2, "textual": 2}.items():
        expected = naive.weighted_item_graph(data.features[name].tolist(), k)
        assert dense(model.item_graphs[name], N_ITEMS) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("modalities", [["visual"], ["visual", "textual"], ["visual", "acoustic", "textual"]], ids=len)
def test_the_fused_graph_is_the_union_with_the_larger_weight(modalities):
    model = on_double(build("SMORE", toy_dataset(modalities)))
    graphs = [dense(model.item_graphs[name], N_ITEMS) for name in modalities]
    expected = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        for j in range(N_ITEMS):
            expected[i, j] = max((graph[i, j] for graph in graphs if graph[i, j]), default=0)
    assert np.array_equal(dense(model.item_graphs["fused"], N_ITEMS), expected)


def test_a_negative_weight_that_one_graph_alone_has_stays():
    one = sp.csr_matrix([[1.0, -0.5], [0.0, -0.25]])
    other = sp.csr_matrix([[2.0, 0.0], [0.0, -0.125]])
    assert largest_of_union([one, other]).toarray().tolist() == [[2.0, -0.5], [0.0, -0.125]]


def test_imaginary_parts_of_the_first_and_last_bin_do_not_act_and_all_others_do():
    data = toy_dataset()
    model = on_double(build("SMORE", data))
    loss = sum(model.calculate_loss(one_batch(data)).values())
    for gradient in torch.autograd.grad(loss, [*model.filters.values()]):
        assert gradient.shape == (1, 5, 2)
        acting = gradient[0].abs() > 1e-12
        assert acting.tolist() == [[True, False], [True, True], [True, True], [True, True], [True, False]]
