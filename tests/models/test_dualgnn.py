"""DualGNN's loss and scores from their formulas, on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, sigmoid
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset


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
