"""DRAGON's loss and scores from their formulas, on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from cli_tools import N_USERS as CLI_USERS
from cli_tools import metrics_of, places, run_here, toy_rows, trained, write_dataset
from naive import dot, rows_of, sigmoid
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

from common.trainer import loss_terms


def image_and_text_weights(modalities, alpha):
    """Weight of each modality's item graph."""
    others = [m for m in modalities if m != "visual"]
    if len(modalities) == 1 or len(others) == len(modalities):
        return {m: 1 / len(modalities) for m in modalities}
    return {m: alpha if m == "visual" else (1 - alpha) / len(others) for m in modalities}


def item_graph(data, modalities, k, alpha):
    """sum_m w_m M_m with 1/k at the k most similar items of each, itself among them; only itself without features."""
    weights = image_and_text_weights(modalities, alpha)
    m = np.zeros((N_ITEMS, N_ITEMS))
    for modality in modalities:
        rows = data.features[modality].astype(np.float64).tolist()
        units = [naive.unit(row) for row in rows]
        for i in range(N_ITEMS):
            others = [j for j in range(N_ITEMS) if j != i and any(rows[i]) and any(rows[j])]
            near = [i, *sorted(others, key=lambda j, i=i: -dot(units[i], units[j]))[: k - 1]]
            for j in near:
                m[i, j] += weights[modality] / len(near)  # rows of a graph of k-s: r^-1/2 r^-1/2 = 1/k
    # The item without features counts 1 where the others count k, but is nobody's neighbour.
    return m.astype(np.float32).astype(np.float64)


def expected_embeddings(model, data, k=3, alpha=0.1, hops=1):
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype(np.float32).astype(np.float64)
    seed = int(model.user_graph.seed)
    lists = naive.co_user_lists(data.train.users.tolist(), data.train.items.tolist(), N_USERS, 40)
    s = naive.co_user_weights(lists, 40, seed).astype(np.float32).astype(np.float64)
    users, items = np.zeros((N_USERS, 0)), np.zeros((N_ITEMS, 0))
    for number, modality in enumerate(model.modalities):
        features = data.features[modality].astype(np.float64).tolist()
        x = np.array(naive.preferences_and_content(model.nodes[modality], features))
        z = x + a @ x + a @ (a @ x)
        weight = np.ones(N_USERS)
        if len(model.modalities) > 1:
            weight = np.array([row[number] for row in rows_of(model.modality_weights)])
        users = np.concatenate([users, weight[:, None] * z[:N_USERS]], axis=1)
        items = np.concatenate([items, z[N_USERS:]], axis=1)
    m = np.linalg.matrix_power(item_graph(data, model.modalities, k, alpha), hops)
    return (users + s @ users).tolist(), (items + m @ items).tolist()


@pytest.mark.parametrize(
    ("modalities", "hops"), [(["visual"], 1), (["visual", "textual"], 1), (["visual", "textual"], 2), (list(WIDTHS), 1)]
)
def test_loss_and_scores_are_those_of_the_specification(modalities, hops):
    data = toy_dataset(modalities)
    model = on_double(build("DRAGON", data, reg_weight=0.3, n_mm_layers=hops, mm_image_weight=0.3))
    model.user_graph.draw()
    users, items = expected_embeddings(model, data, alpha=0.3, hops=hops)
    batch = one_batch(data, 12)
    differences = [dot(users[u], items[i]) - dot(users[u], items[j]) for u, i, j in batch.T.tolist()]
    penalty = 0.0
    for modality in modalities:
        preference = rows_of(model.nodes[modality].preference)
        gathered = [value for u in batch[0].tolist() for value in preference[u]]
        penalty += sum(value**2 for value in gathered) / len(gathered)
    if len(modalities) > 1:
        weights = [value for row in rows_of(model.modality_weights) for value in row]
        penalty += sum(value**2 for value in weights) / len(weights)
    expected = {"bpr": sum(-math.log2(sigmoid(x)) for x in differences) / 12, "reg": 0.3 * penalty}
    terms = model.calculate_loss(batch)
    # The graphs are float32, whose rounding of products and sums differs in the last digit.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-7)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-6, atol=1e-6)


def test_parameters_are_those_of_the_specification():
    model = build("DRAGON", toy_dataset())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected = {"modality_weights": (31, 2)}
    for modality in ("visual", "textual"):
        expected |= {
            f"nodes.{modality}.preference": (31, 8),
            f"nodes.{modality}.first.weight": (256, WIDTHS[modality]),
            f"nodes.{modality}.first.bias": (256,),
            f"nodes.{modality}.second.weight": (8, 256),
            f"nodes.{modality}.second.bias": (8,),
        }
    assert shapes == expected
    assert set(model.state_dict()) == {*expected, "user_graph.seed"}
    torch.testing.assert_close(model.modality_weights.sum(1), torch.ones(31))
    assert 0 < (model.modality_weights - 0.5).abs().max() < 0.5
    model = build("DRAGON", toy_dataset(["visual"]))
    assert model.modality_weights is None
    assert len(list(model.parameters())) == 5


def test_weights_start_as_the_specification_says():
    data = toy_dataset()
    nodes = build("DRAGON", data, embedding_size=64).nodes["visual"]
    assert nodes.preference.std().item() == pytest.approx(math.sqrt(2 / (31 + 64)), rel=0.1)
    for layer, fan_in in ((nodes.first, WIDTHS["visual"]), (nodes.second, 256)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert 0.8 * bound < layer.bias.abs().max() <= bound


def test_raw_features_are_trained_only_if_asked_for():
    data = toy_dataset()
    model = build("DRAGON", data)
    assert not model.features("visual").requires_grad
    model = build("DRAGON", data, train_features=True)
    total(loss_terms(model.calculate_loss(one_batch(data)))).backward()
    for modality in ("visual", "textual"):
        assert model.features(modality).grad.abs().max() > 0
    assert torch.equal(build("DRAGON", data).item_graph.weights, model.item_graph.weights)


def test_the_user_graph_is_another_one_in_each_epoch():
    model = build("DRAGON", toy_dataset())
    before = all_scores(model)
    model.pre_epoch_processing()
    assert not torch.equal(all_scores(model), before)


def test_published_keys_are_read():
    data = toy_dataset()
    options = build("DRAGON", data, aggr_mode="add", user_graph_dict_file="x.npz").options
    assert options.user_graph_file == "x.npz"


# A user graph of one's own, through the whole program


@pytest.fixture
def world(tmp_path):
    write_dataset(tmp_path / "data" / "toy")
    return tmp_path


COMMAND = ("-m", "DRAGON", "-d", "toy", "--epochs", "2", "--quiet", "--embedding_size", "8", "--topk", "5", "20")


def save_graph(world, labels, user_change=0):
    """MMRec's dictionary of interactions with these labels, as its preprocessing saves it."""
    items = [{i for u, i, label in toy_rows() if u == user and label in labels} for user in range(CLI_USERS)]
    lists = {}
    for user, mine in enumerate(items):
        shared = [(other, len(mine & theirs)) for other, theirs in enumerate(items) if other != user and mine & theirs]
        shared.sort(key=lambda pair: (-pair[1], pair[0]))
        lists[user] = [[other for other, _ in shared], [float(count) for _, count in shared]]
    np.save(world / "data" / "toy" / "user_graph_dict.npy", lists, allow_pickle=True)
    assert run_here("convert_user_graph", world / "data/toy/user_graph_dict.npy", world / "data/toy/g.npz").code == 0


def test_the_graph_that_would_be_computed_gives_the_same_run_from_a_file(world):
    save_graph(world, labels=[0])
    computed = trained(*COMMAND, *places(world))
    given = trained(*COMMAND, *places(world), "--user_graph_file", "g.npz")
    assert computed.folders[0] != given.folders[0]
    assert metrics_of(computed.folders[0]) == metrics_of(given.folders[0])


def test_a_leaked_graph_stops_the_run_before_it_begins(world):
    save_graph(world, labels=[0, 2])
    outcome = run_here(*COMMAND, *places(world), "--user_graph_file", "g.npz")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert "user pairs share more training items than the training split has" in line
    assert "test interactions leaked into the graph" in line
    assert not (world / "runs").exists()


def test_a_pickled_graph_is_not_read(world):
    save_graph(world, labels=[0])
    outcome = run_here(*COMMAND, *places(world), "--user_graph_dict_file", "user_graph_dict.npy")
    assert outcome.code == 2
    assert "convert_user_graph" in outcome.err


def test_a_model_without_a_user_graph_reads_none(world):
    save_graph(world, labels=[0, 2])
    words = [word if word != "DRAGON" else "LightGCN" for word in COMMAND]
    outcome = run_here(*words, *places(world), "--user_graph_dict_file", "g.npz")
    assert "user_graph_dict_file is a key of MMRec that is not offered here (a pickled user graph;" in outcome.err
