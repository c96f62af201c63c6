"""MMSSL's loss, scores, critic step and graphs from their formulas, on dense graphs."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, rows_of, unit
from toys import N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, toy_dataset, train_loader

from common.adversarial import RowCritic

WEIGHTS = {
    "reg_weight": 0.3, "content_weight": 0.2, "cl_weight": 0.7, "critic_weight": 0.01, "temperature": 0.4,
    "id_weight": 0.5, "content_share": 0.6,
}  # fmt: skip
DROPOUT = 0.2


def one_sided(counts):
    """Rows over the square roots of their sums, with the float32 entries that the source keeps."""
    return (counts / np.sqrt(counts.sum(1, keepdims=True) + 1e-8)).astype(np.float32).astype(np.float64)


def unit_rows(matrix):
    return np.array([unit(row) for row in matrix.tolist()])


def softmax_rows(matrix):
    return np.array([naive.softmax(row) for row in matrix.tolist()])


def counts_of(graph, histories):
    """The entries of C, which A_m is made of."""
    if graph.initial:
        return histories
    counts = np.zeros((N_USERS, N_ITEMS))
    for user, item in zip(graph.user_ids.tolist(), graph.item_ids.tolist(), strict=True):
        if item >= 0:
            counts[user, item] += 1
    return counts


def by_formula(model, data, mask=None):
    """Z of users and items, P_m and Q_m, and A_m E_i; `mask` [I, M D] is dropout's, with its factor."""
    options, width = model.options, model.embedding_size
    histories = data.inter_matrix("csr").toarray().astype(np.float64)
    to_users, to_items = one_sided(histories), one_sided(histories.T)
    users, items = np.array(rows_of(model.user_embedding)), np.array(rows_of(model.item_embedding))
    views, messages = [], []
    for number, m in enumerate(model.modalities):
        x = np.array([affine(row, model.projections[m]) for row in data.features[m].astype(np.float64).tolist()])
        if mask is not None:
            x = x * mask[:, number * width : (number + 1) * width]
        views.append((to_users @ x, to_items @ (to_users @ x)))
        counts = counts_of(model.modality_graphs[m], histories)
        messages.append((one_sided(counts) @ items, one_sided(counts.T) @ users))
    blocks = np.array(rows_of(model.mixing)).reshape(4, width, width)
    mixing = blocks[0] + blocks[1] + blocks[2] + blocks[3]
    u, i = (
        own + options.id_weight * unit_rows(sum(pair[kind] for pair in messages) / len(messages) @ mixing)
        for kind, own in enumerate((users, items))
    )
    all_u, all_i = [u], [i]
    for layer in range(1, options.n_ui_layers + 1):
        last = layer == options.n_ui_layers
        u = to_users @ i
        u = softmax_rows(u) if last else u
        i = to_items @ u
        i = softmax_rows(i) if last else i
        all_u.append(u)
        all_i.append(i)
    final = [
        sum(layers) / len(layers) + options.content_share * sum(unit_rows(view[kind]) for view in views)
        for kind, layers in enumerate((all_u, all_i))
    ]
    return final, views, [pair[0] for pair in messages]


def similarities(of_users, of_items, users, data):
    """S: rows over items, 0 at training items, of length 1."""
    own = data.inter_matrix("csr").toarray()
    rows = [[0.0 if own[u, i] else dot(of_users[u], of_items[i]) for i in range(N_ITEMS)] for u in users]
    return [unit(row) for row in rows]


def contrast(first, second, temperature):
    a, c = [unit(row) for row in first], [unit(row) for row in second]
    terms = []
    for k in range(len(a)):
        e = [math.exp(dot(a[k], other) / temperature) for other in a]
        f = [math.exp(dot(a[k], other) / temperature) for other in c]
        terms.append(-math.log(f[k] / (sum(e) + sum(f) - e[k]) + 1e-8))
    return sum(terms) / len(terms)


def feature_mask(model):
    return (
        (torch.rand(N_ITEMS, len(model.modalities) * model.embedding_size) >= DROPOUT).double() / (1 - DROPOUT)
    ).numpy()


@pytest.mark.parametrize(
    ("modalities", "settings", "trained"),
    [
        (["visual", "textual"], {}, False),
        (["visual", "textual"], {"graphs": "latest"}, True),
        (["acoustic"], {"n_ui_layers": 1}, False),
        (list(WIDTHS), {"n_ui_layers": 3, "graph_period": 2}, True),
    ],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, settings, trained):
    data = toy_dataset(modalities)
    model = build("MMSSL", data, **WEIGHTS, **settings)
    if trained:  # so that the graphs are no more the interactions
        model.train().pre_epoch_processing()
        for batch in list(train_loader(data, 20).epoch())[:4]:
            model.pre_step_processing(batch)
    model = on_double(model).train()
    batch = one_batch(data, 20)
    users, pos, neg = batch.tolist()
    torch.manual_seed(5)
    (z_u, z_i), views, messages = by_formula(model, data, feature_mask(model))
    rows = [z_u[users].tolist(), z_i[pos].tolist(), z_i[neg].tolist()]
    fake = [row for view in views for row in similarities(*view, users, data)]
    judged = model.critic(torch.tensor(fake, dtype=torch.float64)).mean().item()
    everything = [part.tolist() for view in views for part in view]
    expected = {
        "bpr": naive.log_sigmoid_bpr([*map(dot, rows[0], rows[1])], [*map(dot, rows[0], rows[2])]),
        "reg": 0.3 * naive.half_squared_l2_over_batch(*rows),
        "content": 0.2 * sum(map(naive.sum_of_squares, everything)) / 2 / N_ITEMS,
        "contrastive": 0.7 * sum(contrast(part[users].tolist(), rows[0], 0.4) for part in messages),
        "adversarial": -0.01 * judged,
    }
    torch.manual_seed(5)
    found = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    assert found == pytest.approx(expected, rel=1e-6)
    (z_u, z_i), *_ = by_formula(model, data)
    torch.testing.assert_close(all_scores(model), torch.from_numpy(z_u @ z_i.T), rtol=1e-6, atol=1e-7)


def test_the_critic_is_shown_the_rows_of_the_specification(monkeypatch):
    data = toy_dataset()
    model = on_double(build("MMSSL", data, **WEIGHTS, noise_temperature=1e-4)).train()
    seen, own = [], RowCritic.loss
    monkeypatch.setattr(RowCritic, "loss", lambda self, *rows: seen.append(rows) or own(self, *rows))
    before = [weights.clone() for weights in model.critic.weights()]
    batch = one_batch(data, 20)
    users = batch[0].tolist()
    torch.manual_seed(5)
    (z_u, z_i), views, _ = by_formula(model, data, feature_mask(model))
    uniform = torch.rand(20, N_ITEMS).double().tolist()
    torch.manual_seed(5)
    model.pre_step_processing(batch)
    ((real, fake, penalty),) = seen
    assert penalty == 0.3
    expected = [row for view in views for row in similarities(*view, users, data)]
    fake = torch.cat([part.rows() for part in fake])
    torch.testing.assert_close(fake, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)
    histories = data.inter_matrix("csr").toarray()
    for row, u, draws, like in zip(rows_of(real), users, uniform, similarities(z_u, z_i, users, data), strict=True):
        gumbel = [-math.log(-math.log(v + 1e-8) + 1e-8) for v in draws]
        soft = naive.softmax([float(r) + 1e-5 / 1e-4 * g for r, g in zip(histories[u], gumbel, strict=True)])
        assert row == pytest.approx(unit([a + 100 * b for a, b in zip(soft, like, strict=True)]), rel=1e-5, abs=1e-6)
    assert all(not torch.equal(one, other) for one, other in zip(before, model.critic.weights(), strict=True))


def test_a_step_of_the_critic_moves_nothing_else_and_lowers_its_loss():
    data = toy_dataset()
    model = build("MMSSL", data, critic_learning_rate=0.01).train()
    batch = one_batch(data)
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    values, own = [], model.critic.step
    model.critic.step = lambda loss: values.append(own(loss).item())
    for _ in range(60):
        model.pre_step_processing(batch)
    assert np.mean(values[-10:]) < np.mean(values[:10])
    assert all(torch.equal(one, other) for one, other in zip(parameters, model.parameters(), strict=True))


def test_the_critics_judgement_reaches_the_projections_alone():
    data = toy_dataset()
    model = build("MMSSL", data).train()
    model.calculate_loss(one_batch(data))["adversarial"].backward()
    moved = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"projections"}
    assert not any(weights.requires_grad for weights in model.critic.weights())


def sizes_of_graphs(model, data, steps):
    """Numbers of entries of the first modality's graph in the forward pass of each step."""
    sizes = []
    model.train().pre_epoch_processing()
    for batch in [one_batch(data, 10, seed) for seed in range(steps)]:
        model.pre_step_processing(batch)
        sizes.append(len(model.modality_graphs["visual"].values))
    model.post_epoch_processing()
    return [*sizes, len(model.modality_graphs["visual"].values)]


def test_graphs_as_released_come_and_go():
    data = toy_dataset()
    whole, some = len(data.train), 10 * int(0.2 * N_ITEMS)
    assert sizes_of_graphs(build("MMSSL", data, graph_share=0.2), data, 5) == [whole, whole, some, 0, 0, 0]
    every_second = build("MMSSL", data, graph_share=0.2, graph_period=2)
    assert sizes_of_graphs(every_second, data, 5) == [whole, whole, whole, 2 * some, 2 * some, some]
    assert sizes_of_graphs(build("MMSSL", data, graph_share=0.0), data, 4) == [whole, whole, 0, 0, 0]


def test_latest_graphs_grow_until_every_user_is_in_them():
    data = toy_dataset()
    model = build("MMSSL", data, graph_share=0.0, graphs="latest")
    sizes = sizes_of_graphs(model, data, 12)
    assert sizes[0] == len(data.train)
    users = [set(torch.cat([one_batch(data, 10, s)[0] for s in range(n)]).tolist()) for n in range(1, 13)]
    assert sizes[1:] == [len(some) for some in users], "one item for each user that was in a batch"


def test_graphs_hold_the_best_items_by_content():
    data = toy_dataset()
    model = build("MMSSL", data, graph_share=0.2, graphs="latest").train()
    batch = one_batch(data, 30)
    model.pre_epoch_processing()
    torch.manual_seed(2)
    model.pre_step_processing(batch)
    model.post_epoch_processing()
    torch.manual_seed(2)
    _, views, _ = by_formula(on_double(model), data, feature_mask(model))
    table = model.modality_graphs["textual"].item_ids.view(N_USERS, -1)
    for user in set(batch[0].tolist()):
        (row,) = similarities(*views[1], [user], data)
        found = sorted((row[item] for item in table[user].tolist()), reverse=True)
        assert found == pytest.approx(sorted(row, reverse=True)[: len(found)], abs=1e-6)


def test_without_its_weight_there_is_no_critic():
    model = build("MMSSL", toy_dataset(), critic_weight=0.0).train()
    assert model.critic is None
    batch = one_batch(toy_dataset())
    model.pre_step_processing(batch)
    assert "adversarial" not in model.calculate_loss(batch)


def test_an_empty_graph_leaves_finite_gradients():
    data = toy_dataset()
    model = build("MMSSL", data, graph_share=0.0).train()
    batch = one_batch(data)
    for _ in range(4):
        model.pre_step_processing(batch)
    assert len(model.modality_graphs["visual"].values) == 0
    torch.stack(list(model.calculate_loss(batch).values())).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
