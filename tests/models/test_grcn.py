"""GRCN's loss and scores from their formulas, node by node and edge by edge."""

import numpy as np
import pytest
import torch
from naive import affine, dot, log_sigmoid_bpr, plus, rows_of, softmax, unit
from toys import N_ITEMS, N_USERS, all_scores, build, on_double, one_batch, total, toy_dataset


def leaky(x, slope=0.01):
    return x if x > 0 else slope * x


def scaled(factor, row):
    return [factor * x for x in row]


class Naive:
    """All of a model's embeddings out of its parameters."""

    def __init__(self, model, data, routing_layers=0):
        self.edges = list(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
        self.items_of = {u: [i for v, i in self.edges if v == u] for u in range(N_USERS)}
        self.users_of = {i: [u for u, j in self.edges if j == i] for i in range(N_ITEMS)}
        self.ids = rows_of(model.id_embedding)
        self.preferences = {m: rows_of(model.preferences[m]) for m in data.features}
        confidence = rows_of(model.confidence)
        content_users, content_items, to_user, to_item = [], [], {}, {}
        for place, name in enumerate(data.features):
            layer = model.content[name]
            f = [unit([leaky(x) for x in affine(row, layer)]) for row in rows_of(model.features(name))]
            p = [unit(row) for row in self.preferences[name]]
            for _ in range(routing_layers):
                p = [unit(plus(p[u], self.gather(self.items_of[u], f, p[u]))) for u in range(N_USERS)]
            content_users.append([plus(p[u], self.gather(self.items_of[u], f, p[u])) for u in range(N_USERS)])
            content_items.append([plus(f[i], self.gather(self.users_of[i], p, f[i])) for i in range(N_ITEMS)])
            for u, own in self.items_of.items():
                for i, share in zip(own, softmax([dot(p[u], f[i]) for i in own]), strict=True):
                    to_user.setdefault((u, i), []).append(share * confidence[N_USERS + i][place])
            for i, own in self.users_of.items():
                for u, share in zip(own, softmax([dot(p[u], f[i]) for u in own]), strict=True):
                    to_item.setdefault((u, i), []).append(share * confidence[u][place])
        self.to_user = {edge: max(0.0, max(values)) for edge, values in to_user.items()}
        self.to_item = {edge: max(0.0, max(values)) for edge, values in to_item.items()}
        self.users, self.items = self.propagate()
        for users, items in zip(content_users, content_items, strict=True):
            self.users = [a + b for a, b in zip(self.users, users, strict=True)]
            self.items = [a + b for a, b in zip(self.items, items, strict=True)]

    @staticmethod
    def gather(ids, table, own):
        shares = softmax([dot(own, table[x]) for x in ids])
        return plus([0.0] * len(own), *(scaled(share, table[x]) for share, x in zip(shares, ids, strict=True)))

    def propagate(self):
        """X_0 + X_1 + X_2."""
        layer = [unit(row) for row in self.ids]
        sums = layer
        for _ in range(2):
            after = [[0.0] * len(self.ids[0]) for _ in layer]
            for u, i in self.edges:
                after[u] = plus(after[u], scaled(self.to_user[u, i], layer[N_USERS + i]))
                after[N_USERS + i] = plus(after[N_USERS + i], scaled(self.to_item[u, i], layer[u]))
            layer = after
            sums = [plus(a, b) for a, b in zip(sums, layer, strict=True)]
        return sums[:N_USERS], sums[N_USERS:]


def mean_square(rows):
    return float(np.mean(np.square(rows)))


CASES = {
    "published": (["visual", "textual"], {}),
    "three modalities": (["textual", "visual", "acoustic"], {}),
    "one modality": (["acoustic"], {}),
    "paper": (["visual", "textual"], {"routing": "paper"}),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_scores_are_those_of_the_specification(case):
    modalities, settings = CASES[case]
    data = toy_dataset(modalities)
    model = on_double(build("GRCN", data, reg_weight=0.3, **settings))
    with torch.no_grad():
        model.confidence.mul_(4)  # so that id messages weigh something
    expected = Naive(model, data, routing_layers=3 if settings else 0)
    batch = one_batch(data, 12)
    users, pos, neg = batch.tolist()
    # 2B rows of ids: each user twice, once with the positive and once with the negative.
    doubled = [
        [x * x + y * y for x, y in zip(expected.ids[u], expected.ids[N_USERS + i], strict=True)]
        for u, i in zip(users * 2, pos + neg, strict=True)
    ]
    penalty = float(np.mean(doubled))
    for name in modalities:
        penalty += mean_square([expected.preferences[name][u] for u in users * 2])
    if "visual" in modalities:
        penalty += mean_square(expected.preferences["visual"])
    terms = {name: term.item() for name, term in model.calculate_loss(batch).items()}
    bpr = log_sigmoid_bpr(
        [dot(expected.users[u], expected.items[i]) for u, i in zip(users, pos, strict=True)],
        [dot(expected.users[u], expected.items[j]) for u, j in zip(users, neg, strict=True)],
    )
    assert terms == pytest.approx({"bpr": bpr, "reg": 0.3 * penalty}, rel=1e-10)
    scores = torch.tensor([[dot(u, i) for i in expected.items] for u in expected.users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    data = toy_dataset()
    model = on_double(build("GRCN", data, reg_weight=0.3, routing="paper"))
    with torch.no_grad():
        model.confidence.mul_(4)
    batch = one_batch(data)
    total(model.calculate_loss(batch)).backward()
    random = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        losses = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                losses.append(total(model.calculate_loss(batch)).item())
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        slope = (parameter.grad * direction).sum().item()
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_attention_sums_to_one_over_a_user_s_items_and_over_an_item_s_users():
    data = toy_dataset()
    model = on_double(build("GRCN", data))
    random = torch.Generator().manual_seed(0)
    sizes = (N_USERS, 4), (N_ITEMS, 4)
    from_items, from_users = model.attention(*(torch.randn(s, generator=random, dtype=torch.float64) for s in sizes))
    for shares, ids, size in ((from_items, data.train.users, N_USERS), (from_users, data.train.items, N_ITEMS)):
        degree = np.bincount(ids, minlength=size)
        sums = np.bincount(ids, weights=shares.detach().numpy(), minlength=size)
        np.testing.assert_allclose(sums, degree > 0)


def test_a_node_without_positive_confidence_is_silent_and_stays_so():
    data = toy_dataset()
    model = build("GRCN", data, reg_weight=0.3)
    item = int(data.train.items[0])

    def id_embeddings_of_users(own_row):
        with torch.no_grad():
            model.id_embedding[N_USERS + item] = own_row
            return model.modality_embeddings()["id"][0]

    for silent in (False, True):
        with torch.no_grad():
            model.confidence.abs_()
            if silent:
                model.confidence[N_USERS + item] *= -1
        unchanged = torch.equal(id_embeddings_of_users(torch.ones(8)), id_embeddings_of_users(-torch.ones(8)))
        assert unchanged == silent
        model.zero_grad()
        total(model.calculate_loss(one_batch(data, 200))).backward()
        assert model.confidence.grad[N_USERS + item].any() != silent


def test_routing_is_off_unless_asked_for():
    data = toy_dataset()
    batch = one_batch(data)
    losses = {
        (routing, layers): total(build("GRCN", data, routing=routing, n_layers=layers).calculate_loss(batch)).item()
        for routing in ("none", "paper")
        for layers in (0, 3)
    }
    assert losses["none", 0] == losses["none", 3] == losses["paper", 0]
    assert abs(losses["paper", 3] - losses["none", 3]) > 1e-6
