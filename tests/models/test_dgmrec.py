"""DGMRec's loss, scores and what it generates from their formulas, node by node."""

import copy
import itertools
import math

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, gate, one_way_info_nce, plus, rows_of, times
from toys import (
    BOTH,
    N_ITEMS,
    N_USERS,
    all_scores,
    build,
    make_config,
    on_double,
    one_batch,
    total,
    toy_dataset,
    train_loader,
)

from common.trainer import make_optimizer

ALL = ["visual", "acoustic", "textual"]
K = 6
SETTINGS = {
    "knn_k": K,
    "n_ui_layers": 2,
    "inter_weight": 0.7,
    "inter_temperature": 0.35,
    "intra_weight": 0.6,
    "intra_temperature": 0.25,
    "behaviour_weight": 0.5,
    "behaviour_temperature": 0.45,
    "club_weight": 0.4,
    "reconstruction_weight": 0.3,
    "generation_weight": 0.8,
    "reg_weight": 0.2,
    "content_reg_weight": 0.9,
}


def single(matrix):
    """The matrix with the float32 entries that the source keeps."""
    return np.asarray(matrix).astype(np.float32).astype(np.float64)


def lacking(modalities=BOTH):
    """A data set in which some items lack one modality and some lack two, the rows of the file full of rubbish."""
    data = toy_dataset(modalities)
    for place, m in enumerate(modalities[:2]):
        data.present[m] = ~np.isin(np.arange(N_ITEMS), [1, 5, 9 + place, 12 + place])
        data.features[m][~data.present[m]] = 99.0
    return data


def imputed_by_formula(data, imputation="mean"):
    out = {}
    for m, matrix in data.features.items():
        rows = matrix.astype(np.float64).copy()
        if m in data.present:
            own = rows[data.present[m]]
            rows[~data.present[m]] = own.sum(axis=0) / len(own) if imputation == "mean" else 0.0
        out[m] = single(rows).tolist()
    return out


def item_graph_by_formula(rows, k, present=None):
    """Cosines to the k nearest, then the edges of items that lack the modality cut, then normalised."""
    units = [naive.unit(row) for row in rows]
    kept = np.zeros((N_ITEMS, N_ITEMS))
    nearest = naive.weighted_item_graph(rows, k) != 0
    for i, j in zip(*nearest.nonzero(), strict=True):
        kept[i, j] = 1.0 if i == j else dot(units[i], units[j])
    if present is not None:
        kept[~present] = 0
        kept[:, ~present] = 0
        kept[~present, ~present] = 1
    return single(naive.dense_normalized(kept))


def sequential(rows, network):
    first, _, last = network
    return [affine([math.tanh(x) for x in affine(row, first)], last) for row in rows]


def noisy(rows, width=None):
    """x + 0.1 sign(x) noise / |noise| with the source's next draws."""
    drawn = torch.rand(len(rows), width or len(rows[0])).double().tolist() if rows else []
    out = []
    for row, noise in zip(rows, drawn, strict=True):
        length = math.sqrt(dot(noise, noise))
        out.append([x + 0.1 * float(np.sign(x)) * value / length for x, value in zip(row, noise, strict=True)])
    return out


class Reference:
    """Everything of all nodes, as lists of rows or arrays, users first."""

    def __init__(self, model, data, graphs):
        a = single(naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)))
        r = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)[:N_USERS, N_USERS:]
        m_u = single(r / np.maximum(r.sum(axis=1, keepdims=True), 1))
        m_i = single(r.T / np.maximum(r.T.sum(axis=1, keepdims=True), 1))
        n = model.options.n_mm_layers
        users = rows_of(model.user_embedding)
        self.ids = naive.mean_of_layers(a, users + rows_of(model.item_embedding), model.options.n_ui_layers)
        self.general, self.specific, self.g, self.s, self.q = {}, {}, {}, {}, {}
        for m in model.modalities:
            rows = rows_of(model.features(m))
            encoded = [[math.tanh(x) for x in affine(row, model.encoders[m])] for row in rows]
            self.g[m] = [gate(row, model.shared) for row in encoded]
            self.s[m] = [gate(row, model.specific_encoders[m]) for row in rows]
            filtered = [[math.tanh(x) for x in affine(row, model.filters[m])] for row in users]
            self.q[m] = (m_i @ np.array(filtered)).tolist()
            for kind, raw in ((self.general, self.g[m]), (self.specific, self.s[m])):
                items = np.array([times(*pair) for pair in zip(self.q[m], raw, strict=True)])
                items = np.linalg.matrix_power(graphs[m], n) @ items
                kind[m] = (m_u @ items).tolist() + items.tolist()
        count = len(model.modalities)
        self.joint = [plus(*rows) for rows in zip(*self.general.values(), strict=True)]  # G
        specific = [plus(*rows) for rows in zip(*self.specific.values(), strict=True)]
        self.final = [
            [c + (g / count + s) / (count + 1) for c, g, s in zip(*rows, strict=True)]
            for rows in zip(self.ids, self.joint, specific, strict=True)
        ]


def graphs_by_formula(data, features):
    return {m: item_graph_by_formula(features[m], K, data.present.get(m)) for m in data.features}


def club_by_formula(club, x, y, order):
    total = 0.0
    for i, row in enumerate(x):
        mean = affine([max(v, 0) for v in affine(row, club.mean[0])], club.mean[2])
        log = affine([max(v, 0) for v in affine(row, club.log_variance[0])], club.log_variance[2])
        for k, (mu, lv) in enumerate(zip(mean, log, strict=True)):
            total += ((y[order[i]][k] - mu) ** 2 - (y[i][k] - mu) ** 2) / math.exp(math.tanh(lv)) / 2
    return total / len(x)


def mean_square(one, other):
    gaps = [(x - y) ** 2 for rows in zip(one, other, strict=True) for x, y in zip(*rows, strict=True)]
    return sum(gaps) / len(gaps) if gaps else 0.0


def terms_by_formula(model, data, ref, batch):
    of_users, of_pos, of_neg = batch.tolist()
    pos_nodes = [N_USERS + i for i in of_pos]
    distinct = sorted({*of_pos, *of_neg})
    has = {m: data.present.get(m, np.ones(N_ITEMS, dtype=bool)) for m in model.modalities}
    complete = [i for i in distinct if all(has[m][i] for m in has)]

    def at(view, nodes):
        return [view[node] for node in nodes]

    rows = [at(ref.final, nodes) for nodes in (of_users, pos_nodes, [N_USERS + j for j in of_neg])]
    expected = {"bpr": naive.log_sigmoid_bpr([*map(dot, rows[0], rows[1])], [*map(dot, rows[0], rows[2])])}
    if len(has) > 1:
        inter = 0.0
        for a, b in itertools.combinations(has, 2):
            inter += one_way_info_nce(at(ref.g[a], complete), at(ref.g[b], complete), 0.35)
            inter += one_way_info_nce(at(ref.general[a], of_users), at(ref.general[b], of_users), 0.35)
        expected["inter"] = 0.7 * inter
    intra = one_way_info_nce(at(ref.ids, of_users), at(ref.ids, pos_nodes), 0.25)
    intra += one_way_info_nce(at(ref.joint, of_users), at(ref.joint, pos_nodes), 0.35)
    intra += sum(one_way_info_nce(at(view, of_users), at(view, pos_nodes), 0.25) for view in ref.specific.values())
    expected["intra"] = 0.6 * intra
    pairs = [(at(ref.ids, nodes), at(ref.joint, nodes)) for nodes in (pos_nodes, of_users)]
    expected["behaviour"] = 0.5 * sum(one_way_info_nce(*pair, 0.45) for pair in pairs)
    general, specific = ({m: v[N_USERS:] for m, v in kind.items()} for kind in (ref.general, ref.specific))
    orders = {m: torch.randperm(N_ITEMS).tolist() for m in has}
    expected["club"] = 0.4 * sum(club_by_formula(model.clubs[m], specific[m], general[m], orders[m]) for m in has)
    errors = 0.0
    for m in has:
        inputs = noisy([g + s for g, s in zip(general[m], specific[m], strict=True)])
        errors += mean_square([affine(row, model.decoders[m]) for row in inputs], rows_of(model.features(m)))
    expected["reconstruction"] = 0.3 * errors
    if data.present and len(has) > 1:
        errors = 0.0
        for m in has:
            own = [i for i in distinct if has[m][i]]
            errors += mean_square(at(ref.s[m], own), sequential(noisy(at(ref.q[m], own)), model.generators[m]))
            parts = [noisy(at(general[other], complete)) for other in has if other != m]
            others = [list(itertools.chain(*rows)) for rows in zip(*parts, strict=True)]
            errors += mean_square(at(general[m], complete), sequential(others, model.translators[m]))
        expected["generation"] = 0.8 * errors
    norm = 0.2 * naive.frobenius_over_batch(
        *(at(ref.ids, n) for n in (of_users, pos_nodes, [N_USERS + j for j in of_neg]))
    )
    for m in has:
        content = [
            plus(*pair) for pair in zip(at(ref.general[m], pos_nodes), at(ref.specific[m], pos_nodes), strict=True)
        ]
        norm += 0.9 * naive.frobenius_over_batch(content)
    return expected | {"reg": norm}


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize(
    ("modalities", "n_mm_layers"), [(["visual", "textual"], 1), (["acoustic"], 2), (ALL, 2), (["visual"], 0)], ids=str
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_mm_layers, missing):
    data = lacking(modalities) if missing else toy_dataset(modalities)
    model = on_double(build("DGMRec", data, n_mm_layers=n_mm_layers, **SETTINGS))
    features = imputed_by_formula(data)
    for m in modalities:
        torch.testing.assert_close(model.features(m).detach(), torch.tensor(features[m]).double(), rtol=1e-6, atol=1e-6)
    ref = Reference(model, data, graphs_by_formula(data, features))
    batch = one_batch(data, 30)
    torch.manual_seed(4)
    expected = terms_by_formula(model, data, ref, batch)
    torch.manual_seed(4)
    terms = model.calculate_loss(batch)
    # Cosines are computed in single precision by the source.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5, abs=1e-7)
    users, items = ref.final[:N_USERS], ref.final[N_USERS:]
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
def test_features_are_generated_for_items_that_lack_one_modality_alone(trained):
    data = lacking(ALL)
    model = on_double(build("DGMRec", data, train_features=trained, **SETTINGS | {"club_weight": 0.0}))
    before = {m: rows_of(model.features(m)) for m in ALL}
    graphs = graphs_by_formula(data, imputed_by_formula(data))
    ref = Reference(model, data, graphs)
    expected = {}
    torch.manual_seed(7)
    for m in ALL:
        others = [list(itertools.chain(*rows)) for rows in zip(*(ref.g[o] for o in ALL if o != m), strict=True)]
        power = np.linalg.matrix_power(graphs[m], model.options.n_mm_layers)
        general = (power @ np.array(sequential(others, model.translators[m]))).tolist()
        specific = (power @ np.array(sequential(ref.q[m], model.generators[m]))).tolist()
        missing = [i for i in range(N_ITEMS) if [o for o in ALL if not data.present.get(o, [True] * N_ITEMS)[i]] == [m]]
        rows = noisy([general[i] + specific[i] for i in missing], 16)
        expected[m] = dict(zip(missing, ([*affine(row, model.decoders[m])] for row in rows), strict=True))
    assert [sorted(rows) for rows in expected.values()] == [[9, 12], [10, 13], []]
    torch.manual_seed(7)
    model.train().pre_epoch_processing()
    for m in ALL:
        found = rows_of(model.features(m))
        for i in range(N_ITEMS):
            wanted = expected[m].get(i, before[m][i])
            assert found[i] == pytest.approx(wanted, rel=1e-5), (m, i)
    other = on_double(build("DGMRec", data, seed=5, train_features=trained, **SETTINGS | {"club_weight": 0.0}))
    other.load_state_dict(model.state_dict())
    assert torch.equal(all_scores(other), all_scores(model)), "what is generated is part of the state"


def test_item_graphs_are_blended_after_every_fifth_epoch():
    data = lacking()
    model = build("DGMRec", data, graph_blend=0.3, **SETTINGS)
    first = {m: model.item_graphs[m](torch.eye(N_ITEMS)).clone() for m in BOTH}
    for epoch in range(1, 7):
        model.pre_epoch_processing()
        found = {m: model.item_graphs[m](torch.eye(N_ITEMS)) for m in BOTH}
        same = [torch.equal(found[m], first[m]) for m in BOTH]
        assert all(same) if epoch < 6 else not any(same), epoch
    for m in BOTH:
        rebuilt = item_graph_by_formula(rows_of(model.features(m)), K)
        rows = ~data.present[m]
        expected = first[m].numpy().copy()
        expected[rows] = 0.3 * rebuilt[rows] + 0.7 * expected[rows]
        np.testing.assert_allclose(found[m].numpy(), expected, rtol=1e-4, atol=1e-6)
    again = build("DGMRec", data, graph_blend=0.3, seed=5, **SETTINGS)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    again.load_state_dict(state)
    assert torch.equal(all_scores(again), all_scores(model))
    never = build("DGMRec", data, graph_blend=0.0, **SETTINGS)
    for _ in range(6):
        never.pre_epoch_processing()
    assert torch.equal(never.item_graphs["visual"](torch.eye(N_ITEMS)), first["visual"])


def test_evaluation_may_use_the_graphs_of_the_beginning():
    data = lacking()
    scores = {}
    for word in ("refreshed", "initial"):
        model = build("DGMRec", data, graph_blend=0.9, inference_graphs=word, **SETTINGS)
        for _ in range(6):
            model.pre_epoch_processing()
        scores[word] = all_scores(model)
        with torch.no_grad():
            users, items = model.train()()
        same = torch.allclose(users @ items.T, scores[word], rtol=1e-5)
        assert same == (word == "refreshed"), "training has the refreshed graphs"
    assert not torch.allclose(scores["refreshed"], scores["initial"])


def test_complete_data_has_no_generation_and_nothing_changes_between_epochs():
    data = toy_dataset()
    model = build("DGMRec", data, **SETTINGS | {"club_weight": 0.0})
    names = {name.split(".")[0] for name in model.state_dict()}
    assert not names & {"generators", "translators", "clubs", "epochs_begun", "item_graphs"}
    assert "generation" not in model.calculate_loss(one_batch(data))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(7):
        model.pre_epoch_processing()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_run_taken_up_again_goes_on_as_it_would_have():
    data = lacking()

    def epochs(model, optimizer, loader, count):
        for _ in range(count):
            model.train().pre_epoch_processing()
            for batch in loader.epoch():
                loss = total(model.calculate_loss(batch))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return loss.item()

    def parts(seed):
        model = build("DGMRec", data, seed=seed, **SETTINGS)
        return model, make_optimizer(make_config("BPR"), model), train_loader(data)

    model, optimizer, loader = parts(1)
    epochs(model, optimizer, loader, 4)
    again, other_optimizer, other_loader = parts(2)
    again.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other_loader.generator.set_state(loader.generator.get_state())
    state = torch.get_rng_state()
    expected = epochs(model, optimizer, loader, 3)  # a refreshment of the graphs is among them
    torch.set_rng_state(state)
    assert epochs(again, other_optimizer, other_loader, 3) == expected
    assert torch.equal(all_scores(again), all_scores(model))
