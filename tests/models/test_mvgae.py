"""MVGAE's loss and scores from their formulas, node by node."""

import math

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, plus, rows_of, sigmoid, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, toy_dataset

from models.mvgae import bent_unit_rows, kept_shares

QUIET = {"layer_dropout": 0.0}  # what is left random is the samples' noise


def bent(row):
    return [max(x, 0.01 * x) for x in row]


def mean_over_neighbours_and_itself(data):
    joined = naive.dense_adjacency(data.train.users, data.train.items, N_USERS, N_ITEMS) + np.eye(N_USERS + N_ITEMS)
    return (joined / joined.sum(axis=1, keepdims=True)).astype("float32").astype("float64")


def convolved(mean, rows, layer):
    """Weight, mean, bias, unit length."""
    sent = [[dot(weights, row) for weights in rows_of(layer.weight)] for row in rows]
    return [unit(plus(row, layer.bias.tolist())) for row in (mean @ np.array(sent)).tolist()]


def own_gaussian(model, name, mean):
    """mu and log s^2 of a branch, as lists of rows."""
    branch = model.branches[name]
    features = rows_of(model.item_table if name == "id" else model.features(name))
    preferences = rows_of(getattr(model, f"preference_{name}"))
    x = [unit(row) for row in preferences + [affine(row, branch.project) for row in features]]
    for conv, link in zip(branch.convs, branch.links, strict=True):
        x = [bent(affine(bent(row), link)) for row in convolved(mean, x, conv)]
    out = []
    for head in (branch.mean, branch.log_variance):
        gathered = convolved(mean, x, head.conv)
        out.append([
            plus(affine(bent(one), head.link), bent(affine(own, head.own))) for one, own in zip(gathered, x, strict=True)
        ])  # fmt: skip
    return out


def product(first, second):
    """The product of two experts, entry by entry."""
    mean, log_variance = [], []
    for rows in zip(*first, *second, strict=True):
        own = [], []
        for mu, s, nu, t in zip(*rows, strict=True):
            one, other = 1 / (math.exp(s) + 1e-8), 1 / (math.exp(t) + 1e-8)
            own[0].append((one * mu + other * nu) / (one + other))
            own[1].append(-math.log(one + other))
        mean.append(own[0])
        log_variance.append(own[1])
    return mean, log_variance


def posteriors_by_formula(data, model):
    """The joint posterior, then that of each branch."""
    mean = mean_over_neighbours_and_itself(data)
    single = [own_gaussian(model, name, mean) for name in [*model.modalities, "id"]]
    joint = single[0]
    for other in single[1:]:
        joint = product(joint, other)
    return [joint, *single]


@pytest.mark.parametrize(
    ("modalities", "n_layers", "negatives"),
    [(["visual", "textual"], 1, "own"), (["acoustic"], 2, "own"), (["visual", "acoustic", "textual"], 1, "batch")],
    ids=str,
)
def test_loss_and_scores_are_those_of_the_specification(modalities, n_layers, negatives):
    data = toy_dataset(modalities)
    words = {"n_ui_layers": n_layers, "negatives": negatives, "kl_weight": 0.3}
    model = on_double(build("MVGAE", data, **words, **QUIET)).train()
    batch = one_batch(data, 40)
    of_users, of_pos, of_neg = batch.tolist()
    nodes = sorted({*of_users, *(N_USERS + i for i in of_pos + of_neg)})
    posteriors = posteriors_by_formula(data, model)
    torch.manual_seed(3)
    noise = [torch.randn(len(nodes), 8).double().tolist() for _ in posteriors]
    reconstruction = divergence = 0.0
    for (mean, log_variance), draws in zip(posteriors, noise, strict=True):
        divergence += -sum(
            1 + s - mu * mu - math.exp(s)
            for row, other in zip(mean, log_variance, strict=True)
            for mu, s in zip(row, other, strict=True)
        ) / (2 * len(mean))
        y = {}
        for node, draw in zip(nodes, draws, strict=True):
            pairs = zip(mean[node], log_variance[node], draw, strict=True)
            y[node] = [sigmoid(mu + 0.1 * e * math.exp(s / 2)) for mu, s, e in pairs]
        for user, pos, neg in zip(of_users, of_pos, of_neg, strict=True):
            others = [neg] if negatives == "own" else of_neg
            against = max(dot(y[user], y[N_USERS + other]) for other in others)
            reconstruction -= math.log2(sigmoid(dot(y[user], y[N_USERS + pos]) - against))
    torch.manual_seed(3)
    terms = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    assert terms == pytest.approx({"reconstruction": reconstruction, "divergence": 0.3 * divergence}, rel=1e-7)
    rows = [[sigmoid(x) for x in row] for row in posteriors[0][0]]
    scores = torch.tensor([[dot(u, i) for i in rows[N_USERS:]] for u in rows[:N_USERS]], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores)


def test_the_divergence_clamps_large_variances_and_joining_does_not():
    data = toy_dataset()
    model = on_double(build("MVGAE", data, **QUIET)).train()
    with torch.no_grad():
        model.branches["visual"].log_variance.link.bias.fill_(40.0)
    terms = model.calculate_loss(one_batch(data))
    clamped = -8 * (1 + 10 - math.exp(10)) / 2  # of the visual branch, which outweighs all else
    assert terms["divergence"].item() == pytest.approx(clamped, rel=0.01)


@pytest.mark.parametrize("trained", [False, True])
def test_tables_are_constants_that_checkpoints_hold_unless_they_are_trained(trained):
    model = build("MVGAE", toy_dataset(), train_tables=trained)
    tables = {"item_table", "preference_visual", "preference_textual", "preference_id"}
    assert tables <= set(model.state_dict())
    assert (tables <= {name for name, _ in model.named_parameters()}) == trained


def test_bent_unit_rows_have_the_gradient_of_their_formula():
    torch.manual_seed(6)
    x, bias = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((5, 2, 4), (2, 4)))
    share = kept_shares(x.detach(), 0.4)
    unit = torch.nn.functional.normalize(x + bias, dim=-1)
    found, expected = bent_unit_rows(x, bias, share), torch.nn.functional.leaky_relu(unit * share)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(y.sin().sum(), (x, bias)) for y in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_entries_are_dropped_at_the_rate_and_the_others_scaled_up():
    torch.manual_seed(7)
    shares = kept_shares(torch.empty(301, 333), 0.1)  # an odd number of them
    assert torch.equal(shares.unique(), torch.tensor([0, 1 / 0.9]))
    assert (shares == 0).double().mean().item() == pytest.approx(0.1, abs=0.004)  # four standard errors
    assert not torch.equal(shares, kept_shares(shares, 0.1))
    assert kept_shares(shares, 0.0).item() == 1


def test_items_are_read_from_their_own_rows():
    """With rows of users for items, as in a public port, nothing of a cold item's content is in the loss."""
    data = toy_dataset()
    model = on_double(build("MVGAE", data, train_features=True, kl_weight=0.0, **QUIET)).train()
    lone = N_ITEMS - 1  # without interactions: only its own row reaches it
    batch = torch.tensor([[0], [int(data.train.items[0])], [lone]])
    sum(model.calculate_loss(batch).values()).backward()
    assert model.features("visual").grad[lone].abs().max() > 0
