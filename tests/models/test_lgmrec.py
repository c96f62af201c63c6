"""LGMRec's loss and scores from their formulas, on dense graphs, with the same draws."""

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

K = 4
SETTINGS = {"reg_weight": 0.3, "cl_weight": 0.2, "keep_rate": 0.6, "alpha": 0.7}


def rownorm(row):
    """The row over its length or over 1e-12, whichever is larger: a user whose only hyperedge is dropped has nearly none."""
    length = max(math.sqrt(dot(row, row)), 1e-12)
    return [x / length for x in row]


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [x / sum(powers) for x in powers]


def draws_of_training(n_modalities, keep_rate):
    """Per modality the noise [n, K] and the mask [n, K] of items, then those of users."""
    out = []
    for _ in range(n_modalities):
        for n in (N_ITEMS, N_USERS):
            noise = (-torch.empty(n, K).exponential_().log()).double().tolist()
            mask = (torch.rand(n, K) < keep_rate).double().tolist() if keep_rate < 1 else [[1.0] * K] * n
            out.append((noise, mask))
    return out


def no_draws(n_modalities):
    return [([[0.0] * K] * n, [[1.0] * K] * n) for _ in range(n_modalities) for n in (N_ITEMS, N_USERS)]


def assignment(logits, draws, keep_rate):
    noise, mask = draws
    shares = [softmax([(x + g) / 0.2 for x, g in zip(*rows, strict=True)]) for rows in zip(logits, noise, strict=True)]
    return [[h * kept / keep_rate for h, kept in zip(*rows, strict=True)] for rows in zip(shares, mask, strict=True)]


def embeddings(model, data, draws, keep_rate):
    """Final users and items, and the global embeddings of each modality, of the specification."""
    options = model.options
    # The source keeps the normalised graph in float32, and so must what it is compared with.
    a = naive.dense_normalized(naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS))
    a = a.astype(np.float32).astype(np.float64)
    owned = [[] for _ in range(N_USERS)]
    for user, item in zip(data.train.users, data.train.items, strict=True):
        owned[user].append(item)
    ids = naive.mean_of_layers(a, rows_of(model.user_embedding) + rows_of(model.item_embedding), options.n_ui_layers)
    local, hidden = [list(row) for row in ids], []
    for place, name in enumerate(data.features):
        raw = rows_of(model.features(name))
        columns = [list(zip(*rows_of(table[name]), strict=True)) for table in (model.projections, model.hyperedges)]
        content, logits = ([[dot(x, c) for c in table] for x in raw] for table in columns)
        of_users = [[sum(content[i][d] for i in items) / (len(items) + 1e-7) for d in range(8)] for items in owned]
        user_logits = [[sum(logits[i][k] for i in items) for k in range(K)] for items in owned]
        propagated = np.linalg.matrix_power(a, options.n_mm_layers) @ np.array(of_users + content)
        for row, added in zip(local, propagated.tolist(), strict=True):
            row[:] = [x + y for x, y in zip(row, rownorm(added), strict=True)]
        of_item, of_user = draws[2 * place : 2 * place + 2]
        h_items = np.array(assignment(logits, of_item, keep_rate))
        h_users = np.array(assignment(user_logits, of_user, keep_rate))
        y = np.array(ids[N_USERS:])
        for _ in range(options.n_hyper_layer):
            edges = h_items.T @ y
            y = h_items @ edges
        hidden.append([*(h_users @ edges).tolist(), *y.tolist()])
    joined = [rownorm([sum(x) for x in zip(*rows, strict=True)]) for rows in zip(*hidden, strict=True)]
    nodes = [[x + options.alpha * g for x, g in zip(*rows, strict=True)] for rows in zip(local, joined, strict=True)]
    return nodes[:N_USERS], nodes[N_USERS:], hidden


def contrast(users, items, hidden):
    """The sum of cross-entropies of the first modality's rows over all users (items) of each other modality."""
    out = 0.0
    for begin, end, ids in ((0, N_USERS, users), (N_USERS, N_USERS + N_ITEMS, items)):
        views = [[rownorm(row) for row in table[begin:end]] for table in hidden]
        for other in views[1:]:
            out += sum(naive.cross_entropy([dot(views[0][x], row) / 0.2 for row in other], x) for x in ids)
    return out


@pytest.mark.parametrize("modalities", [["visual"], ["visual", "textual"], list(WIDTHS)], ids="+".join)
@pytest.mark.parametrize(
    ("n_ui_layers", "n_mm_layers", "n_hyper_layer", "keep_rate"), [(2, 2, 1, 0.6), (0, 1, 3, 1.0), (1, 0, 2, 0.3)]
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_ui_layers, n_mm_layers, n_hyper_layer, keep_rate):
    data = toy_dataset(modalities)
    depths = {"n_ui_layers": n_ui_layers, "n_mm_layers": n_mm_layers, "n_hyper_layer": n_hyper_layer}
    model = on_double(build("LGMRec", data, **SETTINGS | depths | {"keep_rate": keep_rate, "evaluation_noise": "none"}))
    torch.manual_seed(3)
    draws = draws_of_training(len(modalities), keep_rate)
    users, items, hidden = embeddings(model, data, draws, keep_rate)
    batch = one_batch(data, 12)
    u, i, j = ([table[x] for x in ids] for table, ids in zip((users, items, items), batch.tolist(), strict=True))
    expected = {
        "bpr": sum(math.log(1 + math.exp(-(dot(a, b) - dot(a, c)))) for a, b, c in zip(u, i, j, strict=True)) / 12,
        "contrastive": 0.2 * contrast(*batch[:2].tolist(), hidden),
        "reg": 0.3 * naive.frobenius_over_batch(u, i, j),
    }
    if len(modalities) == 1:
        del expected["contrastive"]
    torch.manual_seed(3)
    terms = model.calculate_loss(batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-9)
    users, items, _ = embeddings(model, data, no_draws(len(modalities)), 1)
    scores = torch.tensor([[dot(a, b) for b in items] for a in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_negatives_and_projected_content_have_no_part_in_the_contrastive_term():
    data = toy_dataset()
    model = build("LGMRec", data)
    batch = one_batch(data)
    other = batch.clone()
    other[2] = other[2].roll(1)
    assert not torch.equal(batch, other)
    terms = []
    for rows in (batch, other):
        torch.manual_seed(0)
        terms.append(model.calculate_loss(rows))
    assert torch.equal(terms[0]["contrastive"], terms[1]["contrastive"])
    assert not torch.equal(terms[0]["bpr"], terms[1]["bpr"])
    found = torch.autograd.grad(terms[0]["contrastive"], [*model.parameters()], allow_unused=True)
    reached = {
        name for (name, _), part in zip(model.named_parameters(), found, strict=True) if part is not None and part.any()
    }
    assert reached == {"user_embedding", "item_embedding", "hyperedges.visual", "hyperedges.textual"}


@pytest.mark.parametrize("hyper_num", [4, 20])
def test_contrastive_term_is_that_of_the_rows_whether_hyperedges_are_fewer_than_dimensions_or_not(hyper_num):
    data = toy_dataset()
    model = on_double(build("LGMRec", data, hyper_num=hyper_num))
    batch = one_batch(data)
    _, passed = model.encode()
    rows = [[row for kind in (0, 1) for row in (part[kind] @ part[2]).tolist()] for part in passed]
    expected = contrast(*batch[:2].tolist(), rows)
    assert model._contrast(batch, passed).item() == pytest.approx(expected, rel=1e-9)


# Noise


def test_fixed_noise_of_an_evaluation_is_the_same_again_and_leaves_the_stream_alone():
    data = toy_dataset()
    model = build("LGMRec", data, evaluation_noise="fixed")
    before, state = all_scores(model), torch.get_rng_state()
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(all_scores(model), before)
    torch.set_rng_state(state)
    all_scores(model)
    assert torch.equal(torch.get_rng_state(), state)
    without = all_scores(build("LGMRec", data, evaluation_noise="none"))
    assert (before - without).abs().max() > 0.01 * without.std()
    assert without.std() > 0


def test_fixed_noise_is_that_of_the_specification():
    data = toy_dataset()
    model = on_double(build("LGMRec", data, evaluation_noise="fixed"))
    generator = torch.Generator().manual_seed(0)
    draws = [
        ((-torch.empty(n, K).exponential_(generator=generator).log()).double().tolist(), [[1.0] * K] * n)
        for _ in range(2)
        for n in (N_ITEMS, N_USERS)
    ]
    users, items, _ = embeddings(model, data, draws, 1)
    scores = torch.tensor([[dot(a, b) for b in items] for a in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_without_noise_other_ids_have_the_same_scores_and_with_fixed_noise_they_do_not():
    data = toy_dataset()
    random = np.random.default_rng(3)
    users, items = random.permutation(N_USERS), random.permutation(N_ITEMS)
    other = relabelled(data, users, items)
    moved = {}
    for noise in ("none", "fixed"):
        model, again = (build("LGMRec", given, evaluation_noise=noise) for given in (data, other))
        state = model.state_dict()
        state["user_embedding"] = state["user_embedding"][torch.from_numpy(users).argsort()]
        state["item_embedding"] = state["item_embedding"][torch.from_numpy(items).argsort()]
        again.load_state_dict(state)
        scores = all_scores(model)
        moved[noise] = ((all_scores(again)[users][:, items] - scores).abs().max() / scores.std()).item()
    assert moved["none"] < 1e-4
    assert moved["fixed"] > 1e-2


# Cost


def test_no_matrix_of_the_batch_by_all_nodes_is_kept_for_the_backward_pass():
    data = toy_dataset()
    model = build("LGMRec", data)
    batch = one_batch(data, 64)
    kept = saved_by(lambda: total(model.calculate_loss(batch)))
    assert not any(tensor.shape in ((64, N_USERS), (64, N_ITEMS)) for tensor in kept)
