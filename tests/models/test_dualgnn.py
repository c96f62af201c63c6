"""DualGNN's loss and scores from their formulas, on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset

from common.trainer import loss_terms


def expected_embeddings(model, data, order, fusion):
    """z_u and z_i, with the visual modality first."""
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype(np.float32).astype(np.float64)
    lists = naive.co_user_lists(data.train.users.tolist(), data.train.items.tolist(), N_USERS, 40)
    s = naive.co_user_weights(lists, 40, int(model.user_graph.seed)).astype(np.float32).astype(np.float64)
    z = []
    for modality in order:
        features = data.features[modality].astype(np.float64).tolist()
        x = np.array(naive.preferences_and_content(model.nodes[modality], features))
        z.append(x + a @ x + a @ (a @ x))
    items = sum(part[N_USERS:] for part in z)
    users = np.zeros((N_USERS, 8))
    for u in range(N_USERS):
        if len(order) == 1:
            users[u] = z[0][u]
            continue
        w = rows_of(model.fusion_weights)[u]
        for m, part in enumerate(z):
            in_place = sum(other[u] for other in z) if m == 0 and fusion == "code" else part[u]
            users[u] += w[m] * in_place
    return (users + s @ users).tolist(), items.tolist()


@pytest.mark.parametrize("fusion", ["code", "paper"])
@pytest.mark.parametrize(
    ("modalities", "order"),
    [
        (["textual"], ["textual"]),
        (["visual", "textual"], ["visual", "textual"]),
        (["textual", "visual"], ["visual", "textual"]),
        (["textual", "acoustic", "visual"], ["visual", "textual", "acoustic"]),
    ],
)
def test_loss_and_scores_are_those_of_the_specification(modalities, order, fusion):
    data = toy_dataset(modalities)
    model = on_double(build("DualGNN", data, reg_weight=0.3, user_fusion=fusion))
    model.user_graph.draw()
    users, items = expected_embeddings(model, data, order, fusion)
    batch = one_batch(data, 12)
    differences = [dot(users[u], items[i]) - dot(users[u], items[j]) for u, i, j in batch.T.tolist()]
    penalty = 0.0
    for modality in modalities:
        preference = rows_of(model.nodes[modality].preference)
        gathered = [value for u in batch[0].tolist() for value in preference[u]]
        penalty += sum(value**2 for value in gathered) / len(gathered)
    if len(modalities) > 1:
        weights = [value for row in rows_of(model.fusion_weights) for value in row]
        penalty += sum(value**2 for value in weights) / len(weights)
    expected = {"bpr": sum(-math.log2(sigmoid(x)) for x in differences) / 12, "reg": 0.3 * penalty}
    terms = model.calculate_loss(batch)
    # The graphs are float32, whose rounding of products and sums differs in the last digit.
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-7)
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-6, atol=1e-6)


def test_the_two_fusions_differ_where_there_are_two_modalities():
    scores = {fusion: all_scores(build("DualGNN", toy_dataset(), user_fusion=fusion)) for fusion in ("code", "paper")}
    assert (scores["code"] - scores["paper"]).abs().max() > 0.1


def test_parameters_are_those_of_the_specification():
    model = build("DualGNN", toy_dataset())
    expected = {"fusion_weights": (31, 2)}
    for modality in ("visual", "textual"):
        expected |= {
            f"nodes.{modality}.preference": (31, 8),
            f"nodes.{modality}.first.weight": (256, WIDTHS[modality]),
            f"nodes.{modality}.first.bias": (256,),
            f"nodes.{modality}.second.weight": (8, 256),
            f"nodes.{modality}.second.bias": (8,),
        }
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == expected
    assert set(model.state_dict()) == {*expected, "user_graph.seed"}
    torch.testing.assert_close(model.fusion_weights.sum(1), torch.ones(31))
    assert build("DualGNN", toy_dataset(["acoustic"])).fusion_weights is None


def test_raw_features_are_trained_only_if_asked_for():
    data = toy_dataset()
    assert not build("DualGNN", data).features("visual").requires_grad
    model = build("DualGNN", data, train_features=True)
    total(loss_terms(model.calculate_loss(one_batch(data)))).backward()
    for modality in ("visual", "textual"):
        assert model.features(modality).grad.abs().max() > 0


def test_the_user_graph_is_another_one_in_each_epoch():
    model = build("DualGNN", toy_dataset())
    before = all_scores(model)
    model.pre_epoch_processing()
    assert not torch.equal(all_scores(model), before)
