"""DiffMM's loss, scores, denoisers and generated graphs from their formulas, on dense graphs."""

import itertools

import naive
import numpy as np
import pytest
import torch
from naive import dot, rows_of, unit
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, make_config, on_double, one_batch, total, toy_dataset

from common.trainer import make_optimizer
from models.diffmm import DiffMM

N = N_USERS + N_ITEMS
BATCH_SIZE = 64  # as the toys have it; the batches here are shorter
WEIGHTS = {"reg_weight": 0.03, "cl_weight": 0.7, "temperature": 0.25, "norm_weight": 0.4, "generated_weight": 0.3}


def with_loops(adjacency):
    a = naive.dense_normalized(adjacency + np.eye(N))
    return a.astype(np.float32).astype(np.float64)


def generated_graph(graph, keep_rate):
    """G_m from the items of each user and from what is kept."""
    adjacency = np.zeros((N, N))
    kept = np.diag(graph.kept_loops.double().numpy())
    for user, items in enumerate(graph.item_ids.tolist()):
        for slot, item in enumerate(items):
            adjacency[user, N_USERS + item] = adjacency[N_USERS + item, user] = 1
            kept[user, N_USERS + item] = graph.kept_to_users[user, slot]
            kept[N_USERS + item, user] = graph.kept_to_items[user, slot]
    return naive.dense_normalized(adjacency + np.eye(N)) * kept / keep_rate


def unit_rows(matrix):
    return np.array([unit(row) for row in matrix.tolist()])


def by_formula(model, data):
    """Z, and the contrast views C_m by modality."""
    options, depth = model.options, model.options.n_ui_layers
    a = with_loops(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    users, items = np.array(rows_of(model.user_embedding)), np.array(rows_of(model.item_embedding))
    layers = sum(np.linalg.matrix_power(a, level) for level in range(depth + 1))
    views, contrast = [], {}
    for m in model.modalities:
        linear = model.projections[m].linear
        x = [naive.affine(row, linear) for row in data.features[m].astype(np.float64).tolist()]
        if options.trans == 0 or (options.trans == 2 and m == "visual"):
            assert linear.bias is None
            x = [[max(value, 0.2 * value) for value in row] for row in x]
        start = np.concatenate([users, unit_rows(np.array(x))])
        first = a @ start
        g = generated_graph(model.generated[m], options.keep_rate)
        ids = np.concatenate([users, items])
        views.append(first + a @ np.concatenate([first[:N_USERS], items]) + options.generated_weight * g @ ids)
        contrast[m] = layers @ g @ start
    shares = [1.0] if model.modality_weights is None else naive.softmax(model.modality_weights.tolist())
    h = sum(share * view for share, view in zip(shares, views, strict=True))
    return layers @ h + options.norm_weight * unit_rows(h), contrast


def nce(first, second, ids, offset, size, temperature):
    """mean over ids of the cross-entropy of cosines against all of a kind."""
    candidates = [unit(row) for row in second[offset : offset + size].tolist()]
    anchors = [unit(row) for row in first[offset : offset + size].tolist()]
    losses = [naive.cross_entropy([dot(anchors[i], c) / temperature for c in candidates], i) for i in ids]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("modalities", "settings"),
    [
        (["visual", "textual"], {"keep_rate": 0.5}),
        (["visual", "textual"], {"trans": 1, "cl_method": 1, "rebuild_k": 2}),
        (list(WIDTHS), {"trans": 2, "n_ui_layers": 2, "keep_rate": 1.0}),
        (["acoustic"], {"n_ui_layers": 0}),
    ],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, settings):
    data = toy_dataset(modalities)
    model = build("DiffMM", data, **WEIGHTS, **settings)
    torch.manual_seed(1)
    model.pre_epoch_processing()
    model = on_double(model).train()
    if model.modality_weights is not None:
        with torch.no_grad():
            model.modality_weights.copy_(torch.randn(len(modalities)))
    z, views = by_formula(model, data)
    batch = one_batch(data, 40)
    users, pos, _ = batch.tolist()
    differences = [dot(z[u], z[N_USERS + i]) - dot(z[u], z[N_USERS + j]) for u, i, j in batch.T.tolist()]
    pairs = list(itertools.combinations(views.values(), 2))
    if model.options.cl_method == 1 or len(modalities) == 1:
        pairs = [(z, view) for view in views.values()]
    contrast = sum(
        nce(one, other, users, 0, N_USERS, 0.25) + nce(one, other, pos, N_USERS, N_ITEMS, 0.25) for one, other in pairs
    )
    squares = naive.sum_of_squares(rows_of(model.user_embedding)) + naive.sum_of_squares(rows_of(model.item_embedding))
    expected = {
        "bpr": naive.log_sigmoid_bpr(differences, [0.0] * 40) * 40 / BATCH_SIZE,
        "reg": 0.03 * squares,
        "contrastive": 0.7 * contrast,
    }
    found = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    # The entries of generated graphs are float32.
    assert found == pytest.approx(expected, rel=1e-6)
    scores = torch.from_numpy(z[:N_USERS] @ z[N_USERS:].T)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-5, atol=1e-6)


def test_denoisers_are_trained_by_the_losses_of_the_specification(monkeypatch):
    data = toy_dataset()
    model = on_double(build("DiffMM", data, content_weight=0.3, train_batch_size=16))
    own, calls = DiffMM._denoising_loss, []

    def record(self, denoiser, noisy, t, rows, content, wanted):
        value = own(self, denoiser, noisy, t, rows, content, wanted)
        estimates = denoiser(noisy, t).detach()
        calls.append((t, noisy, rows, content, wanted, estimates, value.item()))
        return value

    monkeypatch.setattr(DiffMM, "_denoising_loss", record)
    before = [w.clone() for denoiser in model.denoisers.values() for w in denoiser.weights()]
    torch.manual_seed(0)
    model._train_denoisers()
    after = [w for denoiser in model.denoisers.values() for w in denoiser.weights()]
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), "every weight moves"
    assert len(calls) == 2 * 2, "two batches of users, two modalities"
    histories = data.inter_matrix("csr").toarray()
    trained = torch.cat([rows for _, _, rows, *_ in calls[::2]]).numpy()
    assert sorted(map(tuple, trained)) == sorted(map(tuple, histories)), "every user once"
    ids = np.array(rows_of(model.item_embedding))
    weights = [None, 1.0, 8326.2, 760.4, 285.3, 149.5]
    for number, (t, noisy, rows, content, wanted, estimates, value) in enumerate(calls):
        m = model.modalities[number % 2]
        np.testing.assert_allclose(content.numpy(), model._content()[m].detach().numpy())
        np.testing.assert_allclose(wanted.numpy(), rows.numpy() @ ids, rtol=1e-9, atol=1e-12)
        share = (noisy == 0).double().mean().item()
        assert 0.35 < share < 0.65, "half of the noisy row is dropped"
        errors, steered = [], []
        for time, row, estimate, target in zip(
            t.tolist(), rows_of(rows), rows_of(estimates), rows_of(wanted), strict=True
        ):
            errors.append(weights[time] * sum((a - b) ** 2 for a, b in zip(row, estimate, strict=True)) / N_ITEMS)
            seen = np.array(estimate) @ content.numpy()
            steered.append(np.mean([(a - b) ** 2 for a, b in zip(seen.tolist(), target, strict=True)]))
        assert value == pytest.approx(np.mean(errors) + 0.3 * np.mean(steered), rel=1e-4)


def test_a_generated_graph_holds_each_users_best_items():
    data = toy_dataset()
    model = build("DiffMM", data, rebuild_k=3)
    torch.manual_seed(0)
    model.pre_epoch_processing()
    offsets, items, _ = model.histories.take(torch.arange(N_USERS))
    for m, denoiser in model.denoisers.items():
        rows = denoiser.network.generator(model.schedule)(offsets, items)
        best = rows.argsort(dim=1, descending=True)[:, :3]
        assert torch.equal(model.generated[m].item_ids, best)
    assert not torch.equal(*(model.generated[m].item_ids for m in model.modalities))


def test_the_recommender_and_the_denoisers_do_not_move_each_other():
    data = toy_dataset()
    model = build("DiffMM", data)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model.pre_epoch_processing()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    weights = [w.clone() for w in model.denoisers["visual"].weights()]
    optimizer = make_optimizer(make_config("DiffMM"), model)
    total(model.calculate_loss(one_batch(data))).backward()
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(weights, model.denoisers["visual"].weights(), strict=True))
