"""PGL's loss, scores and both sub-graphs from their formulas, on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of
from toys import (
    N_ITEMS,
    N_USERS,
    WIDTHS,
    all_scores,
    build,
    on_double,
    one_batch,
    relabelled,
    saved_by,
    total,
    toy_dataset,
)

from models.pgl import KEPT_SHARE, SMALLEST, principal_graph
from utils.errors import UserError

K = 3


def in_float32(matrix):
    """As the source keeps graphs, and so must what it is compared with."""
    return matrix.astype(np.float32).astype(np.float64)


def neighbours(features, k):
    """Binary rows of the k largest cosines, the item itself among them, each over k; a row of zeros has itself alone."""
    n, lengths = len(features), [math.sqrt(dot(row, row)) for row in features]
    out = np.zeros((n, n))
    for i in range(n):
        found = {
            j: dot(features[i], features[j]) / (lengths[i] * lengths[j]) for j in range(n) if lengths[i] and lengths[j]
        }
        others = sorted((j for j in found if j != i), key=lambda j: -found[j])
        for j in [i, *others][:k]:
            out[i, j] = 1
    sums = out.sum(axis=1)
    return out / np.sqrt(np.outer(sums, sums))


def item_graph(data, k=K, image_weight=0.1):
    graphs = {name: neighbours(features.astype(np.float64).tolist(), k) for name, features in data.features.items()}
    if len(graphs) == 1:
        return in_float32(*graphs.values())
    share = (1 - image_weight) / (len(graphs) - 1)
    return in_float32(sum((image_weight if name == "visual" else share) * graph for name, graph in graphs.items()))


def full_graph(data):
    a = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)
    return in_float32(naive.dense_normalized(a))


def embeddings(model, data, graph, n_mm_layers=1):
    """Users and items of the specification over a dense graph [N, N]."""
    users, items = [[] for _ in range(N_USERS)], [[] for _ in range(N_ITEMS)]
    for name in data.features:
        weight, bias = rows_of(model.projections[name].weight), model.projections[name].bias.tolist()
        for i, row in enumerate(rows_of(model.features(name))):
            items[i] += naive.unit([dot(w, row) + b for w, b in zip(weight, bias, strict=True)])
        for u, row in enumerate(rows_of(model.user_embeddings[name])):
            users[u] += row
    nodes = np.array(naive.mean_of_layers(graph, users + items, model.options.n_ui_layers))
    content = np.linalg.matrix_power(item_graph(data), n_mm_layers) @ np.array(items)
    return nodes[:N_USERS].tolist(), (nodes[N_USERS:] + content).tolist()


def contrast(rows, first_mask, second_mask, rate):
    """-log of the own share in a softmax over the batch of cosines over 0.2, between two dropouts; mean."""
    views = [
        [
            naive.unit([x * k / (1 - rate) for x, k in zip(row, keep, strict=True)])
            for row, keep in zip(rows, mask, strict=True)
        ]
        for mask in (first_mask, second_mask)
    ]
    terms = [naive.cross_entropy([dot(a, b) / 0.2 for b in views[1]], i) for i, a in enumerate(views[0])]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("modalities", [["visual"], ["visual", "textual"], list(WIDTHS)], ids="+".join)
@pytest.mark.parametrize(("n_ui_layers", "n_mm_layers"), [(2, 1), (0, 2), (3, 0)])
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers):
    data = toy_dataset(modalities)
    rate = 0.4
    model = on_double(
        build("PGL", data, n_ui_layers=n_ui_layers, n_mm_layers=n_mm_layers, reg_weight=0.3, embedding_dropout=rate)
    )
    users, items = embeddings(model, data, full_graph(data), n_mm_layers)
    batch = one_batch(data, 12)
    u, i, j = ([table[x] for x in ids] for table, ids in zip((users, items, items), batch.tolist(), strict=True))
    torch.manual_seed(3)
    masks = [(torch.rand(12, 8 * len(modalities)) >= rate).double().tolist() for _ in range(4)]
    expected = {
        "bpr": sum(math.log(1 + math.exp(-(dot(a, b) - dot(a, c)))) for a, b, c in zip(u, i, j, strict=True)) / 12,
        "contrastive": 0.3 * (contrast(u, *masks[:2], rate) + contrast(i, *masks[2:], rate)) / 2,
    }
    torch.manual_seed(3)
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-10)
    scores = torch.tensor([[dot(a, b) for b in items] for a in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


# Local mode


def test_an_epoch_s_sub_graph_holds_three_tenths_of_the_edges_with_their_own_degrees():
    data = toy_dataset()
    model = on_double(build("PGL", data, reg_weight=0.0))
    model.pre_epoch_processing()
    offsets, columns = model.principal.offsets.tolist(), model.principal.columns.tolist()
    pairs = [(u, columns[place] - N_USERS) for u in range(N_USERS) for place in range(offsets[u], offsets[u + 1])]
    edges = set(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) == int(KEPT_SHARE * len(edges))
    assert set(pairs) < edges
    drawn = in_float32(naive.dense_normalized(naive.dense_adjacency(*zip(*pairs, strict=True), N_USERS, N_ITEMS)))
    users, items = embeddings(model, data, drawn)
    batch = one_batch(data, 12)
    differences = [dot(users[u], items[i]) - dot(users[u], items[j]) for u, i, j in batch.T.tolist()]
    expected = sum(math.log(1 + math.exp(-x)) for x in differences) / 12
    assert model.calculate_loss(batch)["bpr"].item() == pytest.approx(expected, rel=1e-10)
    users, items = embeddings(model, data, full_graph(data))
    scores = torch.tensor([[dot(a, b) for b in items] for a in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


# Global mode


def from_the_whole_svd(data, rank):
    """The specification's form: a dense SVD of the N x N matrix, cut, and the small entries left out."""
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    left, sizes, right = np.linalg.svd(a)
    quarter = rank // 4
    out = np.zeros_like(a)
    for k in range(quarter):
        out += sizes[k] * sizes[rank - quarter + k] * np.outer(left[:, k], right[k])
    out[np.abs(out) < SMALLEST] = 0
    return out


@pytest.mark.parametrize("rank", [8, 16, 32])
def test_the_global_sub_graph_is_that_of_the_whole_matrix(rank):
    data = toy_dataset()
    graph = principal_graph(data, rank)
    n = N_USERS + N_ITEMS
    dense = graph.product(torch.eye(n)).numpy()
    expected = from_the_whole_svd(data, rank)
    np.testing.assert_allclose(dense, expected, atol=1e-7)
    assert (expected < 0).any() == (rank > 8), "entries may be negative"
    edges = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS)
    assert ((dense != 0) & (edges == 0)).any(), "and join pairs that never interacted"


def test_global_mode_trains_over_its_sub_graph_and_ranks_over_all_edges():
    data = toy_dataset()
    model = on_double(build("PGL", data, mode="global"))
    before = model.principal
    model.pre_epoch_processing()
    assert model.principal is before, "made once"
    users, items = embeddings(model, data, in_float32(from_the_whole_svd(data, 8)))
    batch = one_batch(data, 12)
    differences = [dot(users[u], items[i]) - dot(users[u], items[j]) for u, i, j in batch.T.tolist()]
    expected = sum(math.log(1 + math.exp(-x)) for x in differences) / 12
    # A last bit of the SVD may change the float32 that the graph is kept in.
    assert model.calculate_loss(batch)["bpr"].item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(all_scores(model), all_scores(on_double(build("PGL", data))))


def test_the_global_sub_graph_is_the_same_again_and_follows_relabelled_nodes():
    data = toy_dataset()
    dense = principal_graph(data, 8).product(torch.eye(N_USERS + N_ITEMS))
    assert torch.equal(principal_graph(data, 8).product(torch.eye(N_USERS + N_ITEMS)), dense)
    random = np.random.default_rng(3)
    users, items = random.permutation(N_USERS), random.permutation(N_ITEMS)
    order = torch.from_numpy(np.concatenate([users, items + N_USERS]))
    other = principal_graph(relabelled(data, users, items), 8).product(torch.eye(N_USERS + N_ITEMS))
    torch.testing.assert_close(other[order][:, order], dense)


@pytest.mark.parametrize("width", [12, 48])
def test_global_mode_refuses_a_rank_that_splits_pairs_or_is_too_large(width):
    with pytest.raises(UserError, match="multiple of 8 below twice the smaller of 31 users and 23 items"):
        build("PGL", toy_dataset(), mode="global", embedding_size=width)


# Keys


def test_no_matrix_of_the_batch_by_itself_is_kept_for_the_backward_pass():
    data = toy_dataset()
    model = build("PGL", data, reg_weight=0.1)
    batch = one_batch(data, 64)
    kept = saved_by(lambda: total(model.calculate_loss(batch)))
    assert not any(tensor.shape == (64, 64) for tensor in kept)
